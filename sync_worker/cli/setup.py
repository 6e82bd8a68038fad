"""What a verb does first: it reads the settings, and sets up the logs before anything can be logged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sync_worker.settings import Settings


def begin(**overrides: Any) -> Settings:
    """Return the settings of the environment, with those that an option overrides. Raises ConfigurationError."""
    from sync_worker.logs import configure_logs
    from sync_worker.settings import load_settings

    settings = load_settings(**overrides)
    configure_logs(settings.log_format, settings.secrets)
    return settings

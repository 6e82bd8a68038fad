"""The first step of every command: read the settings, and configure the logs before anything is logged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sync_worker.settings import Settings


def begin(**overrides: Any) -> Settings:
    """Return the settings from the environment, with overrides from options. Raises ConfigurationError."""
    import structlog

    from sync_worker.logs import configure_logs
    from sync_worker.runtime.environment import load_settings, unknown_settings
    from sync_worker.variables import names

    settings = load_settings(**overrides)
    configure_logs(settings.log_format, settings.secrets)
    log = structlog.get_logger("settings")
    for name, meant in unknown_settings().items():
        log.warning("setting_unknown", variable=name, next_step=names.sentence(name, meant))
    return settings

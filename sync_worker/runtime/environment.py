"""Loads the settings, and says of each invalid variable what to write. Nothing else reads the environment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from dotenv import dotenv_values
from pydantic import ValidationError

from sync_worker.errors import ConfigurationError
from sync_worker.settings import Settings
from sync_worker.variables import names

_EPHEMERAL = {"DYNO": "Heroku", "RENDER": "Render", "FLY_APP_NAME": "Fly", "K_SERVICE": "Cloud Run"}


def load_settings(**overrides: Any) -> Settings:
    """Read the environment. Raises ConfigurationError that names every invalid variable, without its value."""
    settings, problems = load_valid_settings(**overrides)
    if problems:
        raise ConfigurationError("; ".join(problems.values()))
    return settings


def load_valid_settings(**overrides: Any) -> tuple[Settings, dict[str, str]]:
    """Read the valid part of the environment. Return it with the problem of each invalid variable, by name.

    An invalid variable gets its default or a placeholder, so that checks that do not need it can run.
    """
    problems: dict[str, str] = {}
    while True:
        try:
            settings = Settings(**{**overrides, **{name.lower(): _fallback(name.lower()) for name in problems}})
            break
        except (OSError, UnicodeError):
            raise _unreadable_file() from None
        except ValidationError as error:
            problems = {**_problems(error), **problems}
    if platform := _ephemeral_disk(settings):
        problems["DATABASE_URL"] = (
            f"DATABASE_URL is not set, and {platform} deletes the disk on restart, with all pending work; "
            "set it to a PostgreSQL database, or to a SQLite file on a mounted volume"
        )
    return settings, problems


def unknown_settings() -> dict[str, str]:
    """Return the variables that look like settings but are not read, each with the setting that was meant, if known."""
    return names.unknown(_given(), [name.upper() for name in Settings.model_fields])


def _given() -> list[str]:
    """Return the names of all variables, of the environment and of `.env`."""
    file = Path(str(Settings.model_config["env_file"]))
    return [*os.environ, *(dotenv_values(file, encoding="utf-8-sig") if file.is_file() else ())]


def _unreadable_file() -> ConfigurationError:
    return ConfigurationError("The file .env cannot be read as text. Save it as UTF-8, readable for this user.")


def _fallback(name: str) -> Any:
    return _PLACEHOLDERS[name] if name in _PLACEHOLDERS else Settings.model_fields[name].default


_PLACEHOLDERS = {"sanity_project_id": "unset", "sanity_read_token": "unset", "clerk_secret_key": "sk_test_unset"}
"""For required settings, which have no default."""

_EXPECTED = {
    "SANITY_PROJECT_ID": "must be a project id of lowercase letters, digits and -",
    "SANITY_DATASET": "must be a dataset name of lowercase letters, digits, - and _",
    "SANITY_API_VERSION": "must be a date such as 2025-02-19",
    "CLERK_BUDGET": "must be a whole number, 0 or more",
    "EVENTS": "must be webhook, listen or both",
    "FULL_CHECK_SECONDS": "must be a whole number of seconds, 1 or more",
    "POLL_SECONDS": "must be a whole number of seconds, 0 or more",
    "RECONCILE_AT": "must be a time in UTC such as 03:30, or off",
    "CLAIMS_BUDGET": "must be a whole number of bytes, 1 or more",
    "PORT": "must be a whole number from 0 to 65535",
    "LOG_FORMAT": "must be auto, json or console",
}
"""What to write, for settings that pydantic checks by their type."""


def _problems(error: ValidationError) -> dict[str, str]:
    """Return one sentence per invalid variable, by name. Values that contradict each other are listed under one."""
    sentences = {}
    for problem in error.errors(include_url=False, include_input=False):
        name = str(problem["loc"][0]).upper() if problem["loc"] else ""
        match problem["type"]:
            case "missing":
                alias = names.alias_of(name, _given())
                text = f"is not set ({alias} is, but it is not read)" if alias else "is not set"
            case "value_error":
                text = problem["msg"].removeprefix("Value error, ")
            case _:
                text = _EXPECTED.get(name, "is not valid")
        sentences[name or text.partition(":")[0]] = f"{name} {text}".lstrip()
    return sentences


def _ephemeral_disk(settings: Settings) -> str:
    """Return the platform on which the default SQLite file would not survive a restart, or nothing."""
    if "database_url" in settings.model_fields_set:
        return ""
    return next((platform for variable, platform in _EPHEMERAL.items() if variable in os.environ), "")

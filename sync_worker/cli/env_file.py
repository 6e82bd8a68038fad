"""Writes a file of settings that only its owner can read, and never over an existing one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sync_worker.cli.output import CommandFailed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def refuse_existing(path: Path, otherwise: str = "") -> None:
    """Raise CommandFailed if the file exists: it may hold keys that are nowhere else. `otherwise` is another way."""
    if path.exists() or path.is_symlink():
        text = f"{path} exists already, so nothing was written. Move it away, or use another directory."
        raise CommandFailed(f"{text} {otherwise}.".removesuffix(" ."))


def write_env_file(path: Path, values: Mapping[str, str]) -> None:
    """Write one NAME=value per line. Raises CommandFailed if the file exists or cannot be written."""
    refuse_existing(path)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise CommandFailed(f"{path} cannot be written: {error.strerror}. Check the directory.") from None
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.writelines(f"{name}={value}\n" for name, value in values.items())

"""The README is part of the product: what it says of commands and settings is true."""

from __future__ import annotations

from pathlib import Path

import typer.main

from sync_worker.cli import app
from sync_worker.settings import Settings

README = Path(__file__).parent.parent / "README.md"


def settings_table() -> list[str]:
    """Return the rows of README's settings table, made from the settings themselves."""
    rows = []
    for name, field in Settings.model_fields.items():
        default = "" if field.is_required() or field.default in (None, (), "", 0) else f"`{field.default}`"
        rows.append(f"| `{name.upper()}` | {default} | {' '.join((field.description or '').split())} |")
    return rows


def test_the_readme_lists_every_setting_with_its_default_and_consequence() -> None:
    assert [row for row in settings_table() if row not in README.read_text()] == []


def test_the_readme_names_every_verb() -> None:
    verbs = typer.main.get_command(app).commands  # type: ignore[attr-defined]  # click's group, typed as a command
    assert [verb for verb in verbs if f"sync-worker {verb}" not in README.read_text()] == []


def test_every_verb_has_an_example_in_its_help() -> None:
    verbs = typer.main.get_command(app).commands  # type: ignore[attr-defined]  # as above
    flat = {
        f"{name} {inner}".strip(): command
        for name, verb in verbs.items()
        for inner, command in getattr(verb, "commands", {"": verb}).items()
    }
    assert [name for name, verb in flat.items() if f"Example: sync-worker {name}" not in (verb.help or "")] == []

"""Options and output shared by the commands: tables for people, JSON for scripts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from sync_worker.formatting import parse_time, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
ManageToken = Annotated[
    str,
    typer.Option(
        envvar="SANITY_MANAGE_TOKEN",
        help="A token that may manage webhooks (Administrator, Developer or your own). Only for this command, never "
        "for the worker. Prefer the environment variable: other users can see arguments. Default: SANITY_READ_TOKEN.",
    ),
]


class CommandFailed(Exception):
    """Ends the command with exit code 1; the message is one line: what happened, then what to do."""


def echo(text: str = "", *, err: bool = False) -> None:
    """Print text of any origin: control characters are escaped."""
    typer.echo(printable(text), err=err)  # noqa: TID251 - the one place


def moment_of(at: str) -> float | None:
    """Return the value of --at in epoch seconds; None when it was not given. Raises CommandFailed."""
    try:
        return parse_time(at).timestamp() if at else None
    except ValueError as error:
        raise CommandFailed(f"--at {error}.") from None


def print_json(data: object) -> None:
    """Print one JSON value."""
    echo(json.dumps(data, indent=2, ensure_ascii=False, default=str))


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table that wraps to the terminal width. A cell may be a rich Text with its own style."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(printable(str(cell))) for cell in row))
    Console().print(table)

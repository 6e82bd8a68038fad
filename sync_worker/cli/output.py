"""Options and output shared by the commands: text for people, JSON for scripts. Tables are in `tables`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from sync_worker.formatting import parse_time, printable

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

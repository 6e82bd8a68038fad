"""`history`: who got or lost what, when, and which documents caused it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from sync_worker.changeset import describe
from sync_worker.cli.output import AsJson, print_json, print_table

if TYPE_CHECKING:
    from sync_worker.ledger import Entry


def history(
    subject: Annotated[str | None, typer.Argument(help="user:user_… or org:org_…; default: everybody.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many changes, newest first.")] = 50,
    as_json: AsJson = False,
) -> None:
    """Show the changes that were written to Clerk, newest first.

    Example: sync-worker history user:user_2abc --limit 5
    """
    from sync_worker.model import Subject

    key = str(Subject.parse(subject)) if subject else None
    entries = asyncio.run(_read(key, limit))
    if as_json:
        print_json([entry_json(entry) for entry in entries])
        return
    rows = ((when(e.at), e.subject, e.kind, describe(e.before), describe(e.after), e.cause, e.state) for e in entries)
    print_table(("at", "subject", "change", "before", "after", "cause", "state"), rows)


def entry_json(entry: Entry) -> dict[str, object]:
    """Return one ledger entry as the command line and the pages show it."""
    return {
        "at": when(entry.at),
        "subject": entry.subject,
        "change": entry.kind,
        "before": entry.before,
        "after": entry.after,
        "documents": list(entry.documents),
        "cause": entry.cause,
        "state": entry.state,
    }


def when(epoch: float) -> str:
    """Return an epoch time as RFC 3339 in UTC, to the second."""
    return datetime.fromtimestamp(epoch, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


async def _read(subject: str | None, limit: int) -> list[Entry]:
    from sync_worker.app import open_store
    from sync_worker.settings import load_settings

    async with open_store(load_settings()) as store:
        return await store.ledger.history(subject=subject, limit=limit)

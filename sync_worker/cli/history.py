"""`history`: the changes written to Clerk, with their time and cause."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from sync_worker.cli.output import AsJson, print_json
from sync_worker.cli.setup import begin
from sync_worker.cli.tables import print_table
from sync_worker.formatting import describe, rfc3339

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sync_worker.storage.ledger import Entry


def history(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="[SUBJECT]", help="A subject, an e-mail address or a document id. Default: all changes."
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Maximum number of changes.")] = 50,
    as_json: AsJson = False,
) -> None:
    """Show the changes written to Clerk, newest first.

    Example: sync-worker history user:user_2abc --limit 5
    """
    entries, names = asyncio.run(_read(target, limit, with_names=not as_json))
    if as_json:
        from sync_worker.diagnostics.serialize import entry_json

        print_json([entry_json(entry) for entry in entries])
        return
    rows = (
        (
            *(rfc3339(e.at), e.subject, names.get(e.subject), e.kind),
            *(describe(e.before), describe(e.after), e.cause, e.by, e.state),
        )
        for e in entries
    )
    empty = "nothing has been written for it" if target else "nothing has been written to Clerk yet"
    print_table(("at", "subject", "name", "change", "before", "after", "cause", "by", "state"), rows, empty=empty)


async def _read(target: str | None, limit: int, *, with_names: bool) -> tuple[list[Entry], Mapping[str, str]]:
    from sync_worker.cli.people import names_of
    from sync_worker.cli.targets import keys_of
    from sync_worker.diagnostics.explainer import causes_of
    from sync_worker.runtime.wiring import Runtime, open_store
    from sync_worker.storage.work_items import FANOUT

    settings = begin()
    async with open_store(settings, Runtime.system()) as store:
        entries = [] if target else await store.ledger.history(limit=limit)
        for key in await keys_of(settings, store, [target]) if target else ():
            document = key.removeprefix(FANOUT)
            if document != key:
                entries += await store.ledger.of_document(document, causes_of(document), limit)
            else:
                entries += await store.ledger.history(key, limit)
        entries = sorted(entries, key=lambda entry: entry.id, reverse=True)[:limit]
        names = await names_of(settings, store, [entry.subject for entry in entries]) if with_names else {}
    return entries, names

"""`sync`: reconciles some subjects now, and reports the results."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sync_worker.cli.output import AsJson, echo, print_json
from sync_worker.cli.setup import begin
from sync_worker.cli.tables import print_table
from sync_worker.formatting import describe

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sync_worker.domain.subjects import Subject
    from sync_worker.runtime.wiring import Store
    from sync_worker.settings import Settings
    from sync_worker.storage.queue_admin import Row
    from sync_worker.worker.loop import Worker

UNCHANGED = "unchanged"


def sync(
    subjects: Annotated[list[str], typer.Argument(help="user:user_…, org:org_…, an e-mail address, or only the id.")],
    as_json: AsJson = False,
) -> None:
    """Sync some subjects now.

    Compares them with what is published, and writes the differences.

    Example: sync-worker sync user:user_2abc org:org_9xyz
    """
    from sync_worker.domain.subjects import Subject

    chosen = [Subject.parse(text) for text in subjects]
    results, names = asyncio.run(_sync(begin(), chosen, with_names=not as_json))
    if as_json:
        print_json(results)
    else:
        rows = (
            (r["subject"], names.get(r["subject"]), r["result"], describe(r["after"]), r["detail"]) for r in results
        )
        print_table(("subject", "name", "result", "access", "detail"), rows, empty="no subject was given")
    if any(r["result"] in ("failed", "waiting") for r in results):
        raise typer.Exit(1)


async def _sync(
    settings: Settings, subjects: Sequence[Subject], *, with_names: bool
) -> tuple[list[dict[str, Any]], Mapping[str, str]]:
    from sync_worker.cli.people import names_of
    from sync_worker.domain.work import Cause, CauseKind
    from sync_worker.runtime.service import running_worker
    from sync_worker.runtime.wiring import Runtime, open_services, open_store
    from sync_worker.storage.work_items import WorkItem
    from sync_worker.sync.address_resolution import known_owners

    async with open_store(settings, Runtime.system()) as store:
        newest = await store.ledger.history(limit=1)
        async with open_services(settings, store) as services:
            addresses = [subject for subject in subjects if subject.is_address]
            by_address = await services.target.find(addresses)
        found = {one: known_owners(one, by_address) if one.is_address else (one,) for one in subjects}
        keys = [str(one) for resolved in found.values() for one in resolved]
        await store.queue.enqueue([WorkItem(key, cause=Cause(CauseKind.OPERATOR)) for key in keys])
        async with running_worker(settings, store) as worker:
            await _until_idle(store, keys, worker)
        since = newest[0].id if newest else 0
        results = [await _result(store, key, since) for key in keys]
        await _add_values(settings, store, [result for result in results if result["result"] == UNCHANGED])
        names = await names_of(settings, store, keys) if with_names else {}
        return [_pending(subject) for subject, resolved in found.items() if not resolved] + results, names


async def _add_values(settings: Settings, store: Store, unchanged: Sequence[dict[str, Any]]) -> None:
    """Add what Clerk stores to the results of subjects that were in sync already."""
    from sync_worker.domain.diff import managed_values
    from sync_worker.domain.subjects import Subject
    from sync_worker.runtime.wiring import open_services

    if not unchanged:
        return
    async with open_services(settings, store, dry_run=True) as services:
        observed = await services.target.observe([Subject.parse(result["subject"]) for result in unchanged])
    values = {str(subject): managed_values(one, settings.layout) for subject, one in observed.items()}
    for result in unchanged:
        result["before"] = result["after"] = values.get(result["subject"], {})


def _pending(subject: Subject) -> dict[str, Any]:
    from sync_worker.sync.address_resolution import PENDING_REASON

    return {"subject": str(subject), "result": "pending", "before": {}, "after": {}, "detail": PENDING_REASON}


async def _until_idle(store: Store, keys: Sequence[str], worker: Worker) -> None:
    """Wait until these subjects are done. After `sync_patience`, the rest is left to the worker.

    Raises what stops our own worker: it would have to be corrected first.
    """
    clock, timings = store.runtime.clock, store.runtime.timings
    waiting = list(keys)
    try:
        async with asyncio.timeout(timings.sync_patience):
            while waiting:
                rows = {key: await store.queue.get(key) for key in waiting}
                waiting = [key for key, row in rows.items() if row is not None and _is_waiting(row)]
                if waiting and worker.jobs.stopped is not None:
                    raise worker.jobs.stopped.error
                if waiting:
                    await clock.sleep(timings.sync_poll)
    except TimeoutError:
        return
    except asyncio.CancelledError:
        done = f"{len(keys) - len(waiting)} of {len(keys)} subjects are done."
        rest = f"The worker does the rest, or `sync-worker sync`: {' '.join(waiting)}" if waiting else ""
        echo(f"{done} {rest}".rstrip(), err=True)
        raise


def _is_waiting(row: Row) -> bool:
    return not row.dead and row.pending


async def _result(store: Store, key: str, since: int) -> dict[str, Any]:
    from sync_worker.diagnostics.serialize import entry_json

    row = await store.queue.get(key)
    entries = [entry for entry in await store.ledger.history(subject=key, limit=1) if entry.id > since]
    change = entry_json(entries[0]) if entries else {"before": {}, "after": {}}
    result = (
        "waiting" if row and _is_waiting(row) else "failed" if row and row.dead else change.get("change", UNCHANGED)
    )
    return {
        "subject": key,
        "result": result,
        "before": change["before"],
        "after": change["after"],
        "detail": (row.error_detail if row else "") or "",
    }

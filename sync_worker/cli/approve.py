"""`approve`: apply held revocations, exactly those listed, and only where they are still due."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from sync_worker.cli.output import AsJson, print_json, print_table
from sync_worker.cli.setup import begin
from sync_worker.errors import NoSuchChangeset
from sync_worker.formatting import rfc3339

if TYPE_CHECKING:
    from sync_worker.settings import Settings
    from sync_worker.storage.reconcile_runs import Held


def approve(
    changeset: Annotated[
        str | None, typer.Argument(help="The id of a held changeset. Without it, lists all of them.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Apply a held changeset, or list all held changesets.

    Each subject is compared again first. Subjects that are entitled again keep their access.

    Example: sync-worker approve 3f9a2c1b7e
    """
    settings = begin()
    if changeset is None:
        _list(asyncio.run(_held(settings)), as_json=as_json)
    else:
        raise typer.Exit(asyncio.run(_approve(settings, changeset, as_json=as_json)))


def _list(held: list[Held], *, as_json: bool) -> None:
    from sync_worker.diagnostics.status import held_json

    if as_json:
        print_json([held_json(one) for one in held])
        return
    if not held:
        typer.echo("no changeset is held")
        return
    rows = ((one.id, rfc3339(one.at), rfc3339(one.expires), one.reason, ", ".join(one.subjects[:5])) for one in held)
    print_table(("id", "held at", "expires", "reason", "subjects"), rows)


async def _held(settings: Settings) -> list[Held]:
    from sync_worker.runtime.wiring import Runtime, open_store

    async with open_store(settings, Runtime.system()) as store:
        return await store.runs.held()


async def _approve(settings: Settings, changeset: str, *, as_json: bool) -> int:
    from sync_worker.domain.entitlements import ChangeKind
    from sync_worker.domain.subjects import Subject
    from sync_worker.runtime.wiring import Runtime, open_reconcile, open_store
    from sync_worker.storage.reconcile_runs import exclusive_run
    from sync_worker.worker.full_reconcile import Result

    calls: Counter[str] = Counter()
    runtime = Runtime.system()
    async with open_store(settings, runtime) as store, exclusive_run(store.runs, runtime.clock, runtime.timings):
        held = await store.runs.find(changeset)
        if held is None:
            raise NoSuchChangeset(changeset)
        result = Result()
        async with open_reconcile(settings, store, calls) as run:
            await run.repair([Subject.parse(key) for key in held.subjects], result)
        if not result.failed:
            await store.runs.drop(changeset)
    revoked = result.kinds[ChangeKind.REVOKE]
    payload = {"id": changeset, "revoked": revoked, "kept": len(held.subjects) - revoked - len(result.failed)}
    payload["failed"] = len(result.failed)
    if as_json:
        print_json(payload)
    else:
        typer.echo(" ".join(f"{name}={value}" for name, value in payload.items()))
    for subject, error in result.failed.items():
        typer.echo(f"error: {subject}: {error}", err=True)
    return 1 if result.failed else 0

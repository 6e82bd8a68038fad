"""`approve`: apply held losses, exactly those listed, and only where they are still due."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from sync_worker.cli.output import AsJson, echo, print_json
from sync_worker.cli.progress import Bars
from sync_worker.cli.setup import begin
from sync_worker.cli.tables import print_table
from sync_worker.errors import NoSuchChangeset
from sync_worker.formatting import describe, rfc3339

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sync_worker.settings import Settings
    from sync_worker.storage.approvals import HeldChange, HeldChangeset

SHOWN = 20
"""Subjects shown of each list."""


def approve(
    changeset: Annotated[
        str | None, typer.Argument(help="The id of a held changeset. Without it, lists all of them.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Apply a held changeset, or list all held changesets with what each subject would lose.

    Each subject is compared again first. Subjects that are entitled again keep their access.

    Example: sync-worker approve 3f9a2c1b7e
    """
    settings = begin()
    if changeset is None:
        asyncio.run(_list(settings, as_json=as_json))
    else:
        raise typer.Exit(asyncio.run(_approve(settings, changeset, as_json=as_json)))


async def _list(settings: Settings, *, as_json: bool) -> None:
    from sync_worker.cli.people import names_of
    from sync_worker.diagnostics.status import held_json
    from sync_worker.runtime.wiring import Runtime, open_store

    async with open_store(settings, Runtime.system()) as store:
        held = await store.approvals.changesets()
        if as_json:
            print_json([held_json(one, await store.approvals.all_changes(one.id)) for one in held])
            return
        lists = [(one, await store.approvals.changes(one.id, limit=SHOWN)) for one in held]
        subjects = [change.subject for _, changes in lists for change in changes]
        names = await names_of(settings, store, subjects) if subjects else {}
        for one, changes in lists:
            _show(one, changes, names)
    if not held:
        echo("no changeset is held")


def _show(held: HeldChangeset, changes: Sequence[HeldChange], names: Mapping[str, str]) -> None:
    echo(f"{held.id}: {held.reason}")
    echo(f"{held.size} held since {rfc3339(held.at)}, until {rfc3339(held.expires)}")
    rows = ((one.subject, names.get(one.subject), describe(one.before), describe(one.after)) for one in changes)
    print_table(("subject", "name", "before", "after"), rows, empty="no subject is left on this list")
    if held.size > len(changes):
        echo(f"… and {held.size - len(changes)} more (--json lists all)")
    echo()


async def _approve(settings: Settings, changeset: str, *, as_json: bool) -> int:
    from sync_worker.domain.entitlements import ChangeKind
    from sync_worker.domain.subjects import Subject
    from sync_worker.domain.work import Cause, CauseKind
    from sync_worker.runtime.service import refuse_other_installation
    from sync_worker.runtime.wiring import Runtime, open_reconcile, open_store
    from sync_worker.storage.reconcile_runs import exclusive_run
    from sync_worker.worker.full_reconcile import Result

    calls: Counter[str] = Counter()
    runtime = Runtime.system()
    async with open_store(settings, runtime) as store, exclusive_run(store.runs, runtime.clock, runtime.timings):
        if await store.approvals.find(changeset) is None:
            raise NoSuchChangeset(changeset)
        await refuse_other_installation(settings, store)
        changes = await store.approvals.all_changes(changeset)
        result = Result()
        async with open_reconcile(settings, store, calls, approved=changeset) as run:
            cause = Cause(CauseKind.APPROVE, changeset)
            with Bars() as bars:
                repair = replace(run, cause=cause, progress=bars).repair
                await repair([Subject.parse(change.subject) for change in changes], result)
    not_done = len(result.failed) + result.refused + result.left_over + result.held.total()
    revoked, updated = result.kinds[ChangeKind.REVOKE], result.kinds[ChangeKind.UPDATE]
    payload = {"id": changeset, "revoked": revoked, "updated": updated}
    payload |= {"kept": len(changes) - revoked - updated - not_done, "failed": not_done}
    if as_json:
        print_json(payload)
    else:
        echo(" ".join(f"{name}={value}" for name, value in payload.items()))
    for subject, error in result.failed.items():
        echo(f"error: {subject}: {error}", err=True)
    if not_done:
        echo(f"{not_done} stay on the list; run `sync-worker approve {changeset}` again.", err=True)
    return 1 if not_done else 0

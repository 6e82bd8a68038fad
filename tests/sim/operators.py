"""What operators do: reconcile, approve, sync, retry and purge, as commands beside the servers.

Each function is one step, which starts a command and does not wait for it. A command may fail with a
typed error in bad weather; that is its business. What it must never do, the watch sees.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from sync_worker.domain.subjects import Subject
from sync_worker.errors import SyncWorkerError
from sync_worker.storage.installation import InstallationRecord
from sync_worker.storage.reconcile_runs import exclusive_run
from sync_worker.storage.work_items import WorkItem
from sync_worker.worker.full_reconcile import Result
from tests.causes import cause_of
from tests.clock import TIMINGS
from tests.sim import truth
from tests.sim.machine import Process

RELEASE_ATTEMPTS = 100

if TYPE_CHECKING:
    from sync_worker.storage.approvals import HeldChangeset
    from sync_worker.worker.desired_state import Findings
    from tests.sim.world import World


async def reconcile(world: World) -> str:
    async def work(process: Process) -> None:
        with suppress(SyncWorkerError):
            await reconcile_once(process)

    process = await world.run_command("reconcile", work)
    return f"{process.name} starts"


async def approve(world: World) -> str:
    async def work(process: Process) -> None:
        with suppress(SyncWorkerError):
            for held in await process.approvals.changesets():
                await approve_one(process, held)

    process = await world.run_command("approve", work)
    return f"{process.name} starts"


async def sync(world: World) -> str:
    keys = world.random.sample(sorted(world.unmanaged), min(3, len(world.unmanaged)))

    async def work(process: Process) -> None:
        with suppress(SyncWorkerError):
            await process.queue.enqueue([WorkItem(key, cause=cause_of("sync")) for key in keys])

    await world.run_command("sync", work)
    return f"an operator syncs {', '.join(keys)}"


async def change_settings(world: World) -> str:
    """Release other settings: the managed keys are elsewhere from now on. What is running goes on for a while."""
    first, second = truth.NAMESPACES
    namespace = second if world.namespace == first else first
    process = Process(world, "release")
    record = InstallationRecord(process.session, {"METADATA_NAMESPACE": namespace or ""})
    for _ in range(RELEASE_ATTEMPTS):
        with suppress(SyncWorkerError):
            await record.record()
            break
    else:
        return "a release fails"
    world.namespace = namespace
    world.watch.settings_replaced()
    world.watch.excuse(world.clerk.records(), "its keys have not moved yet")
    server = await world.start_server()
    return f"{server.name} starts with METADATA_NAMESPACE={namespace or ''}"


async def retry(world: World) -> str:
    async def work(process: Process) -> None:
        with suppress(SyncWorkerError):
            await process.queue.revive()

    await world.run_command("retry", work)
    return "an operator retries what failed"


async def purge(world: World) -> str:
    async def work(process: Process) -> None:
        with suppress(SyncWorkerError):
            await process.queue.purge(0.0)

    await world.run_command("purge", work)
    return "idle rows are purged"


async def reconcile_once(process: Process, *, accept_fewer: bool = False) -> tuple[Findings, Result]:
    """Run `sync-worker reconcile`."""
    async with exclusive_run(process.runs, process.world.clock, TIMINGS):
        run = process.reconciliation(accept_fewer=accept_fewer)
        findings = await run.find()
        return findings, await run.apply(findings)


async def approve_one(process: Process, held: HeldChangeset) -> Result:
    """Run `sync-worker approve`."""
    result = Result()
    async with exclusive_run(process.runs, process.world.clock, TIMINGS):
        changes = await process.approvals.all_changes(held.id)
        run, process.may_take = process.reconciliation(approved=held.id), True
        await run.repair([Subject.parse(change.subject) for change in changes], result)
    process.may_take = False
    return result

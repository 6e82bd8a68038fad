"""What is on a list: who leaves it and by what, and that nobody else does."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from sync_worker.domain.subjects import Subject
from sync_worker.domain.work import Cause, CauseKind
from sync_worker.runtime.wiring import open_reconcile
from sync_worker.storage.work_items import WorkItem
from sync_worker.worker.empty_dataset import report_empty_read, requeue_after_empty_read
from sync_worker.worker.full_reconcile import Result
from tests.causes import cause_of
from tests.clock import TIMINGS, ShiftedClock
from tests.oracle import until, until_idle
from tests.parts import working
from tests.sync.holders import clear_the_slug, enqueue, ids, publish, sync_all, until_held, with_plan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sync_worker.sandbox.server import Sandbox
    from tests.parts import Parts

pytestmark = pytest.mark.anyio


async def approve(parts: Parts, id_: str, users: Sequence[str]) -> Result:
    """Do what `sync-worker approve` does for these people of a list."""
    result = Result()
    async with open_reconcile(parts.settings, parts.store, Counter(), approved=id_) as run:
        await replace(run, cause=Cause(CauseKind.APPROVE, id_)).repair(
            [Subject.parse(f"user:{user}") for user in users], result
        )
    return result


@pytest.mark.parametrize("said_by", ["webhook", "listen"])
@pytest.mark.parametrize("end", ["deleted", "cancelled", "moved"])
async def test_the_end_of_the_own_entitlement_takes_what_is_held_and_from_nobody_else(
    box: Sandbox, database_url: str, end: str, said_by: str
) -> None:
    users = await publish(box, 4)
    box.clerk.add_user("user_new")
    document = f"ent-{users[0]}"
    ends: dict[str, dict[str, Any]] = {
        "deleted": {"delete": {"id": document}},
        "cancelled": {"patch": {"id": document, "set": {"status": "cancelled"}}},
        "moved": {"patch": {"id": document, "set": {"clerkUserId": "user_new"}}},
    }
    async with working(box, database_url, max_revocations="0") as parts:
        await sync_all(parts, [*users, "user_new"], box)
        await clear_the_slug(box, parts, 4)
        await box.lake.mutate([ends[end]])
        await enqueue(parts, [f"user:{users[0]}"], f"{said_by}:{document}")
        assert box.clerk.users[users[0]]["public_metadata"] == {}
        assert with_plan(box) == users[1:]
        (held,) = await parts.store.approvals.changesets()
        assert [c.subject for c in await parts.store.approvals.all_changes(held.id)] == ids(users[1:])


async def test_an_operator_who_syncs_somebody_on_a_list_takes_what_is_held(box: Sandbox, database_url: str) -> None:
    users = await publish(box, 3)
    async with working(box, database_url, max_revocations="0") as parts:
        await sync_all(parts, users, box)
        await clear_the_slug(box, parts, 3)
        await enqueue(parts, ids(users[:1]), "sync")
        assert with_plan(box) == users[1:]
        assert [held.size for held in await parts.store.approvals.changesets()] == [2]


@pytest.mark.parametrize("cause", ["dataset_visible_again", "clerk:user.updated", "poll:x", "reconcile:x", "window"])
async def test_whatever_else_enqueues_somebody_leaves_what_is_held(box: Sandbox, database_url: str, cause: str) -> None:
    users = await publish(box, 34)
    async with working(box, database_url, max_revocations="1000") as parts:
        await sync_all(parts, users, box)
    async with working(box, database_url, max_revocations="0") as parts:
        await clear_the_slug(box, parts, 34)
    async with working(box, database_url, max_revocations="1000") as parts:
        (before,) = await parts.store.approvals.changesets()
        await enqueue(parts, ids(users), cause)
        (after,) = await parts.store.approvals.changesets()
        assert (with_plan(box), after.id, after.size) == (users, before.id, 34)


async def test_the_end_of_an_empty_dataset_writes_nothing_that_is_held(box: Sandbox, database_url: str) -> None:
    users = await publish(box, 34)
    async with working(box, database_url, max_revocations="0") as parts:
        await sync_all(parts, users, box)
        await report_empty_read(parts.store.queue, TIMINGS)
        await clear_the_slug(box, parts, 34)
        assert await requeue_after_empty_read(parts.services.source, parts.store.queue) >= 34
        await until_idle(database_url)
        assert (with_plan(box), [held.size for held in await parts.store.approvals.changesets()]) == (users, [34])


async def test_a_retry_of_all_that_failed_writes_nothing_that_is_held(box: Sandbox, database_url: str) -> None:
    users = await publish(box, 12)
    async with working(box, database_url, max_revocations="0") as parts:
        await sync_all(parts, users, box)
        await clear_the_slug(box, parts, 12)
    async with working(box, database_url, max_revocations="1000") as parts:
        assert await parts.store.queue.revive() == 12
        await until_idle(database_url)
        assert (with_plan(box), [held.size for held in await parts.store.approvals.changesets()]) == (users, [12])


async def test_a_window_that_ends_takes_what_is_held(box: Sandbox, sqlite_url: str) -> None:
    clock, timings = ShiftedClock(), replace(TIMINGS, idle_interval=0.05)
    users = await publish(box, 3)
    soon = datetime.fromtimestamp(clock.now() + 600, UTC).isoformat()
    await box.lake.mutate([{"patch": {"id": f"ent-{u}", "set": {"endsAt": soon}}} for u in users])
    async with working(box, sqlite_url, clock=clock, timings=timings, max_revocations="0") as parts:
        await sync_all(parts, users, box)
        await clear_the_slug(box, parts, 3)
        clock.ahead += 601
        await until(lambda: not with_plan(box))
        await until_held(parts.store.approvals, 0)


async def test_who_is_added_to_a_list_while_it_is_approved_stays_on_it(box: Sandbox, database_url: str) -> None:
    users = await publish(box, 240)
    first, second = users[:120], users[120:]
    async with working(box, database_url, max_revocations="0") as parts:
        await sync_all(parts, users, box)
        await box.lake.mutate([{"patch": {"id": f"ent-{u}", "set": {"status": "off"}}} for u in users])
        await enqueue(parts, ids(first), "document:p1")
        (held,) = await parts.store.approvals.changesets()
        more = [WorkItem(key, cause=cause_of("document:p1")) for key in ids(second)]
        result, _ = await asyncio.gather(approve(parts, held.id, first), parts.store.queue.enqueue(more))
        await until_held(parts.store.approvals, 120)
        await until_idle(database_url)
        assert (result.finished, with_plan(box)) == (120, second)
        (rest,) = await parts.store.approvals.changesets()
        assert [c.subject for c in await parts.store.approvals.all_changes(rest.id)] == ids(second)


async def test_who_could_not_be_written_stays_on_the_list_that_was_approved(box: Sandbox, database_url: str) -> None:
    users = await publish(box, 5)
    async with working(box, database_url, max_revocations="0") as parts:
        await sync_all(parts, users, box)
        await clear_the_slug(box, parts, 5)
        (held,) = await parts.store.approvals.changesets()
        box.clerk.faults.some("conflict", 1.0, method="PATCH", path_prefix=f"/v1/users/{users[2]}")
        await approve(parts, held.id, users)
        assert with_plan(box) == [users[2]]
        (rest,) = await parts.store.approvals.changesets()
        assert (rest.id, rest.size) == (held.id, 1)
        box.clerk.faults.clear()
        await approve(parts, held.id, users[2:3])
        assert (with_plan(box), await parts.store.approvals.changesets()) == ([], [])


async def test_an_approval_counts_for_its_own_list_alone(box: Sandbox, database_url: str) -> None:
    users = await publish(box, 3)
    async with working(box, database_url, max_revocations="0") as parts:
        await sync_all(parts, users, box)
        await box.lake.mutate([{"patch": {"id": "c1", "unset": ["slug"]}}])
        await enqueue(parts, ["document:c1"], "webhook:c1", lane=1)
        (approved,) = await parts.store.approvals.changesets()
        await box.lake.mutate([{"patch": {"id": "c1", "set": {"slug": {"current": "algebra"}}}}])
        await enqueue(parts, ["document:c1"], "webhook:c1", lane=1)
        await clear_the_slug(box, parts, 3)
        (held,) = await parts.store.approvals.changesets()
        result = await approve(parts, approved.id, users)
        assert held.id != approved.id
        assert (with_plan(box), result.held) == (users, Counter({held.id: 3}))

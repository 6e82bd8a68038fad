"""Who gets a subject, in which order, for how long, and what a claim that was lost can no longer change."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from sync_worker.runtime.wiring import open_database
from sync_worker.storage.queue import WorkQueue
from sync_worker.storage.work_items import Completed, DeadLettered, Released, Retry, WorkItem
from tests.clock import CLOCK, TIMINGS, ManualClock
from tests.leases import holds
from tests.storage.queues import DOCUMENT, LEASE, A, B, C, claim_one, keys

if TYPE_CHECKING:
    from sync_worker.storage.work_items import Completion

pytestmark = pytest.mark.anyio


async def test_the_longest_due_is_claimed_first(queue: WorkQueue, clock: ManualClock) -> None:
    await queue.enqueue(
        [
            WorkItem(A, visible_at=clock.now() - 1),
            WorkItem(B, visible_at=clock.now() - 3),
            WorkItem(C, visible_at=clock.now() - 2),
        ]
    )
    assert await keys(queue, limit=2) == [B, C]
    assert await keys(queue, limit=2) == [A]


async def test_a_subject_that_is_claimed_is_nobody_elses(queue: WorkQueue) -> None:
    await queue.enqueue([WorkItem(A)])
    assert (await keys(queue), await keys(queue)) == ([A], [])


async def test_claims_take_one_lane(queue: WorkQueue) -> None:
    await queue.enqueue([WorkItem(A, lane=0), WorkItem(B, lane=1), WorkItem(C, lane=2)])
    assert [await keys(queue, lane) for lane in (2, 1, 0)] == [[C], [B], [A]]


async def test_documents_are_claimed_apart_from_subjects(queue: WorkQueue) -> None:
    await queue.enqueue([WorkItem(A, lane=1), WorkItem(DOCUMENT, lane=1)])
    assert [claim.key for claim in await queue.claim_lookups(1, 10, LEASE)] == [DOCUMENT]
    assert await keys(queue, lane=1) == [A]


async def test_a_lease_that_ended_makes_the_subject_due_again(queue: WorkQueue, clock: ManualClock) -> None:
    await queue.enqueue([WorkItem(A)])
    first = await claim_one(queue)
    clock.advance(LEASE)
    second = await claim_one(queue)
    assert (first.key, first.attempts) == (second.key, second.attempts)
    assert first.lease_token != second.lease_token
    assert first.enqueued_at == second.enqueued_at


async def test_next_due_is_the_end_of_a_lease_too(queue: WorkQueue) -> None:
    await queue.enqueue([WorkItem(A)])
    await claim_one(queue)
    assert await queue.next_due() == LEASE


async def test_a_claim_is_held_until_its_lease_ends(queue: WorkQueue, clock: ManualClock) -> None:
    await queue.enqueue([WorkItem(A), WorkItem(B)])
    claims = await queue.claim(0, 10, LEASE)
    clock.advance(LEASE - 1)
    assert await holds(queue, claims) == {A, B}
    clock.advance(1)
    assert await holds(queue, claims) == set()


async def test_a_completed_claim_is_no_longer_held(queue: WorkQueue) -> None:
    await queue.enqueue([WorkItem(A), WorkItem(B)])
    claims = await queue.claim(0, 10, LEASE)
    await queue.complete([Completed(claims[0])])
    assert await holds(queue, claims) == {B}


async def test_a_renewed_lease_begins_anew(queue: WorkQueue, clock: ManualClock) -> None:
    await queue.enqueue([WorkItem(A)])
    claim = await claim_one(queue)
    clock.advance(LEASE - 1)
    assert await queue.renew([claim], LEASE) == {A}
    clock.advance(LEASE - 1)
    assert await holds(queue, [claim]) == {A}


async def test_a_lease_that_ended_cannot_be_renewed(queue: WorkQueue, clock: ManualClock) -> None:
    await queue.enqueue([WorkItem(A)])
    claim = await claim_one(queue)
    clock.advance(LEASE)
    assert await queue.renew([claim], LEASE) == set()
    assert await keys(queue) == [A]


async def test_an_item_does_not_end_a_lease(queue: WorkQueue) -> None:
    await queue.enqueue([WorkItem(A)])
    claim = await claim_one(queue)
    await queue.enqueue([WorkItem(A)])
    assert await holds(queue, [claim]) == {A}
    assert await keys(queue) == []


@pytest.mark.parametrize("kind", ["done", "retry", "failed", "released"])
async def test_a_claim_that_somebody_took_over_changes_nothing(queue: WorkQueue, clock: ManualClock, kind: str) -> None:
    await queue.enqueue([WorkItem(A), WorkItem(B)])
    lost, kept = sorted(await queue.claim(0, 10, LEASE), key=lambda claim: claim.key)
    await queue.renew([kept], LEASE * 2)
    clock.advance(LEASE)
    owner = await claim_one(queue)
    before = await queue.get(A)
    late: dict[str, Completion] = {
        "done": Completed(lost, next_due=1.0, wrote=True, error_code="late", error_detail="late"),
        "retry": Retry(lost, "late", "late", 0, wrote=True),
        "failed": DeadLettered(lost, "late", "late"),
        "released": Released(lost),
    }
    assert await queue.complete([late[kind], Completed(kept)]) == {A}
    assert await queue.get(A) == before
    assert await holds(queue, [owner]) == {A}
    row = await queue.get(B)
    assert row is not None
    assert row.visible_at is None


async def test_a_claim_whose_lease_ended_can_be_completed_until_somebody_takes_it(
    queue: WorkQueue, clock: ManualClock
) -> None:
    await queue.enqueue([WorkItem(A)])
    claim = await claim_one(queue)
    clock.advance(LEASE * 2)
    assert await queue.complete([Completed(claim)]) == set()
    assert await keys(queue) == []


async def test_a_claim_cannot_be_completed_twice(queue: WorkQueue) -> None:
    await queue.enqueue([WorkItem(A)])
    claim = await claim_one(queue)
    assert await queue.complete([Completed(claim)]) == set()
    assert await queue.complete([DeadLettered(claim, "late", "")]) == {A}
    assert await queue.failed(10) == []


async def test_subjects_enqueued_and_run_by_many_tasks_never_overlap_and_all_finish(database_url: str) -> None:
    db = open_database(database_url, CLOCK, TIMINGS)
    await db.start()
    queue = WorkQueue(db, TIMINGS)
    names = [f"user:user_{n}" for n in range(5)]
    running: set[str] = set()
    enqueued_at_start: dict[str, int] = {}
    enqueued = dict.fromkeys(names, 0)
    enqueuing = True

    async def enqueue() -> None:
        for n in range(40):
            key = names[n % len(names)]
            await queue.enqueue([WorkItem(key)])
            enqueued[key] += 1

    async def work() -> None:
        while enqueuing or await queue.next_due() is not None:
            for claim in await queue.claim(0, 2, LEASE):
                assert claim.key not in running
                running.add(claim.key)
                started = enqueued[claim.key]
                await queue.next_due()  # let the others go on meanwhile
                running.discard(claim.key)
                assert await queue.complete([Completed(claim)]) == set()
                enqueued_at_start[claim.key] = started

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        workers = [group.create_task(work()) for _ in range(4)]
        await asyncio.gather(*(enqueue() for _ in range(5)))
        enqueuing = False
        await asyncio.gather(*workers)
    await db.close()
    assert enqueued == dict.fromkeys(names, 40)
    assert enqueued_at_start == enqueued

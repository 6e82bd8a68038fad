"""What an enqueued item changes: when its subject is due, in which lane, for which cause. On both databases."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sync_worker.storage.work_items import SCHEDULED_LANE, Completed, DeadLettered, WorkItem
from tests.causes import cause_of
from tests.storage.queues import LEASE, A, claim_one, keys

if TYPE_CHECKING:
    from sync_worker.storage.database import Database
    from sync_worker.storage.queue import WorkQueue
    from tests.clock import ManualClock

pytestmark = pytest.mark.anyio


async def test_an_enqueued_subject_can_be_claimed_at_once(queue: WorkQueue, clock: ManualClock) -> None:
    await queue.enqueue([WorkItem(A, cause=cause_of("webhook:doc"))])
    claim = await claim_one(queue)
    assert (claim.key, claim.lane, claim.attempts, str(claim.cause)) == (A, 0, 0, "webhook:doc")
    assert (claim.enqueued_at, claim.lease_until) == (clock.now(), clock.now() + LEASE)


async def test_many_items_of_a_waiting_subject_are_one_run(queue: WorkQueue) -> None:
    for _ in range(3):
        await queue.enqueue([WorkItem(A), WorkItem(A)])
    assert await queue.complete([Completed(await claim_one(queue))]) == set()
    assert await keys(queue) == []
    assert await queue.next_due() is None


async def test_items_of_one_call_are_recorded_all_or_none(queue: WorkQueue) -> None:
    with pytest.raises(UnicodeEncodeError):  # no database stores half a surrogate pair
        await queue.enqueue([WorkItem(A), WorkItem("user:user_\ud800")])
    assert await queue.get(A) is None


async def test_no_items_are_no_work(queue: WorkQueue) -> None:
    await queue.enqueue([])
    assert await queue.next_due() is None


async def test_an_item_wakes_who_waits(db: Database, queue: WorkQueue) -> None:
    await queue.enqueue([WorkItem(A)])
    assert await db.changed(5)


async def test_a_subject_enqueued_for_later_is_not_due_before(queue: WorkQueue, clock: ManualClock) -> None:
    await queue.enqueue([WorkItem(A, visible_at=clock.now() + 60)])
    assert (await keys(queue), await queue.next_due()) == ([], 60)
    clock.advance(60)
    assert await keys(queue) == [A]


async def test_of_two_due_times_the_earlier_stays(queue: WorkQueue, clock: ManualClock) -> None:
    await queue.enqueue(
        [
            WorkItem(A, visible_at=clock.now() + 60),
            WorkItem(A, visible_at=clock.now() + 20),
            WorkItem(A, visible_at=clock.now() + 40),
        ]
    )
    assert await queue.next_due() == 20


async def test_a_waiting_subject_keeps_its_more_urgent_lane(queue: WorkQueue) -> None:
    await queue.enqueue([WorkItem(A, lane=1)])
    await queue.enqueue([WorkItem(A, lane=2)])
    assert await keys(queue, lane=1) == [A]


async def test_a_waiting_subject_moves_to_a_more_urgent_lane(queue: WorkQueue) -> None:
    await queue.enqueue([WorkItem(A, lane=2)])
    await queue.enqueue([WorkItem(A, lane=0)])
    assert (await keys(queue, lane=2), await keys(queue, lane=0)) == ([], [A])


async def test_a_finished_subject_takes_the_lane_of_its_next_item(queue: WorkQueue) -> None:
    await queue.enqueue([WorkItem(A, lane=0)])
    await queue.complete([Completed(await claim_one(queue))])
    await queue.enqueue([WorkItem(A, lane=2)])
    assert await keys(queue, lane=2) == [A]


async def test_a_run_gets_the_last_cause(queue: WorkQueue) -> None:
    await queue.enqueue([WorkItem(A, cause=cause_of("sync"))])
    await queue.enqueue([WorkItem(A, cause=cause_of("reconcile"))])
    await queue.enqueue([WorkItem(A)])
    assert (await claim_one(queue)).cause == cause_of("reconcile")


async def test_a_run_knows_the_newest_webhook_and_the_next_run_does_not(queue: WorkQueue, clock: ManualClock) -> None:
    await queue.enqueue([WorkItem(A, cause=cause_of("webhook:a"), delivery="d1")])
    await queue.enqueue([WorkItem(A, cause=cause_of("webhook:b"), delivery="d2")])
    await queue.enqueue([WorkItem(A)])
    claim = await claim_one(queue)
    assert (str(claim.cause), claim.delivery) == ("webhook:b", "d2")
    await queue.enqueue([WorkItem(A, cause=cause_of("webhook:c"), delivery="d3")])
    await queue.complete([Completed(claim)])
    claim = await claim_one(queue)
    assert (str(claim.cause), claim.delivery) == ("webhook:c", "d3")
    await queue.complete([Completed(claim, next_due=clock.now() + 60)])
    clock.advance(60)
    claim = await claim_one(queue, lane=SCHEDULED_LANE)
    assert (str(claim.cause), claim.delivery) == ("", "")


async def test_a_row_that_an_editor_waits_for_keeps_its_webhook_whatever_else_enqueues_it(queue: WorkQueue) -> None:
    await queue.enqueue([WorkItem(A, cause=cause_of("webhook:a"), delivery="d1")])
    await queue.enqueue([WorkItem(A, cause=cause_of("clerk:user.updated"), delivery="d2")])
    claim = await claim_one(queue)
    assert (str(claim.cause), claim.delivery) == ("webhook:a", "d1")
    await queue.complete([DeadLettered(claim, "rate_limited", "")])
    await queue.enqueue([WorkItem(A, cause=cause_of("poll:a"))])
    claim = await claim_one(queue)
    assert (str(claim.cause), claim.delivery) == ("webhook:a", "d1")


async def test_a_cause_without_a_webhook_takes_that_of_a_served_one_away(queue: WorkQueue) -> None:
    await queue.enqueue([WorkItem(A, cause=cause_of("webhook:a"), delivery="d1")])
    await queue.complete([Completed(await claim_one(queue))])
    await queue.enqueue([WorkItem(A, cause=cause_of("poll:a"))])
    claim = await claim_one(queue)
    assert (str(claim.cause), claim.delivery) == ("poll:a", "")


async def test_a_run_knows_when_it_was_enqueued(queue: WorkQueue, clock: ManualClock) -> None:
    first = clock.now()
    await queue.enqueue([WorkItem(A)])
    clock.advance(5)
    await queue.enqueue([WorkItem(A)])
    assert (await claim_one(queue)).enqueued_at == first


async def test_a_scheduled_run_counts_as_enqueued_at_its_due_time(queue: WorkQueue, clock: ManualClock) -> None:
    due = clock.now() + 60
    await queue.enqueue([WorkItem(A, visible_at=due)])
    clock.advance(70)
    assert (await claim_one(queue)).enqueued_at == due


async def test_a_thousand_items_are_one_call(queue: WorkQueue) -> None:
    await queue.enqueue([WorkItem(f"user:user_{n}", lane=1) for n in range(2500)])
    assert (await queue.depth()).lanes[1].due == 2500

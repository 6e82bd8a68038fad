"""What follows the end of a run: nothing, another run, a retry, a failure or the next window."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sync_worker.storage.work_items import SCHEDULED_LANE, Completed, DeadLettered, Released, Retry, WorkItem
from tests.causes import cause_of
from tests.storage.queues import LEASE, A, B, C, claim_one, keys

if TYPE_CHECKING:
    from sync_worker.storage.database import Database
    from sync_worker.storage.queue import WorkQueue
    from tests.clock import ManualClock

pytestmark = pytest.mark.anyio


async def test_a_failed_subject_is_run_again_when_its_access_changes_by_itself(
    queue: WorkQueue, clock: ManualClock
) -> None:
    await queue.enqueue([WorkItem(A)])
    await queue.complete([DeadLettered(await claim_one(queue), "access_too_large", "", clock.now() + 60)])
    assert await queue.claim(0, 1, LEASE) == []
    clock.advance(60)
    (claim,) = await queue.claim(0, 1, LEASE)
    await queue.complete([Completed(claim)])
    assert await queue.failed(10) == []


async def test_a_running_subject_that_is_enqueued_runs_exactly_once_more(queue: WorkQueue) -> None:
    await queue.enqueue([WorkItem(A)])
    claim = await claim_one(queue)
    for _ in range(100):
        await queue.enqueue([WorkItem(A)])
    await queue.complete([Completed(claim)])
    await queue.complete([Completed(await claim_one(queue))])
    assert await keys(queue) == []


async def test_what_follows_from_an_earlier_event_counts_as_enqueued_with_it(
    queue: WorkQueue, clock: ManualClock
) -> None:
    event = clock.now()
    clock.advance(5)
    await queue.enqueue([WorkItem(A, enqueued_at=event), WorkItem(B, visible_at=clock.now() + 60, enqueued_at=event)])
    clock.advance(60)
    assert {claim.enqueued_at for claim in await queue.claim(0, 10, LEASE)} == {event}


async def test_the_run_once_more_knows_when_its_first_item_came(queue: WorkQueue, clock: ManualClock) -> None:
    await queue.enqueue([WorkItem(A, cause=cause_of("sync"))])
    claim = await claim_one(queue)
    clock.advance(3)
    enqueued = clock.now()
    await queue.enqueue([WorkItem(A, cause=cause_of("reconcile"))])
    clock.advance(3)
    await queue.enqueue([WorkItem(A)])
    await queue.complete([Completed(claim)])
    again = await claim_one(queue)
    assert (again.enqueued_at, str(again.cause)) == (enqueued, "reconcile")


async def test_the_next_window_is_the_next_due_time(queue: WorkQueue, clock: ManualClock) -> None:
    await queue.enqueue([WorkItem(A, cause=cause_of("webhook"))])
    await queue.complete([Completed(await claim_one(queue), next_due=clock.now() + 3600)])
    assert await queue.next_due() == 3600
    clock.advance(3600 + 7)
    claim = await claim_one(queue, lane=SCHEDULED_LANE)
    assert (claim.key, str(claim.cause), claim.enqueued_at) == (A, "", clock.now() - 7)


async def test_an_item_during_the_run_comes_before_the_next_window(queue: WorkQueue, clock: ManualClock) -> None:
    await queue.enqueue([WorkItem(A)])
    claim = await claim_one(queue)
    await queue.enqueue([WorkItem(A)])
    await queue.complete([Completed(claim, next_due=clock.now() + 3600)])
    assert await keys(queue) == [A]


async def test_a_note_stays_visible_until_the_next_run(queue: WorkQueue) -> None:
    await queue.enqueue([WorkItem(A), WorkItem(B)])
    first, second = await queue.claim(0, 10, LEASE)
    await queue.complete([Completed(first, error_code="row_refused", error_detail="doc-1: plan"), Completed(second)])
    (row,) = await queue.noted(10)
    assert (row.key, row.error_code, row.error_detail, row.visible_at, row.dead) == (
        A,
        "row_refused",
        "doc-1: plan",
        None,
        False,
    )
    await queue.enqueue([WorkItem(A)])
    await queue.complete([Completed(await claim_one(queue))])
    assert await queue.noted(10) == []


async def test_a_retry_waits_and_counts(queue: WorkQueue, clock: ManualClock) -> None:
    await queue.enqueue([WorkItem(A, cause=cause_of("webhook"))])
    first = await claim_one(queue)
    await queue.complete([Retry(first, "rate_limited", "429", 12)])
    assert (await keys(queue), await queue.next_due()) == ([], 12)
    clock.advance(12)
    again = await claim_one(queue)
    assert (again.attempts, str(again.cause), again.enqueued_at) == (1, "webhook", first.enqueued_at)


async def test_a_retry_is_noted_until_it_succeeds(queue: WorkQueue) -> None:
    await queue.enqueue([WorkItem(A)])
    await queue.complete([Retry(await claim_one(queue), "rate_limited", "429", 0)])
    assert [(row.error_code, row.attempts) for row in await queue.noted(10)] == [("rate_limited", 1)]
    await queue.complete([Completed(await claim_one(queue))])
    row = await queue.get(A)
    assert row is not None
    assert (row.error_code, row.attempts) == ("", 0)


async def test_an_item_does_not_shorten_retry_after(queue: WorkQueue, clock: ManualClock) -> None:
    await queue.enqueue([WorkItem("user:user_a")])
    await queue.complete([Retry(await claim_one(queue), "rate_limited", "429", 8.5, not_before=8)])
    clock.advance(7.5)
    await queue.enqueue([WorkItem("user:user_a")])
    assert await keys(queue) == []
    clock.advance(0.5)
    assert await keys(queue) == ["user:user_a"]


async def test_an_item_ends_the_wait_of_a_retry(queue: WorkQueue) -> None:
    await queue.enqueue([WorkItem(A)])
    await queue.complete([Retry(await claim_one(queue), "rate_limited", "", 300)])
    await queue.enqueue([WorkItem(A)])
    assert (await claim_one(queue)).attempts == 1


async def test_a_failed_subject_is_listed_and_never_due(queue: WorkQueue, clock: ManualClock) -> None:
    await queue.enqueue([WorkItem(A)])
    await queue.complete([DeadLettered(await claim_one(queue), "no_such_subject", "user_a")])
    clock.advance(1e6)
    assert (await keys(queue), await queue.next_due()) == ([], None)
    (row,) = await queue.failed(10)
    assert (row.key, row.error_code, row.error_detail, row.attempts, row.dead) == (
        A,
        "no_such_subject",
        "user_a",
        1,
        True,
    )
    assert await queue.noted(10) == []


async def test_an_item_gives_a_failed_subject_a_fresh_start(queue: WorkQueue) -> None:
    await queue.enqueue([WorkItem(A)])
    await queue.complete([Retry(await claim_one(queue), "x", "", 0)])
    await queue.complete([DeadLettered(await claim_one(queue), "no_such_subject", "")])
    await queue.enqueue([WorkItem(A)])
    assert (await queue.failed(10), await queue.noted(10)) == ([], [])
    assert (await claim_one(queue)).attempts == 0


async def test_a_failed_subject_that_was_enqueued_during_its_run_runs_once_more(queue: WorkQueue) -> None:
    await queue.enqueue([WorkItem(A)])
    claim = await claim_one(queue)
    await queue.enqueue([WorkItem(A)])
    await queue.complete([DeadLettered(claim, "no_such_subject", "")])
    assert await queue.failed(10) == []
    await queue.complete([DeadLettered(await claim_one(queue), "no_such_subject", "")])
    assert len(await queue.failed(10)) == 1


async def test_failed_subjects_are_listed_page_by_page(queue: WorkQueue) -> None:
    await queue.enqueue([WorkItem(C), WorkItem(A), WorkItem(B)])
    await queue.complete([DeadLettered(claim, "x", "") for claim in await queue.claim(0, 10, LEASE)])
    assert [row.key for row in await queue.failed(2)] == [A, B]
    assert [row.key for row in await queue.failed(2, after=B)] == [C]


async def test_revived_subjects_are_due_now(db: Database, queue: WorkQueue) -> None:
    await queue.enqueue([WorkItem(A), WorkItem(B), WorkItem(C)])
    await queue.complete([DeadLettered(claim, "x", "") for claim in await queue.claim(0, 10, LEASE)])
    assert await db.changed(5)
    assert await queue.revive([A, "user:user_unknown"]) == 1
    assert await db.changed(5)
    assert [(claim.key, claim.attempts) for claim in await queue.claim(0, 10, LEASE)] == [(A, 0)]
    assert await queue.revive() == 2
    assert await queue.revive() == 0


async def test_a_released_subject_is_due_now_as_it_was(queue: WorkQueue, clock: ManualClock) -> None:
    await queue.enqueue([WorkItem(A, cause=cause_of("webhook"))])
    first = await claim_one(queue)
    clock.advance(3)
    await queue.complete([Released(first)])
    again = await claim_one(queue)
    assert (again.attempts, again.cause, again.enqueued_at) == (first.attempts, first.cause, first.enqueued_at)

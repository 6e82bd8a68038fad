"""The queue counted for people, on both databases."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sync_worker.storage.queue_admin import Tally
from sync_worker.storage.work_items import Claim, Completed, DeadLettered, Retry, WorkItem
from tests.causes import cause_of

if TYPE_CHECKING:
    from sync_worker.storage.queue import WorkQueue
    from tests.clock import ManualClock

pytestmark = pytest.mark.anyio


async def claimed(queue: WorkQueue, *keys: str) -> list[Claim]:
    await queue.enqueue([WorkItem(key) for key in keys])
    return sorted(await queue.claim(0, 100, 30.0), key=lambda claim: claim.key)


async def test_an_empty_queue_counts_nobody(queue: WorkQueue) -> None:
    assert await queue.tally() == Tally(0, None)


async def test_rows_are_counted_by_how_they_are(queue: WorkQueue, clock: ManualClock) -> None:
    right, noted, retried, failed = await claimed(queue, "user:a", "user:b", "user:c", "user:d")
    await queue.complete(
        [
            Completed(right),
            Completed(noted, error_code="row_refused"),
            Retry(retried, "rate_limited", "", 60.0),
            DeadLettered(failed, "no_such_subject", ""),
        ]
    )
    since = clock.now()
    clock.advance(10)
    await queue.enqueue([WorkItem("user:e"), WorkItem("user:f", visible_at=clock.now() + 1000)])
    assert await queue.tally() == Tally(2, since)  # user:a, and user:f, whose window opens later
    assert await queue.noted_by_code() == {("row_refused", False): 1, ("rate_limited", True): 1}


async def test_the_time_is_that_of_the_database(queue: WorkQueue, clock: ManualClock) -> None:
    assert await queue.now() == clock.now()


async def test_those_who_wait_because_of_a_document_are_counted_until_they_are_served(queue: WorkQueue) -> None:
    await queue.enqueue([WorkItem(f"user:{n}", cause=cause_of("document:course-1")) for n in range(3)])
    await queue.enqueue(
        [
            WorkItem("user:x", cause=cause_of("document:course-2")),
            WorkItem("document:course-1", cause=cause_of("document:course-1")),
        ]
    )
    assert await queue.caused_by(cause_of("document:course-1")) == 3
    (first,) = await queue.claim(0, 1, 30.0)
    await queue.complete([Completed(first)])
    assert await queue.caused_by(cause_of("document:course-1")) == 2


async def test_notes_are_replaced_but_for_rows_that_ran_meanwhile(queue: WorkQueue, clock: ManualClock) -> None:
    began, note = clock.now(), ("row_refused", "d: plan: wrong")
    clock.advance(1)
    old, ran, window = await claimed(queue, "user:old", "user:ran", "user:window")
    await queue.complete([Completed(old, error_code="row_refused"), Completed(window, next_due=clock.now() + 1000)])
    clock.advance(1)
    since = clock.now()
    clock.advance(1)
    await queue.complete([Completed(ran, error_code="row_refused", error_detail="newer")])
    await queue.enqueue([WorkItem("user:waiting")])
    await queue.replace_notes(dict.fromkeys(("user:window", "document:d", "user:waiting"), note), since)
    found = {row.key: row.error_detail for row in await queue.noted(10)}
    assert found == {"user:window": note[1], "document:d": note[1], "user:ran": "newer"}
    await queue.replace_notes({}, began)
    assert {row.key for row in await queue.noted(10)} == set(found)
    clock.advance(1)
    await queue.replace_notes({}, clock.now())
    assert await queue.noted(10) == []

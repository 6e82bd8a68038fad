"""How often one subject may be written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sync_worker.storage.work_items import Claim, Completed, Retry, WorkItem
from tests.clock import TIMINGS, ManualClock
from tests.storage.queues import LEASE, A, claim_one

if TYPE_CHECKING:
    from sync_worker.storage.queue import WorkQueue

pytestmark = pytest.mark.anyio


async def write_whenever_due(queue: WorkQueue, clock: ManualClock, seconds: float) -> list[float]:
    """Enqueue and write one subject as often as the queue lets it; return the moments."""
    writes = []
    end = clock.now() + seconds
    await queue.enqueue([WorkItem(A)])
    while clock.now() < end:
        for claim in await queue.claim(0, 1, LEASE):
            await queue.enqueue([WorkItem(A)])
            await queue.complete([Completed(claim, wrote=True)])
            writes.append(clock.now())
        wait = await queue.next_due()
        assert wait is not None
        clock.advance(wait)
    return writes


async def test_no_subject_is_written_more_than_nine_times_in_ten_seconds(queue: WorkQueue, clock: ManualClock) -> None:
    writes = await write_whenever_due(queue, clock, 60)
    assert max(sum(start <= moment <= start + 10 for moment in writes) for start in writes) == 9
    assert len(writes) == pytest.approx(TIMINGS.subject_burst + 60 / TIMINGS.subject_pace, abs=1)


async def test_the_first_writes_of_a_subject_do_not_wait(queue: WorkQueue, clock: ManualClock) -> None:
    start = clock.now()
    writes = await write_whenever_due(queue, clock, 3)
    assert len([moment for moment in writes if moment < start + 0.01]) == TIMINGS.subject_burst


@pytest.fixture
async def spaced(queue: WorkQueue, clock: ManualClock) -> Claim:
    """A claim of a subject that has been written in a burst, and may be again just now."""
    await queue.enqueue([WorkItem(A)])
    for _ in range(TIMINGS.subject_burst):
        (claim,) = await queue.claim(0, 1, LEASE)
        await queue.enqueue([WorkItem(A)])
        await queue.complete([Completed(claim, wrote=True)])
        clock.advance(1e-6)  # the pace is a sum of rounded numbers
    clock.advance(TIMINGS.subject_pace)
    return await claim_one(queue)


async def wait_of(queue: WorkQueue) -> float:
    wait = await queue.next_due()
    assert wait is not None
    return wait


async def test_an_item_keeps_the_pace(queue: WorkQueue, spaced: Claim) -> None:
    await queue.complete([Completed(spaced, wrote=True)])
    await queue.enqueue([WorkItem(A)])
    assert await wait_of(queue) == pytest.approx(TIMINGS.subject_pace, abs=0.01)


async def test_after_a_clock_was_set_back_nobody_waits_until_it_is_where_it_was(
    queue: WorkQueue, clock: ManualClock, spaced: Claim
) -> None:
    await queue.complete([Completed(spaced, wrote=True)])
    clock.advance(-3600)
    await queue.enqueue([WorkItem(A)])
    assert await wait_of(queue) == pytest.approx(TIMINGS.subject_pace, abs=0.01)
    clock.advance(TIMINGS.subject_pace)
    claim = await claim_one(queue)
    await queue.enqueue([WorkItem(A)])
    await queue.complete([Completed(claim, wrote=True)])
    assert await wait_of(queue) == pytest.approx(2 * TIMINGS.subject_pace, abs=0.01)


async def test_the_run_once_more_keeps_the_pace(queue: WorkQueue, spaced: Claim) -> None:
    await queue.enqueue([WorkItem(A)])
    await queue.complete([Completed(spaced, wrote=True)])
    assert await wait_of(queue) == pytest.approx(TIMINGS.subject_pace, abs=0.01)


async def test_a_window_keeps_the_pace(queue: WorkQueue, clock: ManualClock, spaced: Claim) -> None:
    await queue.complete([Completed(spaced, next_due=clock.now() + 0.5, wrote=True)])
    assert await wait_of(queue) == pytest.approx(TIMINGS.subject_pace, abs=0.01)


async def test_a_retry_of_a_write_without_an_answer_keeps_the_pace(queue: WorkQueue, spaced: Claim) -> None:
    await queue.complete([Retry(spaced, "service_unavailable", "timeout", 0.5, wrote=True)])
    assert await wait_of(queue) == pytest.approx(TIMINGS.subject_pace, abs=0.01)


async def test_runs_that_wrote_nothing_are_not_paced(queue: WorkQueue) -> None:
    for _ in range(20):
        await queue.enqueue([WorkItem(A)])
        await queue.complete([Completed(await claim_one(queue))])
    await queue.enqueue([WorkItem(A)])
    assert await queue.next_due() == 0

"""What a claim says of the documents that events reported, and for how long the queue remembers it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from sync_worker.domain.revisions import Ambiguous, Deletion, ExpectedRevision, microseconds
from sync_worker.storage.work_items import Completed, DeadLettered, Released, Retry, WorkItem
from tests.clock import TIMINGS, ManualClock
from tests.expected import deleted, updated
from tests.storage.queues import LEASE, A, claim_one

if TYPE_CHECKING:
    from sync_worker.storage.database import Database
    from sync_worker.storage.queue import WorkQueue

pytestmark = pytest.mark.anyio


MONDAY, TUESDAY = "2025-03-03T10:00:00Z", "2025-03-04T10:00:00Z"


async def expected_after(queue: WorkQueue, *reported: ExpectedRevision) -> set[ExpectedRevision]:
    for expected in reported:
        await queue.enqueue([WorkItem(A, expected=expected)])
    return set((await claim_one(queue)).expected_revisions)


async def test_a_claim_brings_the_expected_revision_of_each_document(queue: WorkQueue) -> None:
    one, two = updated("doc-1", "r1", MONDAY), deleted("doc-2", "r2", MONDAY)
    assert await expected_after(queue, one, two) == {one, two}


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        pytest.param(updated("d", "r1", MONDAY), updated("d", "r2", TUESDAY), id="by time"),
        pytest.param(updated("d", "r1", MONDAY), deleted("d", "r1", MONDAY), id="by the delete"),
        pytest.param(updated("d", "r1"), updated("d", "r2", MONDAY), id="known after unknown"),
        pytest.param(
            updated("d", "r1", "2025-03-03T10:00:00Z"),
            updated("d", "r2", "2025-03-03T10:00:00.5Z"),
            id="by a fraction",
        ),
    ],
)
@pytest.mark.parametrize("order", ["in order", "out of order"])
async def test_of_two_revisions_of_a_document_the_later_stays(
    queue: WorkQueue, earlier: ExpectedRevision, later: ExpectedRevision, order: str
) -> None:
    reported = [earlier, later] if order == "in order" else [later, earlier]
    assert await expected_after(queue, *reported) == {later}


async def test_of_two_revisions_in_one_moment_neither_is_proof(queue: WorkQueue) -> None:
    first, second = updated("d", "r1", MONDAY), updated("d", "r2", MONDAY)
    assert await expected_after(queue, first, second) == {Ambiguous("d", microseconds(MONDAY))}


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
async def test_a_delete_is_reported_although_its_moment_has_several_revisions(
    queue: WorkQueue, order: tuple[int, int, int]
) -> None:
    reported = (
        updated("d", "r1", MONDAY),
        updated("d", "r2", MONDAY),
        deleted("d", "r2", MONDAY),
    )
    assert await expected_after(queue, *(reported[n] for n in order)) == {
        Ambiguous("d", microseconds(MONDAY), Deletion.REPORTED)
    }


async def test_what_a_finished_run_has_served_is_remembered_for_a_while(queue: WorkQueue, clock: ManualClock) -> None:
    expected = updated("d", "r1", MONDAY)
    await queue.enqueue([WorkItem(A, expected=expected)])
    await queue.complete([Completed(await claim_one(queue))])
    remembered = []
    for _ in range(3):
        clock.advance(TIMINGS.revision_memory * 0.6)
        await queue.enqueue([WorkItem(A)])
        claim = await claim_one(queue)
        remembered.append(claim.expected_revisions)
        await queue.complete([Completed(claim)])
    known = (replace(expected, served=True),)
    assert remembered == [known, known, ()]


async def test_of_many_served_revisions_the_newest_are_remembered(queue: WorkQueue, clock: ManualClock) -> None:
    for number in range(TIMINGS.revisions_kept + 5):
        await queue.enqueue([WorkItem(A, expected=updated(f"d{number:02}", "r", MONDAY))])
        await queue.complete([Completed(await claim_one(queue))])
        clock.advance(1)
    await queue.enqueue([WorkItem(A)])
    served = [one.document for one in (await claim_one(queue)).expected_revisions]
    assert served == [f"d{number:02}" for number in range(5, TIMINGS.revisions_kept + 5)]


@pytest.mark.parametrize("key", ["email:ada@example.com", "members:user_a"])
async def test_nothing_is_remembered_of_an_address_that_was_looked_up(queue: WorkQueue, db: Database, key: str) -> None:
    await queue.enqueue([WorkItem(key, expected=deleted("d", "r1", MONDAY))])
    (claim,) = await queue.claim_lookups(0, 1, LEASE)
    await queue.complete([Completed(claim)])
    assert await db.read(lambda tx: tx.execute("SELECT key FROM expected_revision")) == []


async def test_a_revision_that_came_during_the_run_is_for_the_next_one(queue: WorkQueue) -> None:
    later = updated("d", "r2", TUESDAY)
    await queue.enqueue([WorkItem(A, expected=updated("d", "r1", MONDAY))])
    claim = await claim_one(queue)
    await queue.enqueue([WorkItem(A, expected=later)])
    await queue.complete([Completed(claim)])
    assert (await claim_one(queue)).expected_revisions == (later,)


@pytest.mark.parametrize("outcome", ["retry", "released", "failed and revived"])
async def test_a_run_that_did_not_finish_keeps_its_expected_revisions(queue: WorkQueue, outcome: str) -> None:
    expected = updated("d", "r1", MONDAY)
    await queue.enqueue([WorkItem(A, expected=expected)])
    claim = await claim_one(queue)
    match outcome:
        case "retry":
            await queue.complete([Retry(claim, "stale_read", "", 0)])
        case "released":
            await queue.complete([Released(claim)])
        case _:
            await queue.complete([DeadLettered(claim, "stale_read", "")])
            await queue.revive()
    assert (await claim_one(queue)).expected_revisions == (expected,)


async def test_a_delete_is_remembered_when_an_older_event_comes_late(queue: WorkQueue) -> None:
    gone = deleted("e", "r1", "2026-05-01T12:00:00Z")
    await queue.enqueue([WorkItem("user:user_a", expected=gone)])
    claim = await claim_one(queue)
    assert claim.expected_revisions == (gone,)
    await queue.complete([Completed(claim)])
    await queue.enqueue([WorkItem("user:user_a", expected=updated("other", "r9"))])
    claim = await claim_one(queue)
    assert claim.expected_revisions == (replace(gone, served=True), updated("other", "r9"))
    await queue.complete([Completed(claim)])
    await queue.enqueue([WorkItem("user:user_a", expected=updated("e", "r1", "2026-05-01T12:00:00Z"))])
    late, _ = (await claim_one(queue)).expected_revisions
    assert late == replace(gone, served=True)

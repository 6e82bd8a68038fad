"""The work set as a specification, on both databases, with a clock that the test moves."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from sync_worker.domain.revisions import Ambiguous, Deletion, ExpectedRevision, microseconds
from sync_worker.runtime.wiring import open_database
from sync_worker.storage import expected_revisions, queue_statements
from sync_worker.storage import queue_admin as admin
from sync_worker.storage.queue import WorkQueue
from sync_worker.storage.queue_admin import Depth, LaneDepth
from sync_worker.storage.work_items import SCHEDULED_LANE, Claim, Completed, DeadLettered, Released, Retry, WorkItem
from tests.causes import cause_of
from tests.clock import CLOCK, TIMINGS, ManualClock
from tests.expected import deleted, updated
from tests.leases import holds

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sync_worker.storage.database import Database, Parameters, Transaction
    from sync_worker.storage.work_items import Completion

pytestmark = pytest.mark.anyio

A, B, C = "user:user_a", "user:user_b", "user:user_c"
DOCUMENT = "document:plan-gold"
LEASE = 30.0


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def db(database_url: str, clock: ManualClock) -> AsyncIterator[Database]:
    database = open_database(database_url, clock, TIMINGS, server_clock=clock)
    await database.start()
    yield database
    await database.close()


@pytest.fixture
async def ws(db: Database) -> WorkQueue:
    return WorkQueue(db, TIMINGS)


async def claim_one(ws: WorkQueue, lane: int = 0) -> Claim:
    (claim,) = await ws.claim(lane, 10, LEASE)
    return claim


async def keys(ws: WorkQueue, lane: int = 0, limit: int = 10) -> list[str]:
    return [claim.key for claim in await ws.claim(lane, limit, LEASE)]


# --- marks -----------------------------------------------------------------------------------------------------------


async def test_a_marked_subject_can_be_claimed_at_once(ws: WorkQueue, clock: ManualClock) -> None:
    await ws.enqueue([WorkItem(A, cause=cause_of("webhook:doc"))])
    claim = await claim_one(ws)
    assert (claim.key, claim.lane, claim.attempts, str(claim.cause)) == (A, 0, 0, "webhook:doc")
    assert (claim.enqueued_at, claim.lease_until) == (clock.now(), clock.now() + LEASE)


async def test_many_marks_of_a_waiting_subject_are_one_run(ws: WorkQueue) -> None:
    for _ in range(3):
        await ws.enqueue([WorkItem(A), WorkItem(A)])
    assert await ws.complete([Completed(await claim_one(ws))]) == set()
    assert await keys(ws) == []
    assert await ws.next_due() is None


async def test_marks_of_one_call_are_recorded_all_or_none(ws: WorkQueue) -> None:
    with pytest.raises(UnicodeEncodeError):  # no database stores half a surrogate pair
        await ws.enqueue([WorkItem(A), WorkItem("user:user_\ud800")])
    assert await ws.get(A) is None


async def test_no_marks_are_no_work(ws: WorkQueue) -> None:
    await ws.enqueue([])
    assert await ws.next_due() is None


async def test_a_mark_wakes_who_waits(db: Database, ws: WorkQueue) -> None:
    await ws.enqueue([WorkItem(A)])
    assert await db.changed(5)


async def test_a_subject_marked_for_later_is_not_due_before(ws: WorkQueue, clock: ManualClock) -> None:
    await ws.enqueue([WorkItem(A, visible_at=clock.now() + 60)])
    assert (await keys(ws), await ws.next_due()) == ([], 60)
    clock.advance(60)
    assert await keys(ws) == [A]


async def test_of_two_due_times_the_earlier_stays(ws: WorkQueue, clock: ManualClock) -> None:
    await ws.enqueue(
        [
            WorkItem(A, visible_at=clock.now() + 60),
            WorkItem(A, visible_at=clock.now() + 20),
            WorkItem(A, visible_at=clock.now() + 40),
        ]
    )
    assert await ws.next_due() == 20


async def test_a_waiting_subject_keeps_its_more_urgent_lane(ws: WorkQueue) -> None:
    await ws.enqueue([WorkItem(A, lane=1)])
    await ws.enqueue([WorkItem(A, lane=2)])
    assert await keys(ws, lane=1) == [A]


async def test_a_waiting_subject_moves_to_a_more_urgent_lane(ws: WorkQueue) -> None:
    await ws.enqueue([WorkItem(A, lane=2)])
    await ws.enqueue([WorkItem(A, lane=0)])
    assert (await keys(ws, lane=2), await keys(ws, lane=0)) == ([], [A])


async def test_a_finished_subject_takes_the_lane_of_its_next_mark(ws: WorkQueue) -> None:
    await ws.enqueue([WorkItem(A, lane=0)])
    await ws.complete([Completed(await claim_one(ws))])
    await ws.enqueue([WorkItem(A, lane=2)])
    assert await keys(ws, lane=2) == [A]


async def test_the_last_cause_that_was_told_is_handed_to_the_run(ws: WorkQueue) -> None:
    await ws.enqueue([WorkItem(A, cause=cause_of("sync"))])
    await ws.enqueue([WorkItem(A, cause=cause_of("reconcile"))])
    await ws.enqueue([WorkItem(A)])
    assert (await claim_one(ws)).cause == cause_of("reconcile")


async def test_a_run_knows_the_newest_webhook_and_the_next_run_does_not(ws: WorkQueue, clock: ManualClock) -> None:
    await ws.enqueue([WorkItem(A, cause=cause_of("webhook:a"), delivery="d1")])
    await ws.enqueue([WorkItem(A, cause=cause_of("webhook:b"), delivery="d2")])
    await ws.enqueue([WorkItem(A)])
    claim = await claim_one(ws)
    assert (str(claim.cause), claim.delivery) == ("webhook:b", "d2")
    await ws.enqueue([WorkItem(A, cause=cause_of("webhook:c"), delivery="d3")])
    await ws.complete([Completed(claim)])
    claim = await claim_one(ws)
    assert (str(claim.cause), claim.delivery) == ("webhook:c", "d3")
    await ws.complete([Completed(claim, next_due=clock.now() + 60)])
    clock.advance(60)
    claim = await claim_one(ws, lane=SCHEDULED_LANE)
    assert (str(claim.cause), claim.delivery) == ("", "")


async def test_a_row_that_an_editor_waits_for_keeps_its_webhook_whatever_else_marks_it(ws: WorkQueue) -> None:
    await ws.enqueue([WorkItem(A, cause=cause_of("webhook:a"), delivery="d1")])
    await ws.enqueue([WorkItem(A, cause=cause_of("clerk:user.updated"), delivery="d2")])
    claim = await claim_one(ws)
    assert (str(claim.cause), claim.delivery) == ("webhook:a", "d1")
    await ws.complete([DeadLettered(claim, "rate_limited", "")])
    await ws.enqueue([WorkItem(A, cause=cause_of("poll:a"))])
    claim = await claim_one(ws)
    assert (str(claim.cause), claim.delivery) == ("webhook:a", "d1")


async def test_a_cause_without_a_webhook_takes_that_of_a_served_one_away(ws: WorkQueue) -> None:
    await ws.enqueue([WorkItem(A, cause=cause_of("webhook:a"), delivery="d1")])
    await ws.complete([Completed(await claim_one(ws))])
    await ws.enqueue([WorkItem(A, cause=cause_of("poll:a"))])
    claim = await claim_one(ws)
    assert (str(claim.cause), claim.delivery) == ("poll:a", "")


async def test_a_run_knows_since_when_it_was_wanted(ws: WorkQueue, clock: ManualClock) -> None:
    first = clock.now()
    await ws.enqueue([WorkItem(A)])
    clock.advance(5)
    await ws.enqueue([WorkItem(A)])
    assert (await claim_one(ws)).enqueued_at == first


async def test_a_scheduled_run_was_wanted_since_its_due_time(ws: WorkQueue, clock: ManualClock) -> None:
    due = clock.now() + 60
    await ws.enqueue([WorkItem(A, visible_at=due)])
    clock.advance(70)
    assert (await claim_one(ws)).enqueued_at == due


async def test_a_thousand_marks_are_one_call(ws: WorkQueue) -> None:
    await ws.enqueue([WorkItem(f"user:user_{n}", lane=1) for n in range(2500)])
    assert (await ws.depth()).lanes[1].due == 2500


# --- witnesses -------------------------------------------------------------------------------------------------------

MONDAY, TUESDAY = "2025-03-03T10:00:00Z", "2025-03-04T10:00:00Z"


async def witnesses_after(ws: WorkQueue, *reported: ExpectedRevision) -> set[ExpectedRevision]:
    for expected in reported:
        await ws.enqueue([WorkItem(A, expected=expected)])
    return set((await claim_one(ws)).expected_revisions)


async def test_a_claim_brings_the_witness_of_each_document(ws: WorkQueue) -> None:
    one, two = updated("doc-1", "r1", MONDAY), deleted("doc-2", "r2", MONDAY)
    assert await witnesses_after(ws, one, two) == {one, two}


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
async def test_of_two_witnesses_of_a_document_the_later_stays(
    ws: WorkQueue, earlier: ExpectedRevision, later: ExpectedRevision, order: str
) -> None:
    reported = [earlier, later] if order == "in order" else [later, earlier]
    assert await witnesses_after(ws, *reported) == {later}


async def test_of_two_revisions_in_one_moment_neither_is_proof(ws: WorkQueue) -> None:
    first, second = updated("d", "r1", MONDAY), updated("d", "r2", MONDAY)
    assert await witnesses_after(ws, first, second) == {Ambiguous("d", microseconds(MONDAY))}


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
async def test_a_delete_is_told_of_although_its_moment_has_several_revisions(
    ws: WorkQueue, order: tuple[int, int, int]
) -> None:
    reported = (
        updated("d", "r1", MONDAY),
        updated("d", "r2", MONDAY),
        deleted("d", "r2", MONDAY),
    )
    assert await witnesses_after(ws, *(reported[n] for n in order)) == {
        Ambiguous("d", microseconds(MONDAY), Deletion.REPORTED)
    }


async def test_a_failed_subject_is_run_again_when_its_access_changes_by_itself(
    ws: WorkQueue, clock: ManualClock
) -> None:
    await ws.enqueue([WorkItem(A)])
    await ws.complete([DeadLettered(await claim_one(ws), "access_too_large", "", clock.now() + 60)])
    assert await ws.claim(0, 1, LEASE) == []
    clock.advance(60)
    (claim,) = await ws.claim(0, 1, LEASE)
    await ws.complete([Completed(claim)])
    assert await ws.failed(10) == []


async def test_what_a_finished_run_has_served_is_remembered_for_a_while(ws: WorkQueue, clock: ManualClock) -> None:
    expected = updated("d", "r1", MONDAY)
    await ws.enqueue([WorkItem(A, expected=expected)])
    await ws.complete([Completed(await claim_one(ws))])
    remembered = []
    for _ in range(3):
        clock.advance(TIMINGS.revision_memory * 0.6)
        await ws.enqueue([WorkItem(A)])
        claim = await claim_one(ws)
        remembered.append(claim.expected_revisions)
        await ws.complete([Completed(claim)])
    known = (replace(expected, served=True),)
    assert remembered == [known, known, ()]


async def test_of_many_served_revisions_the_newest_are_remembered(ws: WorkQueue, clock: ManualClock) -> None:
    for number in range(TIMINGS.revisions_kept + 5):
        await ws.enqueue([WorkItem(A, expected=updated(f"d{number:02}", "r", MONDAY))])
        await ws.complete([Completed(await claim_one(ws))])
        clock.advance(1)
    await ws.enqueue([WorkItem(A)])
    served = [one.document for one in (await claim_one(ws)).expected_revisions]
    assert served == [f"d{number:02}" for number in range(5, TIMINGS.revisions_kept + 5)]


@pytest.mark.parametrize("key", ["email:ada@example.com", "members:user_a"])
async def test_nothing_is_remembered_of_an_address_that_was_looked_up(ws: WorkQueue, db: Database, key: str) -> None:
    await ws.enqueue([WorkItem(key, expected=deleted("d", "r1", MONDAY))])
    (claim,) = await ws.claim_lookups(0, 1, LEASE)
    await ws.complete([Completed(claim)])
    assert await db.read(lambda tx: tx.execute("SELECT key FROM expected_revision")) == []


async def test_a_witness_that_came_during_the_run_is_for_the_next_one(ws: WorkQueue) -> None:
    later = updated("d", "r2", TUESDAY)
    await ws.enqueue([WorkItem(A, expected=updated("d", "r1", MONDAY))])
    claim = await claim_one(ws)
    await ws.enqueue([WorkItem(A, expected=later)])
    await ws.complete([Completed(claim)])
    assert (await claim_one(ws)).expected_revisions == (later,)


@pytest.mark.parametrize("outcome", ["retry", "released", "failed and revived"])
async def test_a_run_that_did_not_finish_keeps_its_witnesses(ws: WorkQueue, outcome: str) -> None:
    expected = updated("d", "r1", MONDAY)
    await ws.enqueue([WorkItem(A, expected=expected)])
    claim = await claim_one(ws)
    match outcome:
        case "retry":
            await ws.complete([Retry(claim, "stale_read", "", 0)])
        case "released":
            await ws.complete([Released(claim)])
        case _:
            await ws.complete([DeadLettered(claim, "stale_read", "")])
            await ws.revive()
    assert (await claim_one(ws)).expected_revisions == (expected,)


# --- claims ----------------------------------------------------------------------------------------------------------


async def test_the_longest_due_is_claimed_first(ws: WorkQueue, clock: ManualClock) -> None:
    await ws.enqueue(
        [
            WorkItem(A, visible_at=clock.now() - 1),
            WorkItem(B, visible_at=clock.now() - 3),
            WorkItem(C, visible_at=clock.now() - 2),
        ]
    )
    assert await keys(ws, limit=2) == [B, C]
    assert await keys(ws, limit=2) == [A]


async def test_a_subject_that_is_claimed_is_nobody_elses(ws: WorkQueue) -> None:
    await ws.enqueue([WorkItem(A)])
    assert (await keys(ws), await keys(ws)) == ([A], [])


async def test_claims_take_one_lane(ws: WorkQueue) -> None:
    await ws.enqueue([WorkItem(A, lane=0), WorkItem(B, lane=1), WorkItem(C, lane=2)])
    assert [await keys(ws, lane) for lane in (2, 1, 0)] == [[C], [B], [A]]


async def test_documents_are_claimed_apart_from_subjects(ws: WorkQueue) -> None:
    await ws.enqueue([WorkItem(A, lane=1), WorkItem(DOCUMENT, lane=1)])
    assert [claim.key for claim in await ws.claim_lookups(1, 10, LEASE)] == [DOCUMENT]
    assert await keys(ws, lane=1) == [A]


async def test_a_lease_that_ended_makes_the_subject_due_again(ws: WorkQueue, clock: ManualClock) -> None:
    await ws.enqueue([WorkItem(A)])
    first = await claim_one(ws)
    clock.advance(LEASE)
    second = await claim_one(ws)
    assert (first.key, first.attempts) == (second.key, second.attempts)
    assert first.lease_token != second.lease_token
    assert first.enqueued_at == second.enqueued_at


async def test_next_due_is_the_end_of_a_lease_too(ws: WorkQueue) -> None:
    await ws.enqueue([WorkItem(A)])
    await claim_one(ws)
    assert await ws.next_due() == LEASE


async def test_a_claim_is_held_until_its_lease_ends(ws: WorkQueue, clock: ManualClock) -> None:
    await ws.enqueue([WorkItem(A), WorkItem(B)])
    claims = await ws.claim(0, 10, LEASE)
    clock.advance(LEASE - 1)
    assert await holds(ws, claims) == {A, B}
    clock.advance(1)
    assert await holds(ws, claims) == set()


async def test_a_settled_claim_is_no_longer_held(ws: WorkQueue) -> None:
    await ws.enqueue([WorkItem(A), WorkItem(B)])
    claims = await ws.claim(0, 10, LEASE)
    await ws.complete([Completed(claims[0])])
    assert await holds(ws, claims) == {B}


async def test_a_renewed_lease_begins_anew(ws: WorkQueue, clock: ManualClock) -> None:
    await ws.enqueue([WorkItem(A)])
    claim = await claim_one(ws)
    clock.advance(LEASE - 1)
    assert await ws.renew([claim], LEASE) == {A}
    clock.advance(LEASE - 1)
    assert await holds(ws, [claim]) == {A}


async def test_a_lease_that_ended_cannot_be_renewed(ws: WorkQueue, clock: ManualClock) -> None:
    await ws.enqueue([WorkItem(A)])
    claim = await claim_one(ws)
    clock.advance(LEASE)
    assert await ws.renew([claim], LEASE) == set()
    assert await keys(ws) == [A]


async def test_a_mark_does_not_end_a_lease(ws: WorkQueue) -> None:
    await ws.enqueue([WorkItem(A)])
    claim = await claim_one(ws)
    await ws.enqueue([WorkItem(A)])
    assert await holds(ws, [claim]) == {A}
    assert await keys(ws) == []


# --- done ------------------------------------------------------------------------------------------------------------


async def test_a_marked_running_subject_runs_exactly_once_more(ws: WorkQueue) -> None:
    await ws.enqueue([WorkItem(A)])
    claim = await claim_one(ws)
    for _ in range(100):
        await ws.enqueue([WorkItem(A)])
    await ws.complete([Completed(claim)])
    await ws.complete([Completed(await claim_one(ws))])
    assert await keys(ws) == []


async def test_what_follows_from_an_earlier_mark_is_wanted_since_that_was_heard_of(
    ws: WorkQueue, clock: ManualClock
) -> None:
    heard = clock.now()
    clock.advance(5)
    await ws.enqueue([WorkItem(A, enqueued_at=heard), WorkItem(B, visible_at=clock.now() + 60, enqueued_at=heard)])
    clock.advance(60)
    assert {claim.enqueued_at for claim in await ws.claim(0, 10, LEASE)} == {heard}


async def test_the_run_once_more_knows_when_its_first_mark_came(ws: WorkQueue, clock: ManualClock) -> None:
    await ws.enqueue([WorkItem(A, cause=cause_of("sync"))])
    claim = await claim_one(ws)
    clock.advance(3)
    marked = clock.now()
    await ws.enqueue([WorkItem(A, cause=cause_of("reconcile"))])
    clock.advance(3)
    await ws.enqueue([WorkItem(A)])
    await ws.complete([Completed(claim)])
    again = await claim_one(ws)
    assert (again.enqueued_at, str(again.cause)) == (marked, "reconcile")


async def test_the_next_window_is_the_next_due_time(ws: WorkQueue, clock: ManualClock) -> None:
    await ws.enqueue([WorkItem(A, cause=cause_of("webhook"))])
    await ws.complete([Completed(await claim_one(ws), next_due=clock.now() + 3600)])
    assert await ws.next_due() == 3600
    clock.advance(3600 + 7)
    claim = await claim_one(ws, lane=SCHEDULED_LANE)
    assert (claim.key, str(claim.cause), claim.enqueued_at) == (A, "", clock.now() - 7)


async def test_a_mark_during_the_run_comes_before_the_next_window(ws: WorkQueue, clock: ManualClock) -> None:
    await ws.enqueue([WorkItem(A)])
    claim = await claim_one(ws)
    await ws.enqueue([WorkItem(A)])
    await ws.complete([Completed(claim, next_due=clock.now() + 3600)])
    assert await keys(ws) == [A]


async def test_a_note_stays_visible_until_the_next_run(ws: WorkQueue) -> None:
    await ws.enqueue([WorkItem(A), WorkItem(B)])
    first, second = await ws.claim(0, 10, LEASE)
    await ws.complete([Completed(first, error_code="row_refused", error_detail="doc-1: plan"), Completed(second)])
    (row,) = await ws.noted(10)
    assert (row.key, row.error_code, row.error_detail, row.visible_at, row.dead) == (
        A,
        "row_refused",
        "doc-1: plan",
        None,
        False,
    )
    await ws.enqueue([WorkItem(A)])
    await ws.complete([Completed(await claim_one(ws))])
    assert await ws.noted(10) == []


# --- retry, failed, released -----------------------------------------------------------------------------------------


async def test_a_retry_waits_and_counts(ws: WorkQueue, clock: ManualClock) -> None:
    await ws.enqueue([WorkItem(A, cause=cause_of("webhook"))])
    first = await claim_one(ws)
    await ws.complete([Retry(first, "rate_limited", "429", 12)])
    assert (await keys(ws), await ws.next_due()) == ([], 12)
    clock.advance(12)
    again = await claim_one(ws)
    assert (again.attempts, str(again.cause), again.enqueued_at) == (1, "webhook", first.enqueued_at)


async def test_a_retry_is_noted_until_it_succeeds(ws: WorkQueue) -> None:
    await ws.enqueue([WorkItem(A)])
    await ws.complete([Retry(await claim_one(ws), "rate_limited", "429", 0)])
    assert [(row.error_code, row.attempts) for row in await ws.noted(10)] == [("rate_limited", 1)]
    await ws.complete([Completed(await claim_one(ws))])
    row = await ws.get(A)
    assert row is not None
    assert (row.error_code, row.attempts) == ("", 0)


async def test_a_mark_does_not_shorten_what_the_service_asked_to_wait(ws: WorkQueue, clock: ManualClock) -> None:
    await ws.enqueue([WorkItem("user:user_a")])
    await ws.complete([Retry(await claim_one(ws), "rate_limited", "429", 8.5, not_before=8)])
    clock.advance(7.5)
    await ws.enqueue([WorkItem("user:user_a")])
    assert await keys(ws) == []
    clock.advance(0.5)
    assert await keys(ws) == ["user:user_a"]


async def test_a_mark_ends_the_wait_of_a_retry(ws: WorkQueue) -> None:
    await ws.enqueue([WorkItem(A)])
    await ws.complete([Retry(await claim_one(ws), "rate_limited", "", 300)])
    await ws.enqueue([WorkItem(A)])
    assert (await claim_one(ws)).attempts == 1


async def test_a_failed_subject_is_listed_and_never_due(ws: WorkQueue, clock: ManualClock) -> None:
    await ws.enqueue([WorkItem(A)])
    await ws.complete([DeadLettered(await claim_one(ws), "no_such_subject", "user_a")])
    clock.advance(1e6)
    assert (await keys(ws), await ws.next_due()) == ([], None)
    (row,) = await ws.failed(10)
    assert (row.key, row.error_code, row.error_detail, row.attempts, row.dead) == (
        A,
        "no_such_subject",
        "user_a",
        1,
        True,
    )
    assert await ws.noted(10) == []


async def test_a_mark_gives_a_failed_subject_a_fresh_start(ws: WorkQueue) -> None:
    await ws.enqueue([WorkItem(A)])
    await ws.complete([Retry(await claim_one(ws), "x", "", 0)])
    await ws.complete([DeadLettered(await claim_one(ws), "no_such_subject", "")])
    await ws.enqueue([WorkItem(A)])
    assert (await ws.failed(10), await ws.noted(10)) == ([], [])
    assert (await claim_one(ws)).attempts == 0


async def test_a_failed_subject_that_was_marked_during_its_run_runs_once_more(ws: WorkQueue) -> None:
    await ws.enqueue([WorkItem(A)])
    claim = await claim_one(ws)
    await ws.enqueue([WorkItem(A)])
    await ws.complete([DeadLettered(claim, "no_such_subject", "")])
    assert await ws.failed(10) == []
    await ws.complete([DeadLettered(await claim_one(ws), "no_such_subject", "")])
    assert len(await ws.failed(10)) == 1


async def test_failed_subjects_are_listed_page_by_page(ws: WorkQueue) -> None:
    await ws.enqueue([WorkItem(C), WorkItem(A), WorkItem(B)])
    await ws.complete([DeadLettered(claim, "x", "") for claim in await ws.claim(0, 10, LEASE)])
    assert [row.key for row in await ws.failed(2)] == [A, B]
    assert [row.key for row in await ws.failed(2, after=B)] == [C]


async def test_revived_subjects_are_due_now(db: Database, ws: WorkQueue) -> None:
    await ws.enqueue([WorkItem(A), WorkItem(B), WorkItem(C)])
    await ws.complete([DeadLettered(claim, "x", "") for claim in await ws.claim(0, 10, LEASE)])
    assert await db.changed(5)
    assert await ws.revive([A, "user:user_unknown"]) == 1
    assert await db.changed(5)
    assert [(claim.key, claim.attempts) for claim in await ws.claim(0, 10, LEASE)] == [(A, 0)]
    assert await ws.revive() == 2
    assert await ws.revive() == 0


async def test_a_released_subject_is_due_now_as_it_was(ws: WorkQueue, clock: ManualClock) -> None:
    await ws.enqueue([WorkItem(A, cause=cause_of("webhook"))])
    first = await claim_one(ws)
    clock.advance(3)
    await ws.complete([Released(first)])
    again = await claim_one(ws)
    assert (again.attempts, again.cause, again.enqueued_at) == (first.attempts, first.cause, first.enqueued_at)


# --- the fence -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["done", "retry", "failed", "released"])
async def test_a_claim_that_somebody_took_over_changes_nothing(ws: WorkQueue, clock: ManualClock, kind: str) -> None:
    await ws.enqueue([WorkItem(A), WorkItem(B)])
    lost, kept = sorted(await ws.claim(0, 10, LEASE), key=lambda claim: claim.key)
    await ws.renew([kept], LEASE * 2)
    clock.advance(LEASE)
    owner = await claim_one(ws)
    before = await ws.get(A)
    late: dict[str, Completion] = {
        "done": Completed(lost, next_due=1.0, wrote=True, error_code="late", error_detail="late"),
        "retry": Retry(lost, "late", "late", 0, wrote=True),
        "failed": DeadLettered(lost, "late", "late"),
        "released": Released(lost),
    }
    assert await ws.complete([late[kind], Completed(kept)]) == {A}
    assert await ws.get(A) == before
    assert await holds(ws, [owner]) == {A}
    row = await ws.get(B)
    assert row is not None
    assert row.visible_at is None


async def test_a_claim_whose_lease_ended_can_be_settled_while_nobody_took_it(ws: WorkQueue, clock: ManualClock) -> None:
    await ws.enqueue([WorkItem(A)])
    claim = await claim_one(ws)
    clock.advance(LEASE * 2)
    assert await ws.complete([Completed(claim)]) == set()
    assert await keys(ws) == []


async def test_a_claim_cannot_be_settled_twice(ws: WorkQueue) -> None:
    await ws.enqueue([WorkItem(A)])
    claim = await claim_one(ws)
    assert await ws.complete([Completed(claim)]) == set()
    assert await ws.complete([DeadLettered(claim, "late", "")]) == {A}
    assert await ws.failed(10) == []


# --- pacing ----------------------------------------------------------------------------------------------------------


async def write_whenever_due(ws: WorkQueue, clock: ManualClock, seconds: float) -> list[float]:
    """Mark and write one subject as often as the work set lets it; return the moments."""
    writes = []
    end = clock.now() + seconds
    await ws.enqueue([WorkItem(A)])
    while clock.now() < end:
        for claim in await ws.claim(0, 1, LEASE):
            await ws.enqueue([WorkItem(A)])
            await ws.complete([Completed(claim, wrote=True)])
            writes.append(clock.now())
        wait = await ws.next_due()
        assert wait is not None
        clock.advance(wait)
    return writes


async def test_no_subject_is_written_more_than_nine_times_in_ten_seconds(ws: WorkQueue, clock: ManualClock) -> None:
    writes = await write_whenever_due(ws, clock, 60)
    assert max(sum(start <= moment <= start + 10 for moment in writes) for start in writes) == 9
    assert len(writes) == pytest.approx(TIMINGS.subject_burst + 60 / TIMINGS.subject_pace, abs=1)


async def test_the_first_writes_of_a_subject_do_not_wait(ws: WorkQueue, clock: ManualClock) -> None:
    start = clock.now()
    writes = await write_whenever_due(ws, clock, 3)
    assert len([moment for moment in writes if moment < start + 0.01]) == TIMINGS.subject_burst


@pytest.fixture
async def spaced(ws: WorkQueue, clock: ManualClock) -> Claim:
    """A claim of a subject that has been written in a burst, and may be again just now."""
    await ws.enqueue([WorkItem(A)])
    for _ in range(TIMINGS.subject_burst):
        (claim,) = await ws.claim(0, 1, LEASE)
        await ws.enqueue([WorkItem(A)])
        await ws.complete([Completed(claim, wrote=True)])
        clock.advance(1e-6)  # the pace is a sum of rounded numbers
    clock.advance(TIMINGS.subject_pace)
    return await claim_one(ws)


async def wait_of(ws: WorkQueue) -> float:
    wait = await ws.next_due()
    assert wait is not None
    return wait


async def test_a_mark_keeps_the_pace(ws: WorkQueue, spaced: Claim) -> None:
    await ws.complete([Completed(spaced, wrote=True)])
    await ws.enqueue([WorkItem(A)])
    assert await wait_of(ws) == pytest.approx(TIMINGS.subject_pace, abs=0.01)


async def test_after_a_clock_was_set_back_nobody_waits_until_it_is_where_it_was(
    ws: WorkQueue, clock: ManualClock, spaced: Claim
) -> None:
    await ws.complete([Completed(spaced, wrote=True)])
    clock.advance(-3600)
    await ws.enqueue([WorkItem(A)])
    assert await wait_of(ws) == pytest.approx(TIMINGS.subject_pace, abs=0.01)
    clock.advance(TIMINGS.subject_pace)
    claim = await claim_one(ws)
    await ws.enqueue([WorkItem(A)])
    await ws.complete([Completed(claim, wrote=True)])
    assert await wait_of(ws) == pytest.approx(2 * TIMINGS.subject_pace, abs=0.01)


async def test_the_run_once_more_keeps_the_pace(ws: WorkQueue, spaced: Claim) -> None:
    await ws.enqueue([WorkItem(A)])
    await ws.complete([Completed(spaced, wrote=True)])
    assert await wait_of(ws) == pytest.approx(TIMINGS.subject_pace, abs=0.01)


async def test_a_window_keeps_the_pace(ws: WorkQueue, clock: ManualClock, spaced: Claim) -> None:
    await ws.complete([Completed(spaced, next_due=clock.now() + 0.5, wrote=True)])
    assert await wait_of(ws) == pytest.approx(TIMINGS.subject_pace, abs=0.01)


async def test_a_retry_of_a_write_without_an_answer_keeps_the_pace(ws: WorkQueue, spaced: Claim) -> None:
    await ws.complete([Retry(spaced, "service_unavailable", "timeout", 0.5, wrote=True)])
    assert await wait_of(ws) == pytest.approx(TIMINGS.subject_pace, abs=0.01)


async def test_runs_that_wrote_nothing_are_not_paced(ws: WorkQueue) -> None:
    for _ in range(20):
        await ws.enqueue([WorkItem(A)])
        await ws.complete([Completed(await claim_one(ws))])
    await ws.enqueue([WorkItem(A)])
    assert await ws.next_due() == 0


# --- looking around --------------------------------------------------------------------------------------------------


async def test_depth_counts_each_lane(ws: WorkQueue, clock: ManualClock) -> None:
    await ws.enqueue(
        [WorkItem(A), WorkItem(B), WorkItem(C, lane=2, visible_at=clock.now() + 60), WorkItem(DOCUMENT, lane=1)]
    )
    await ws.enqueue([WorkItem(f"user:user_{n}", lane=2) for n in range(3)])
    (claim,) = await ws.claim(0, 1, LEASE)
    (dead, noted) = await ws.claim(2, 2, LEASE)
    await ws.complete([DeadLettered(dead, "x", ""), Completed(noted, error_code="row_refused")])
    clock.advance(5)
    assert await ws.depth() == Depth(
        (LaneDepth(0, 1, 0, 1), LaneDepth(1, 1, 0, 0), LaneDepth(2, 1, 1, 0)), failed=1, noted=1, oldest=5
    )
    clock.advance(LEASE)
    assert (await ws.depth()).lanes[0] == LaneDepth(0, 2, 0, 0)
    assert await holds(ws, [claim]) == set()


async def test_an_empty_work_set_has_no_depth(ws: WorkQueue) -> None:
    nothing = tuple(LaneDepth(lane, 0, 0, 0) for lane in admin.LANES)
    assert await ws.depth() == Depth(nothing, failed=0, noted=0, oldest=0)


async def test_a_row_tells_how_a_subject_is_doing(ws: WorkQueue, clock: ManualClock) -> None:
    assert await ws.get(A) is None
    await ws.enqueue([WorkItem(A, lane=1, cause=cause_of("webhook"))])
    waiting = await ws.get(A)
    assert waiting is not None
    assert (waiting.pending, waiting.lease_token, waiting.visible_at, waiting.last_finished_at) == (
        True,
        None,
        clock.now(),
        None,
    )
    claim = await claim_one(ws, lane=1)
    running = await ws.get(A)
    assert running is not None
    assert (running.lease_token, running.visible_at) == (claim.lease_token, claim.lease_until)
    clock.advance(1)
    await ws.complete([Completed(claim)])
    finished = await ws.get(A)
    assert finished is not None
    assert (finished.pending, finished.lease_token) == (False, None)
    assert (finished.visible_at, finished.last_finished_at) == (None, clock.now())


async def test_only_rows_that_nobody_needs_are_purged(ws: WorkQueue, clock: ManualClock) -> None:
    names = ["idle", "dead", "noted", "scheduled", "retried", "running"]
    await ws.enqueue([WorkItem(f"user:user_{name}", expected=updated("d", "r")) for name in names])
    claims = {claim.key.removeprefix("user:user_"): claim for claim in await ws.claim(0, 10, 1e6)}
    await ws.complete(
        [
            Completed(claims["idle"], wrote=True),
            DeadLettered(claims["dead"], "x", ""),
            Completed(claims["noted"], error_code="row_refused"),
            Completed(claims["scheduled"], next_due=clock.now() + 1e6),
            Retry(claims["retried"], "x", "", 1e6),
        ]
    )
    await ws.enqueue([WorkItem("user:user_waiting")])
    clock.advance(1)
    assert await ws.purge(0) == 0  # it has just been written, and its pace must be kept
    clock.advance(3599)
    assert await ws.purge(3600) == 0
    clock.advance(1)
    assert await ws.purge(3600) == 1
    kept = {name for name in [*names, "waiting"] if await ws.get(f"user:user_{name}")}
    assert kept == {*names, "waiting"} - {"idle"}


async def test_a_purge_of_many_rows_goes_in_small_steps(ws: WorkQueue, clock: ManualClock) -> None:
    many = admin.PURGE_BATCH * 2
    await ws.enqueue([WorkItem(f"user:user_{n}") for n in range(many)])
    await ws.complete([Completed(claim) for claim in await ws.claim(0, many, LEASE)])
    clock.advance(60)
    assert await ws.purge(30) == many
    assert await ws.purge(30) == 0


async def test_a_named_value_is_kept_with_its_time(ws: WorkQueue, clock: ManualClock) -> None:
    assert await ws.recall("cursor") is None
    await ws.remember("cursor", "1")
    clock.advance(5)
    await ws.remember("cursor", "2")
    assert await ws.recall("cursor") == ("2", clock.now())
    clock.advance(3)
    assert (await ws.age("cursor"), await ws.age("nothing")) == (3.0, None)


# --- speed -----------------------------------------------------------------------------------------------------------

COUNTING = "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"

SCHEDULED = f"""{COUNTING}
INSERT INTO work
  (key, kind, lane, visible_at, generation, completed_generation, error_code, dead, last_finished_at)
SELECT 'user:user_' || i, CASE WHEN i % 10 = 0 THEN 'document' ELSE 'subject' END, i % 3, NOW() + 3600 + i,
  1, 1, '', 0, NOW()
FROM n
""".replace("%", "%%")

IDLE = f"""{COUNTING}
INSERT INTO work (key, kind, lane, generation, completed_generation, error_code, dead, last_finished_at)
SELECT 'user:idle_' || i, 'subject', 0, 1, 1, '', 0, NOW() - i FROM n
"""


def claim_of(lane: int, limit: int) -> dict[str, object]:
    return {"lane": lane, "limit": limit, "token": "token", "lease": LEASE}


QUESTIONS: dict[str, tuple[str, Parameters, str]] = {
    "claim": (queue_statements.CLAIM, claim_of(0, 100), "work_due"),
    "claim of documents": (queue_statements.CLAIM_LOOKUPS, claim_of(1, 1), "work_due_lookups"),
    "expected revisions": (expected_revisions.OF_CLAIM, {"token": "token"}, "work_owner"),
    "next due": (admin.NEXT_DUE, (), "work_due"),
    "running": (admin.RUNNING, (), "work_owner"),
    "failed": (admin.FAILED, ("", 10), "work_dead"),
    "noted": (admin.NOTED, ("", 10), "work_noted"),
    "purge": (admin.IDLE, (60, 10), "work_idle"),
}


async def test_with_200_000_rows_every_question_is_answered_by_an_index(database_url: str) -> None:
    sqlite = database_url.startswith("sqlite")

    def plans(tx: Transaction) -> dict[str, str]:
        tx.execute(SCHEDULED.replace("%%", "%") if sqlite else SCHEDULED, (150_000,))
        tx.execute(IDLE, (50_000,))
        tx.execute("ANALYZE")
        explain = "EXPLAIN QUERY PLAN" if sqlite else "EXPLAIN"
        return {
            question: "\n".join(str(row[-1]) for row in tx.execute(f"{explain} {sql}", parameters)) + "\n"
            for question, (sql, parameters, _) in QUESTIONS.items()
        }

    db = open_database(database_url, CLOCK, TIMINGS)  # by the database's own clock, whose expression decides
    await db.start()
    reported = await db.run(plans)
    await db.close()
    for question, (_, _, index) in QUESTIONS.items():
        assert index in reported[question], reported[question]
        assert "SCAN work\n" not in reported[question], reported[question]
        assert "Seq Scan on work" not in reported[question], reported[question]


# --- many at once ----------------------------------------------------------------------------------------------------


async def test_subjects_marked_and_run_by_many_tasks_never_overlap_and_all_finish(database_url: str) -> None:
    db = open_database(database_url, CLOCK, TIMINGS)
    await db.start()
    ws = WorkQueue(db, TIMINGS)
    names = [f"user:user_{n}" for n in range(5)]
    running: set[str] = set()
    marked_at_start: dict[str, int] = {}
    marked = dict.fromkeys(names, 0)
    marking = True

    async def mark() -> None:
        for n in range(40):
            key = names[n % len(names)]
            await ws.enqueue([WorkItem(key)])
            marked[key] += 1

    async def work() -> None:
        while marking or await ws.next_due() is not None:
            for claim in await ws.claim(0, 2, LEASE):
                assert claim.key not in running
                running.add(claim.key)
                started = marked[claim.key]
                await asyncio.sleep(0.001)
                running.discard(claim.key)
                assert await ws.complete([Completed(claim)]) == set()
                marked_at_start[claim.key] = started

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        workers = [group.create_task(work()) for _ in range(4)]
        await asyncio.gather(*(mark() for _ in range(5)))
        marking = False
        await asyncio.gather(*workers)
    await db.close()
    assert marked == dict.fromkeys(names, 40)
    assert marked_at_start == marked


async def test_a_delete_is_remembered_when_an_older_event_comes_late(ws: WorkQueue) -> None:
    gone = deleted("e", "r1", "2026-05-01T12:00:00Z")
    await ws.enqueue([WorkItem("user:user_a", expected=gone)])
    claim = await claim_one(ws)
    assert claim.expected_revisions == (gone,)
    await ws.complete([Completed(claim)])
    await ws.enqueue([WorkItem("user:user_a", expected=updated("other", "r9"))])
    claim = await claim_one(ws)
    assert claim.expected_revisions == (replace(gone, served=True), updated("other", "r9"))
    await ws.complete([Completed(claim)])
    await ws.enqueue([WorkItem("user:user_a", expected=updated("e", "r1", "2026-05-01T12:00:00Z"))])
    late, _ = (await claim_one(ws)).expected_revisions
    assert late == replace(gone, served=True)

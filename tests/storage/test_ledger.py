"""The ledger: a trace before the request, what became of it, and the history."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from sync_worker.storage import ledger as ledger_module
from sync_worker.storage.ledger import Entry, Ledger, State
from sync_worker.storage.queue import WorkQueue
from sync_worker.storage.work_items import WorkItem
from tests.clock import TIMINGS, ManualClock

if TYPE_CHECKING:
    from sync_worker.storage.database import Database

pytestmark = pytest.mark.anyio

A, B = "user:user_a", "user:user_b"


@pytest.fixture
async def ledger(db: Database) -> Ledger:
    return Ledger(db)


def entry(subject: str = A, kind: str = "grant") -> Entry:
    return Entry("run-1", subject, kind, {}, {"plan": "pro"}, ["doc-1"], "webhook:doc-1")


async def intended(ledger: Ledger, *entries: Entry) -> list[int]:
    """Record entries that nobody leases; return their ids."""
    return [number for number in await ledger.intend(entries) if number is not None]


async def test_an_intended_change_is_there_before_anything_is_sent(ledger: Ledger, clock: ManualClock) -> None:
    change = Entry(
        "run-1", A, "update", {"plan": "free"}, {"plan": "pro", "courseSlugs": ["a", "b"]}, ["doc-2", "doc-1"], "sync"
    )
    (number,) = await ledger.intend([change])
    (kept,) = await ledger.history()
    assert (kept.id, kept.at, kept.state, kept.settled_at) == (number, clock.now(), State.INTENDED, None)
    assert (kept.run, kept.subject, kept.kind, kept.cause) == ("run-1", A, "update", "sync")
    assert (kept.before, kept.after) == (change.before, change.after)
    assert kept.documents == ("doc-2", "doc-1")


async def test_a_change_whose_lease_somebody_else_has_by_now_is_not_recorded(
    ledger: Ledger, db: Database, clock: ManualClock
) -> None:
    queue = WorkQueue(db, TIMINGS)
    await queue.enqueue([WorkItem(A), WorkItem(B)])
    (first,) = await queue.claim(0, 1, 30.0)
    clock.advance(30)
    second, other = await queue.claim(0, 2, 30.0)
    assert [first.key, second.key, other.key] == [A, A, B]
    late, own, elsewhere = await ledger.intend(
        [replace(entry(one.key), lease=one.lease_token) for one in (first, second, other)]
    )
    assert late is None
    assert [one.id for one in await ledger.history()] == [elsewhere, own]


async def test_ids_come_in_the_order_of_the_entries(ledger: Ledger) -> None:
    ids = await intended(ledger, entry(B), entry(A), entry(B))
    assert {one.id: one.subject for one in await ledger.history()} == dict(zip(ids, [B, A, B], strict=True))
    assert ids == sorted(ids)


async def test_a_batch_without_changes_leaves_no_trace(ledger: Ledger) -> None:
    assert await ledger.intend([]) == []
    await ledger.settle([], State.APPLIED)
    assert await ledger.history() == []


async def test_json_is_stored_with_sorted_keys(ledger: Ledger, db: Database) -> None:
    await ledger.intend([Entry("run", A, "grant", {"b": 1, "a": {"d": 1, "c": ("x",)}}, {"é": None}, [])])
    rows = await db.read(lambda tx: tx.execute("SELECT before, after, documents FROM ledger"))
    assert rows == [('{"a": {"c": ["x"], "d": 1}, "b": 1}', '{"é": null}', "[]")]


@pytest.mark.parametrize("state", [State.APPLIED, State.REFUSED, State.UNKNOWN, State.ABANDONED])
async def test_what_became_of_changes_is_recorded(ledger: Ledger, clock: ManualClock, state: State) -> None:
    first, second = await intended(ledger, entry(A), entry(B))
    clock.advance(2)
    await ledger.settle([second], state)
    kept = {one.id: (one.state, one.settled_at) for one in await ledger.history()}
    assert kept == {first: (State.INTENDED, None), second: (state, clock.now())}


async def test_the_last_applied_write_and_those_without_a_known_end_are_the_latest(ledger: Ledger) -> None:
    ids = await intended(ledger, *(entry(A, kind) for kind in ("intended", "unknown", "applied", "refused")))
    for number, state in zip(ids[1:], (State.UNKNOWN, State.APPLIED, State.REFUSED), strict=True):
        await ledger.settle([number], state)
    await ledger.intend([entry(B)])
    assert [one.kind for one in await ledger.latest([A])] == ["intended", "unknown", "applied"]
    assert [one.subject for one in await ledger.latest([A, B])] == [A, A, A, B]
    assert await ledger.latest([]) == []


async def test_history_is_the_newest_first_page_by_page(ledger: Ledger) -> None:
    ids = await ledger.intend([entry(A, str(n)) for n in range(5)])
    first = await ledger.history(limit=2)
    second = await ledger.history(limit=2, before_id=first[-1].id)
    third = await ledger.history(limit=2, before_id=second[-1].id)
    assert [one.id for one in first + second + third] == ids[::-1]


async def test_history_of_a_subject_is_its_own(ledger: Ledger) -> None:
    await ledger.intend([entry(A, "1"), entry(B, "2"), entry(A, "3"), entry(B, "4")])
    assert [one.kind for one in await ledger.history(A)] == ["3", "1"]
    assert [one.kind for one in await ledger.history(B, limit=1)] == ["4"]
    assert await ledger.history("user:user_nobody") == []


async def test_entries_of_a_document_are_those_it_had_a_part_in_or_set_off(ledger: Ledger) -> None:
    def by(documents: list[str], cause: str) -> Entry:
        return Entry("run-1", A, "grant", {}, {}, documents, cause)

    await ledger.intend(
        [
            by(["d_1", "other"], "sync"),
            by(["dx1", "d_10", "a.d_1"], "sync"),
            by([], "webhook:d_1"),
            by([], "webhook:d_10"),
        ]
    )
    found = await ledger.of_document("d_1", ["webhook:d_1"], 10)
    assert [(e.documents, e.cause) for e in found] == [((), "webhook:d_1"), (("d_1", "other"), "sync")]
    assert len(await ledger.of_document("d_1", ["webhook:d_1"], 1)) == 1


async def test_old_entries_are_forgotten_in_small_steps(ledger: Ledger, clock: ManualClock) -> None:
    many = ledger_module.PURGE_BATCH + 1
    await ledger.intend([entry() for _ in range(many)])
    clock.advance(100)
    await ledger.intend([entry(B)])
    assert await ledger.purge(100) == 0
    assert await ledger.purge(99) == many
    assert [one.subject for one in await ledger.history()] == [B]

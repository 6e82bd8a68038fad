"""The work set against a model of it in plain dictionaries: whatever is done in whatever order, both agree.

The model says the rules once more, in the words of DESIGN, without SQL. Hypothesis looks for an order of marks, claims,
ends of leases, settlements and revivals after which the two differ, and then for the shortest one.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from sync_worker.domain.revisions import (
    Ambiguous,
    Deleted,
    Deletion,
    ExpectedRevision,
    Updated,
    expected_revision,
    merge,
)
from sync_worker.domain.work import NO_CAUSE, Cause, CauseKind, WorkKind
from sync_worker.runtime.wiring import open_database
from sync_worker.storage.queue import WorkQueue
from sync_worker.storage.work_items import Claim, Completed, DeadLettered, Released, Retry, SetAside, WorkItem
from tests.causes import cause_of
from tests.clock import TIMINGS as PRODUCTION
from tests.clock import ManualClock
from tests.leases import holds
from tests.sizes import examples

if TYPE_CHECKING:
    from sync_worker.storage.database import Transaction
    from sync_worker.storage.work_items import Completion

TIMINGS = replace(PRODUCTION, revision_memory=6.0, revisions_kept=1)
KEYS = ("user:user_a", "user:user_b", "org:org_c", "document:d")
START = 1_000_000.0

SECONDS = st.sampled_from([0.25, 1.0, 2.0, 5.0, 30.0])
DOCUMENTS, REVISIONS = st.sampled_from(["doc-1", "doc-2"]), st.sampled_from(["r1", "r2"])
MOMENTS = st.none() | st.integers(0, 2)
WITNESSES = st.one_of(
    st.builds(Updated, DOCUMENTS, REVISIONS, MOMENTS),
    st.builds(Deleted, DOCUMENTS, REVISIONS, MOMENTS, st.sampled_from([Deletion.INDIRECT, Deletion.REPORTED])),
    st.builds(Ambiguous, DOCUMENTS, MOMENTS),
)
MARKS = st.builds(
    WorkItem,
    key=st.sampled_from(KEYS),
    lane=st.sampled_from([0, 1, 2]),
    visible_at=st.none() | st.sampled_from([-5.0, 0.5, 3.0, 40.0]).map(lambda seconds: START + seconds),
    expected=st.none() | WITNESSES,
    cause=st.sampled_from(["", "webhook:a", "webhook:b", "poll:a", "reconcile"]).map(cause_of),
    transition_at=st.none() | st.sampled_from([-5.0, 3.0, 40.0]).map(lambda seconds: START + seconds),
)


@dataclass
class ModelRow:
    """What the model knows of one subject."""

    lane: int
    due: float | None
    wanted: int = 0
    done: int = 0
    owner: str | None = None
    attempts: int = 0
    dead: bool = False
    note: tuple[str, str] = ("", "")
    cause: Cause = NO_CAUSE
    since: float | None = None
    again: float | None = None
    settled: float | None = None
    spaced: float = 0.0
    requested: float = 0.0
    transition: float | None = None
    writes: list[float] = field(default_factory=list)
    all_expected: dict[str, tuple[ExpectedRevision, int, float | None]] = field(default_factory=dict)

    def serve(self, generation: int, now: float) -> None:
        """Note what a finished run has served, and forget what was served too long ago, or is too much."""
        for document, (expected, brought, served) in list(self.all_expected.items()):
            if brought <= generation and served is None:
                self.all_expected[document] = replace(expected, served=True), brought, now
        served_at = {document: at for document, (*_, at) in self.all_expected.items() if at is not None}
        newest = sorted(served_at, key=lambda document: (-served_at[document], document))[: TIMINGS.revisions_kept]
        for document, at in served_at.items():
            if document not in newest or at < now - TIMINGS.revision_memory:
                del self.all_expected[document]


def kind_of(key: str) -> WorkKind:
    return WorkKind.DOCUMENT if key.startswith("document:") else WorkKind.SUBJECT


class Model:
    """The rules."""

    def __init__(self) -> None:
        self.clock = ManualClock(START)
        self.rows: dict[str, ModelRow] = {}

    @property
    def now(self) -> float:
        return self.clock.now()

    def mark(self, mark: WorkItem) -> None:
        due = self.now if mark.visible_at is None else mark.visible_at
        row = self.rows.setdefault(mark.key, ModelRow(mark.lane, None))
        waits_for_an_editor = row.cause.kind is CauseKind.WEBHOOK and (row.wanted > row.done or row.dead)
        if row.dead:
            row.dead, row.attempts, row.note = False, 0, ("", "")
        row.lane = min(row.lane, mark.lane) if row.wanted > row.done else mark.lane
        wanted_since = max(self.now, due)
        if row.owner is None:
            allowed = max(
                due,
                min(row.spaced, self.now + TIMINGS.subject_pace),
                min(row.requested, self.now + TIMINGS.max_kept_retry_after),
            )
            row.due = allowed if row.due is None else min(row.due, allowed)
        elif row.again is None:
            row.again = wanted_since
        row.since = wanted_since if row.since is None else min(row.since, wanted_since)
        is_webhook = mark.cause.kind is CauseKind.WEBHOOK
        if mark.cause != NO_CAUSE and (is_webhook or not waits_for_an_editor):
            row.cause = mark.cause
        row.transition = min((t for t in (row.transition, mark.transition_at) if t is not None), default=None)
        row.wanted += 1

    def revision(self, mark: WorkItem) -> None:
        if mark.expected is None:
            return
        row = self.rows[mark.key]
        known = row.all_expected.get(mark.expected.document)
        expected = merge(known[0], mark.expected) if known else mark.expected
        row.all_expected[expected.document] = expected, row.wanted, known[2] if known and expected.served else None

    def claimable(self, lane: int, *, documents: bool) -> dict[str, float]:
        return {
            key: row.due
            for key, row in self.rows.items()
            if row.lane == lane and row.due is not None and row.due <= self.now
            if key.startswith("document:") == documents
        }

    def claim(self, claim: Claim, lease: float) -> None:
        row = self.rows[claim.key]
        since = row.due if row.since is None else row.since
        assert claim == Claim(
            claim.key,
            kind_of(claim.key),
            row.lane,
            claim.lease_token,
            row.wanted,
            row.attempts,
            tuple(revision for _, (revision, *_) in sorted(row.all_expected.items())),
            row.cause,
            row.note[0],
            self.now + lease,
            since if since is not None else -1.0,
            "",
            row.transition,
        )
        row.owner, row.due, row.since, row.again = claim.lease_token, self.now + lease, since, None

    def owns(self, claim: Claim) -> bool:
        return self.rows[claim.key].owner == claim.lease_token if claim.key in self.rows else False

    def has_time(self, claim: Claim) -> bool:
        return self.owns(claim) and (self.rows[claim.key].due or 0.0) > self.now

    def complete(self, completion: Completion) -> None:
        claim = completion.claim
        row = self.rows[claim.key]
        marked_again = row.wanted > claim.generation
        row.owner = None
        match completion:
            case Released():
                row.due = self.now
            case Retry():
                row.due, row.attempts = self.now + completion.delay, row.attempts + 1
                row.requested = self.now + completion.not_before
            case Completed() | SetAside() | DeadLettered():
                soon = None if completion.next_due is None else max(completion.next_due, self.now + 0.25)
                row.due = self.now if marked_again else soon
                row.done = claim.generation
                row.since = row.again if marked_again else None
                row.dead = not isinstance(completion, Completed) and not marked_again
                row.attempts = row.attempts + 1 if row.dead else 0
        if isinstance(completion, Completed):
            row.lane = row.lane if marked_again else 1
        if isinstance(completion, Completed | SetAside):
            row.cause = row.cause if marked_again else NO_CAUSE
            row.transition = completion.transition_at
            if claim.expected_revisions:
                row.serve(claim.generation, self.now)
        if not isinstance(completion, Released):
            row.note, row.settled = (completion.error_code, completion.error_detail), self.now
        if isinstance(completion, Completed | SetAside | Retry) and completion.wrote:
            row.writes.append(self.now)
            capped = min(row.spaced, self.now + TIMINGS.subject_pace)
            row.spaced = (
                max(capped, self.now - (TIMINGS.subject_burst - 1) * TIMINGS.subject_pace) + TIMINGS.subject_pace
            )
            row.due = None if row.due is None else max(row.due, row.spaced)
        row.again = None

    def revive(self) -> None:
        for row in self.rows.values():
            if row.dead:
                row.dead, row.attempts, row.note = False, 0, ("", "")
                row.wanted, row.since = row.wanted + 1, self.now
                row.due = self.now if row.owner is None else row.due

    def purge(self, older_than: float) -> None:
        self.rows = {
            key: row
            for key, row in self.rows.items()
            if row.due is not None or row.dead or row.note[0] or self.now - (row.settled or self.now) <= older_than
        }

    @property
    def next_due(self) -> float | None:
        dues = [row.due for row in self.rows.values() if row.due is not None]
        return max(0.0, min(dues) - self.now) if dues else None

    def table(self) -> dict[str, tuple[Any, ...]]:
        return {
            key: (
                *(row.lane, row.due, row.wanted, row.done, row.owner, row.attempts, row.dead),
                *(row.note, str(row.cause.kind), row.cause.id, row.since, row.again, row.settled, row.transition),
                {document: revision for document, (revision, *_) in row.all_expected.items()},
            )
            for key, row in self.rows.items()
        }


def stored(tx: Transaction) -> dict[str, tuple[Any, ...]]:
    """Return the tables in the shape of the model's."""
    all_expected: dict[str, dict[str, ExpectedRevision]] = {}
    for key, document, *row in tx.execute(
        "SELECT key, document, revision, updated_at, deletion, served_at IS NOT NULL FROM expected_revision"
    ):
        *parts, served = row
        all_expected.setdefault(key, {})[document] = expected_revision(document, *parts, served=bool(served))
    rows = tx.execute(
        "SELECT key, lane, visible_at, generation, completed_generation, lease_token, attempts, dead, error_code, "
        "error_detail, cause_kind, cause_id, enqueued_at, re_enqueued_at, last_finished_at, "
        "transition_at FROM work"
    )
    return {
        key: (
            *(lane, due, wanted, done, owner, attempts, bool(dead)),
            *((code, detail), *rest),
            all_expected.get(key, {}),
        )
        for key, lane, due, wanted, done, owner, attempts, dead, code, detail, *rest in rows
    }


class WorkSetMachine(RuleBasedStateMachine):
    """One database, emptied for each example, and the model beside it."""

    url: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.claims: list[Claim] = []
        self.runner = asyncio.Runner()
        self.db = open_database(self.url, self.model.clock, TIMINGS, server_clock=self.model.clock)
        self.ws = WorkQueue(self.db, TIMINGS)
        self.runner.run(self.db.start())
        self.runner.run(
            self.db.run(lambda tx: (tx.execute("DELETE FROM work"), tx.execute("DELETE FROM expected_revision")))
        )

    def teardown(self) -> None:
        self.runner.run(self.db.close())
        self.runner.close()

    @rule(marks=st.lists(MARKS, min_size=1, max_size=4))
    def mark(self, marks: list[WorkItem]) -> None:
        self.runner.run(self.ws.enqueue(marks))
        for mark in marks:
            self.model.mark(mark)
        for mark in marks:
            self.model.revision(mark)

    @rule(seconds=SECONDS)
    def time_passes(self, seconds: float) -> None:
        self.model.clock.advance(seconds)

    @rule(lane=st.sampled_from([0, 1, 2]), limit=st.integers(1, 3), lease=SECONDS, documents=st.booleans())
    def claim(self, lane: int, limit: int, lease: float, documents: bool) -> None:
        candidates = self.model.claimable(lane, documents=documents)
        take = self.ws.claim_lookups if documents else self.ws.claim
        claims = self.runner.run(take(lane, limit, lease))
        taken = {claim.key for claim in claims}
        assert taken <= candidates.keys()
        assert len(taken) == len(claims) == min(limit, len(candidates))
        left = [due for key, due in candidates.items() if key not in taken]
        assert all(candidates[key] <= due for key in taken for due in left)
        for claim in claims:
            self.model.claim(claim, lease)
        self.claims += claims

    @rule(lease=SECONDS)
    def claim_all_that_is_due(self, lease: float) -> None:
        for lane in (0, 1, 2):
            for documents in (False, True):
                self.claim(lane, len(KEYS), lease, documents)

    def some_claims(self) -> st.SearchStrategy[list[Claim]]:
        """Claims that still own their subject, mostly; some that were lost or settled long ago."""
        owning = [claim for claim in self.claims if self.model.owns(claim)]
        return st.lists(
            st.sampled_from(owning or self.claims) | st.sampled_from(self.claims), min_size=1, max_size=3, unique=True
        )

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def complete(self, data: st.DataObject) -> None:
        claims = data.draw(self.some_claims())
        completions = [data.draw(self.completions(claim)) for claim in claims]
        lost = self.runner.run(self.ws.complete(completions))
        owned = [completion for completion in completions if self.model.owns(completion.claim)]
        assert lost == {s.claim.key for s in completions if s not in owned}
        for completion in owned:
            self.model.complete(completion)

    def completions(self, claim: Claim) -> st.SearchStrategy[Completion]:
        next_due = st.none() | SECONDS.map(lambda seconds: self.model.now + seconds)
        return st.one_of(
            st.builds(
                Completed,
                st.just(claim),
                next_due,
                st.booleans(),
                st.sampled_from(["", "row_refused"]),
                transition_at=st.none() | SECONDS.map(lambda seconds: self.model.now + seconds),
            ),
            st.builds(Retry, st.just(claim), st.just("rate_limited"), st.just("429"), SECONDS, st.booleans()),
            st.builds(DeadLettered, st.just(claim), st.just("no_such_subject"), st.just(""), next_due),
            st.builds(
                SetAside,
                st.just(claim),
                st.just("loss_held"),
                st.just(""),
                next_due,
                st.booleans(),
                st.none() | SECONDS.map(lambda seconds: self.model.now + seconds),
            ),
            st.builds(Released, st.just(claim)),
        )

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), lease=SECONDS)
    def renew(self, data: st.DataObject, lease: float) -> None:
        claims = data.draw(self.some_claims())
        held = {claim.key for claim in claims if self.model.has_time(claim)}
        assert self.runner.run(self.ws.renew(claims, lease)) == held
        for key in held:
            self.model.rows[key].due = self.model.now + lease

    @rule()
    def revive(self) -> None:
        dead = sum(row.dead for row in self.model.rows.values())
        assert self.runner.run(self.ws.revive()) == dead
        self.model.revive()

    @rule(older_than=st.sampled_from([TIMINGS.pace_memory, TIMINGS.pace_memory * 2]))
    def purge(self, older_than: float) -> None:
        before = len(self.model.rows)
        self.model.purge(older_than)
        assert self.runner.run(self.ws.purge(older_than)) == before - len(self.model.rows)

    @invariant()
    def both_agree(self) -> None:
        assert self.runner.run(self.db.read(stored)) == self.model.table()
        assert self.runner.run(self.ws.next_due()) == self.model.next_due
        assert self.runner.run(holds(self.ws, self.claims)) == {c.key for c in self.claims if self.model.has_time(c)}

    @invariant()
    def nothing_wanted_is_forgotten(self) -> None:
        for key, row in self.model.rows.items():
            if row.wanted > row.done:
                assert row.due is not None, key

    @invariant()
    def no_subject_is_written_too_often(self) -> None:
        for row in self.model.rows.values():
            assert all(sum(start <= moment <= start + 10 for moment in row.writes) <= 9 for start in row.writes)


@pytest.mark.drawn
def test_whatever_happens_the_work_set_and_its_model_agree(database_url: str) -> None:
    class Machine(WorkSetMachine):
        url = database_url

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=examples(60),
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )

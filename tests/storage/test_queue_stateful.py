"""The queue against a model of it: whatever is done in whatever order, both agree.

Hypothesis looks for an order of items, claims, ends of leases, completions and revivals after which the two differ, and
then for the shortest one.
"""

from __future__ import annotations

import asyncio
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
)
from sync_worker.runtime.wiring import open_database
from sync_worker.storage.queue import WorkQueue
from sync_worker.storage.work_items import Claim, Completed, DeadLettered, Released, Retry, SetAside, WorkItem
from tests.causes import cause_of
from tests.leases import holds
from tests.sizes import examples
from tests.storage.queue_model import START, TIMINGS, Model

if TYPE_CHECKING:
    from sync_worker.storage.database import Transaction
    from sync_worker.storage.work_items import Completion


KEYS = ("user:user_a", "user:user_b", "org:org_c", "document:d")

SECONDS = st.sampled_from([0.25, 1.0, 2.0, 5.0, 30.0])
DOCUMENTS, REVISIONS = st.sampled_from(["doc-1", "doc-2"]), st.sampled_from(["r1", "r2"])
MOMENTS = st.none() | st.integers(0, 2)
EXPECTED = st.one_of(
    st.builds(Updated, DOCUMENTS, REVISIONS, MOMENTS),
    st.builds(Deleted, DOCUMENTS, REVISIONS, MOMENTS, st.sampled_from([Deletion.INDIRECT, Deletion.REPORTED])),
    st.builds(Ambiguous, DOCUMENTS, MOMENTS),
)
ITEMS = st.builds(
    WorkItem,
    key=st.sampled_from(KEYS),
    lane=st.sampled_from([0, 1, 2]),
    visible_at=st.none() | st.sampled_from([-5.0, 0.5, 3.0, 40.0]).map(lambda seconds: START + seconds),
    expected=st.none() | EXPECTED,
    cause=st.sampled_from(["", "webhook:a", "webhook:b", "poll:a", "reconcile"]).map(cause_of),
    transition_at=st.none() | st.sampled_from([-5.0, 3.0, 40.0]).map(lambda seconds: START + seconds),
)


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
            *(lane, visible_at, generation, completed, token, attempts, bool(dead)),
            *((code, detail), *rest),
            all_expected.get(key, {}),
        )
        for key, lane, visible_at, generation, completed, token, attempts, dead, code, detail, *rest in rows
    }


class QueueMachine(RuleBasedStateMachine):
    """One database, emptied for each example, and the model beside it."""

    url: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.claims: list[Claim] = []
        self.runner = asyncio.Runner()
        self.db = open_database(self.url, self.model.clock, TIMINGS, server_clock=self.model.clock)
        self.queue = WorkQueue(self.db, TIMINGS)
        self.runner.run(self.db.start())
        self.runner.run(
            self.db.run(lambda tx: (tx.execute("DELETE FROM work"), tx.execute("DELETE FROM expected_revision")))
        )

    def teardown(self) -> None:
        self.runner.run(self.db.close())
        self.runner.close()

    @rule(items=st.lists(ITEMS, min_size=1, max_size=4))
    def enqueue(self, items: list[WorkItem]) -> None:
        self.runner.run(self.queue.enqueue(items))
        for item in items:
            self.model.enqueue(item)
        for item in items:
            self.model.expect(item)

    @rule(seconds=SECONDS)
    def time_passes(self, seconds: float) -> None:
        self.model.clock.advance(seconds)

    @rule(lane=st.sampled_from([0, 1, 2]), limit=st.integers(1, 3), lease=SECONDS, documents=st.booleans())
    def claim(self, lane: int, limit: int, lease: float, documents: bool) -> None:
        candidates = self.model.claimable(lane, documents=documents)
        take = self.queue.claim_lookups if documents else self.queue.claim
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
        """Claims that still own their subject, mostly; some that were lost or completed long ago."""
        owning = [claim for claim in self.claims if self.model.owns(claim)]
        return st.lists(
            st.sampled_from(owning or self.claims) | st.sampled_from(self.claims), min_size=1, max_size=3, unique=True
        )

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def complete(self, data: st.DataObject) -> None:
        claims = data.draw(self.some_claims())
        completions = [data.draw(self.completions(claim)) for claim in claims]
        lost = self.runner.run(self.queue.complete(completions))
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
        assert self.runner.run(self.queue.renew(claims, lease)) == held
        for key in held:
            self.model.rows[key].visible_at = self.model.now + lease

    @rule()
    def revive(self) -> None:
        dead = sum(row.dead for row in self.model.rows.values())
        assert self.runner.run(self.queue.revive()) == dead
        self.model.revive()

    @rule(older_than=st.sampled_from([TIMINGS.pace_memory, TIMINGS.pace_memory * 2]))
    def purge(self, older_than: float) -> None:
        before = len(self.model.rows)
        self.model.purge(older_than)
        assert self.runner.run(self.queue.purge(older_than)) == before - len(self.model.rows)

    @invariant()
    def both_agree(self) -> None:
        assert self.runner.run(self.db.read(stored)) == self.model.table()
        assert self.runner.run(self.queue.next_due()) == self.model.next_due
        assert self.runner.run(holds(self.queue, self.claims)) == {c.key for c in self.claims if self.model.has_time(c)}

    @invariant()
    def nothing_enqueued_is_forgotten(self) -> None:
        for key, row in self.model.rows.items():
            if row.pending:
                assert row.visible_at is not None, key

    @invariant()
    def no_subject_is_written_too_often(self) -> None:
        for row in self.model.rows.values():
            assert all(sum(start <= moment <= start + 10 for moment in row.writes) <= 9 for start in row.writes)


@pytest.mark.drawn
def test_whatever_happens_the_queue_and_its_model_agree(database_url: str) -> None:
    class Machine(QueueMachine):
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

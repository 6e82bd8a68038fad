"""The rules of the work queue once more, in plain dictionaries and without SQL."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from sync_worker.domain.revisions import ExpectedRevision, merge
from sync_worker.domain.work import NO_CAUSE, Cause, CauseKind, WorkKind
from sync_worker.storage.work_items import Claim, Completed, DeadLettered, Released, Retry, SetAside, WorkItem
from tests.clock import TIMINGS as PRODUCTION
from tests.clock import ManualClock

if TYPE_CHECKING:
    from sync_worker.storage.work_items import Completion


TIMINGS = replace(PRODUCTION, revision_memory=6.0, revisions_kept=1)

START = 1_000_000.0


@dataclass
class ModelRow:
    """What the model knows of one subject."""

    lane: int
    visible_at: float | None
    generation: int = 0
    completed_generation: int = 0
    lease_token: str | None = None
    attempts: int = 0
    dead: bool = False
    note: tuple[str, str] = ("", "")
    cause: Cause = NO_CAUSE
    enqueued_at: float | None = None
    re_enqueued_at: float | None = None
    last_finished_at: float | None = None
    next_write_at: float = 0.0
    retry_not_before: float = 0.0
    transition_at: float | None = None
    writes: list[float] = field(default_factory=list)
    all_expected: dict[str, tuple[ExpectedRevision, int, float | None]] = field(default_factory=dict)

    @property
    def pending(self) -> bool:
        return self.generation > self.completed_generation

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

    def enqueue(self, item: WorkItem) -> None:
        due = self.now if item.visible_at is None else item.visible_at
        row = self.rows.setdefault(item.key, ModelRow(item.lane, None))
        waits_for_an_editor = row.cause.kind is CauseKind.WEBHOOK and (row.pending or row.dead)
        if row.dead:
            row.dead, row.attempts, row.note = False, 0, ("", "")
        row.lane = min(row.lane, item.lane) if row.pending else item.lane
        enqueued_at = max(self.now, due)
        if row.lease_token is None:
            allowed = max(
                due,
                min(row.next_write_at, self.now + TIMINGS.subject_pace),
                min(row.retry_not_before, self.now + TIMINGS.max_kept_retry_after),
            )
            row.visible_at = allowed if row.visible_at is None else min(row.visible_at, allowed)
        elif row.re_enqueued_at is None:
            row.re_enqueued_at = enqueued_at
        row.enqueued_at = enqueued_at if row.enqueued_at is None else min(row.enqueued_at, enqueued_at)
        is_webhook = item.cause.kind is CauseKind.WEBHOOK
        if item.cause != NO_CAUSE and (is_webhook or not waits_for_an_editor):
            row.cause = item.cause
        row.transition_at = min((t for t in (row.transition_at, item.transition_at) if t is not None), default=None)
        row.generation += 1

    def expect(self, item: WorkItem) -> None:
        if item.expected is None:
            return
        row = self.rows[item.key]
        known = row.all_expected.get(item.expected.document)
        expected = merge(known[0], item.expected) if known else item.expected
        row.all_expected[expected.document] = expected, row.generation, known[2] if known and expected.served else None

    def claimable(self, lane: int, *, documents: bool) -> dict[str, float]:
        return {
            key: row.visible_at
            for key, row in self.rows.items()
            if row.lane == lane and row.visible_at is not None and row.visible_at <= self.now
            if key.startswith("document:") == documents
        }

    def claim(self, claim: Claim, lease: float) -> None:
        row = self.rows[claim.key]
        since = row.visible_at if row.enqueued_at is None else row.enqueued_at
        assert claim == Claim(
            claim.key,
            kind_of(claim.key),
            row.lane,
            claim.lease_token,
            row.generation,
            row.attempts,
            tuple(revision for _, (revision, *_) in sorted(row.all_expected.items())),
            row.cause,
            row.note[0],
            self.now + lease,
            since if since is not None else -1.0,
            "",
            row.transition_at,
        )
        row.lease_token, row.visible_at = claim.lease_token, self.now + lease
        row.enqueued_at, row.re_enqueued_at = since, None

    def owns(self, claim: Claim) -> bool:
        return self.rows[claim.key].lease_token == claim.lease_token if claim.key in self.rows else False

    def has_time(self, claim: Claim) -> bool:
        return self.owns(claim) and (self.rows[claim.key].visible_at or 0.0) > self.now

    def complete(self, completion: Completion) -> None:
        claim = completion.claim
        row = self.rows[claim.key]
        enqueued_again = row.generation > claim.generation
        row.lease_token = None
        match completion:
            case Released():
                row.visible_at = self.now
            case Retry():
                row.visible_at, row.attempts = self.now + completion.delay, row.attempts + 1
                row.retry_not_before = self.now + completion.not_before
            case Completed() | SetAside() | DeadLettered():
                soon = None if completion.next_due is None else max(completion.next_due, self.now + 0.25)
                row.visible_at = self.now if enqueued_again else soon
                row.completed_generation = claim.generation
                row.enqueued_at = row.re_enqueued_at if enqueued_again else None
                row.dead = not isinstance(completion, Completed) and not enqueued_again
                row.attempts = row.attempts + 1 if row.dead else 0
        if isinstance(completion, Completed):
            row.lane = row.lane if enqueued_again else 1
        if isinstance(completion, Completed | SetAside):
            row.cause = row.cause if enqueued_again else NO_CAUSE
            row.transition_at = completion.transition_at
            if claim.expected_revisions:
                row.serve(claim.generation, self.now)
        if not isinstance(completion, Released):
            row.note, row.last_finished_at = (completion.error_code, completion.error_detail), self.now
        if isinstance(completion, Completed | SetAside | Retry) and completion.wrote:
            row.writes.append(self.now)
            capped = min(row.next_write_at, self.now + TIMINGS.subject_pace)
            row.next_write_at = (
                max(capped, self.now - (TIMINGS.subject_burst - 1) * TIMINGS.subject_pace) + TIMINGS.subject_pace
            )
            row.visible_at = None if row.visible_at is None else max(row.visible_at, row.next_write_at)
        row.re_enqueued_at = None

    def revive(self) -> None:
        for row in self.rows.values():
            if row.dead:
                row.dead, row.attempts, row.note = False, 0, ("", "")
                row.generation, row.enqueued_at = row.generation + 1, self.now
                row.visible_at = self.now if row.lease_token is None else row.visible_at

    def purge(self, older_than: float) -> None:
        self.rows = {
            key: row
            for key, row in self.rows.items()
            if row.visible_at is not None
            or row.dead
            or row.note[0]
            or self.now - (row.last_finished_at or self.now) <= older_than
        }

    @property
    def next_due(self) -> float | None:
        dues = [row.visible_at for row in self.rows.values() if row.visible_at is not None]
        return max(0.0, min(dues) - self.now) if dues else None

    def table(self) -> dict[str, tuple[Any, ...]]:
        return {
            key: (
                *(row.lane, row.visible_at, row.generation, row.completed_generation),
                *(row.lease_token, row.attempts, row.dead, row.note, str(row.cause.kind), row.cause.id),
                *(row.enqueued_at, row.re_enqueued_at, row.last_finished_at, row.transition_at),
                {document: revision for document, (revision, *_) in row.all_expected.items()},
            )
            for key, row in self.rows.items()
        }

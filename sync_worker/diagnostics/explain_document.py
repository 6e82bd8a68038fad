"""Explains one published document: when it reached Clerk and every session, or what is in the way.

Pure: its subjects come already explained, and `explainer` does the reading.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from sync_worker.diagnostics.explanation import (
    ADVICE,
    NO_ACCESS,
    RowStatus,
    SyncState,
    Verdict,
    approve_step,
    is_waiting,
)
from sync_worker.diagnostics.issues import next_step
from sync_worker.errors import StaleRead
from sync_worker.formatting import at
from sync_worker.storage.ledger import State as LedgerState
from sync_worker.sync.address_resolution import UNRESOLVED

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sync_worker.diagnostics.explanation import ExplainedRow, Explanation
    from sync_worker.domain.entitlements import Refusal
    from sync_worker.domain.freshness import DocumentRevision
    from sync_worker.storage.approvals import HeldChangeset
    from sync_worker.storage.ledger import Entry
    from sync_worker.storage.queue_admin import Row

SESSION_TOKEN_SECONDS = 60.0
"""The lifetime of a Clerk session token: this long after a write, every session has the new access."""


class DocumentKind(StrEnum):
    """What a document is to us."""

    ENTITLEMENT = "entitlement"
    REFERENCED = "referenced"
    MISSING = "missing"


Judgement = tuple[Verdict, float | None]
"""The verdict, and when Clerk matched the document (epoch seconds)."""


@dataclass(frozen=True, slots=True)
class Reach:
    """What depends on a plan, a course or a cohort. `subjects` is None when there are too many to count at once.

    `waiting` counts the subjects that its last change has not reached yet.
    """

    entitlements: int
    subjects: int | None
    waiting: int


@dataclass(frozen=True, slots=True)
class DocumentFacts:
    """Everything read about one document. Times are epoch seconds.

    `stored` is the revision in the document store, `indexed` the one in the query index. `refusal` says why the
    document names no subject. `subject` is the one it names now, `former` are those it named before. `history` is the
    ledger's, newest first. `held` is what its last change would take away. With a `problem` the rest is incomplete;
    `advice` is for one that stays until somebody corrects something.
    """

    id: str
    now: float
    kind: DocumentKind = DocumentKind.MISSING
    stored: DocumentRevision | None = None
    indexed: DocumentRevision | None = None
    refusal: Refusal | None = None
    subject: Explanation | None = None
    former: tuple[Explanation, ...] = ()
    history: tuple[Entry, ...] = ()
    work: Row | None = None
    reach: Reach | None = None
    held: HeldChangeset | None = None
    problem: str = ""
    advice: str = ""

    @property
    def published(self) -> float | None:
        """When the published revision was made; None when there is none."""
        updated_at = self.stored.updated_at if self.stored else None
        return None if updated_at is None else updated_at / 1_000_000

    @property
    def subjects(self) -> tuple[Explanation, ...]:
        """The subject it names now, then those it named before."""
        return (*((self.subject,) if self.subject else ()), *self.former)

    @property
    def index_lags(self) -> bool:
        """Whether the query index has another revision than the document store."""
        return (self.stored and self.stored.revision) != (self.indexed and self.indexed.revision)


@dataclass(frozen=True, slots=True)
class DocumentExplanation:
    """The verdict on a document. `in_clerk` is when Clerk matched it (epoch seconds), also after a delete."""

    facts: DocumentFacts
    verdict: Verdict
    in_clerk: float | None = None

    @property
    def in_sessions_by(self) -> float | None:
        """When every session token has the change."""
        return None if self.in_clerk is None else self.in_clerk + SESSION_TOKEN_SECONDS

    @property
    def in_token(self) -> float | None:
        """When a real token was measured to have the change."""
        return None if self.in_clerk is None else _measured(self.facts, self.in_clerk)

    @property
    def unresolved(self) -> int:
        """How many of its references lead to nothing usable."""
        row = _row_of(self.facts, self.facts.subject) if self.facts.subject else None
        return row.unresolved.number if row and row.unresolved else 0

    @property
    def subjects(self) -> tuple[Explanation, ...]:
        """The subject it names now, then those it named before."""
        return self.facts.subjects

    def reason(self, explanation: Explanation) -> str:
        """Return in one sentence what the document means for one of its subjects."""
        row = _row_of(self.facts, explanation)
        if row is not None and row.status in NO_ACCESS:
            return f"It does not count because {row.reason}."
        if explanation in self.facts.former and not _still_in_clerk(self.facts, explanation):
            return "It used to grant this subject access and no longer does."
        return explanation.verdict.headline

    def state(self, explanation: Explanation) -> SyncState:
        """Return the state of one of its subjects, as far as this document is concerned."""
        row = _row_of(self.facts, explanation)
        if row is not None and row.status in NO_ACCESS and explanation.change is None:
            return NO_ACCESS[row.status]
        if explanation in self.facts.former and not _still_in_clerk(self.facts, explanation):
            return SyncState.SYNCED
        return explanation.verdict.state


def explain_document(facts: DocumentFacts) -> DocumentExplanation:
    """Judge what was read about one document."""
    return DocumentExplanation(facts, *_judged(facts))


def _judged(facts: DocumentFacts) -> Judgement:
    if facts.problem:
        headline = f"Cannot tell right now. {facts.problem}"
        return Verdict(SyncState.UNKNOWN, headline, facts.advice or "Try again in a moment."), None
    if facts.index_lags:
        what = _published(facts) if facts.stored else "It is no longer published, "
        headline = f"{what}but Sanity's query index does not show that yet."
        return Verdict(SyncState.LATE, headline, StaleRead.next_step()), None
    left = next((former for former in facts.former if _still_in_clerk(facts, former)), None)
    if left is not None and left.verdict.state is not SyncState.UNKNOWN:
        ended = f"no longer names {left.subject}" if facts.stored else "is no longer published"
        headline = f"It {ended}, but its access is still in Clerk. {left.verdict.headline}"
        return replace(left.verdict, headline=headline), None
    match facts.kind:
        case DocumentKind.MISSING:
            return _missing(facts)
        case DocumentKind.REFERENCED:
            return _referenced(facts)
        case DocumentKind.ENTITLEMENT:
            return _entitlement(facts)


def _entitlement(facts: DocumentFacts) -> Judgement:
    if facts.refusal is not None or facts.subject is None:
        reason = f"{facts.refusal.field} is invalid: {facts.refusal.reason}" if facts.refusal else "it names no subject"
        headline = f"{_published(facts)}but it does not count because {reason}."
        return Verdict(SyncState.REFUSED, headline, ADVICE[RowStatus.REFUSED]), None
    verdict, row = facts.subject.verdict, _row_of(facts, facts.subject)
    if verdict.state is SyncState.UNKNOWN:
        return verdict, None
    if row is not None and row.status in NO_ACCESS:
        return _without_effect(facts, facts.subject, row)
    if verdict.state is not SyncState.SYNCED:
        yet = "" if verdict.state is SyncState.REFUSED else " yet"
        return replace(verdict, headline=f"{_published(facts)}but not in Clerk{yet}. {verdict.headline}"), None
    in_clerk = _arrived(facts, facts.subject)
    if row is not None and row.unresolved is not None:
        headline = f"{_arrival(facts, in_clerk)} But {row.unresolved.sentence}."
        return Verdict(SyncState.SYNCED, headline, next_step(UNRESOLVED)), in_clerk
    return Verdict(SyncState.SYNCED, _arrival(facts, in_clerk), _at_once(facts, in_clerk)), in_clerk


def _without_effect(facts: DocumentFacts, subject: Explanation, row: ExplainedRow) -> Judgement:
    """Judge a row that grants nothing now, though it may have done so before."""
    yet = " yet" if NO_ACCESS[row.status] is SyncState.PENDING else ""
    headline = f"{_published(facts)}but it does not count{yet} because {row.reason}."
    if subject.change is not None:
        return replace(subject.verdict, headline=f"{headline} {subject.verdict.headline}"), None
    return Verdict(NO_ACCESS[row.status], headline, ADVICE[row.status]), _removed(facts, [subject])


def _missing(facts: DocumentFacts) -> Judgement:
    if not facts.history and facts.work is None:
        headline = "No published document has this id, and none was ever synced under it."
        return Verdict(SyncState.UNKNOWN, headline, "Check the id in Sanity. Is the document published?"), None
    gone = _removed(facts, facts.former)
    if gone is None:
        return Verdict(SyncState.DELETED, "It is no longer published and grants no access."), None
    sessions = _sessions(facts, gone)
    headline = f"It is no longer published. Removed from Clerk {at(gone, facts.now)} → from every session {sessions}."
    return Verdict(SyncState.DELETED, headline, _at_once(facts, gone)), gone


def _referenced(facts: DocumentFacts) -> Judgement:
    """Judge a plan, a course or a cohort, which grants access only through entitlements."""
    reach, work = facts.reach, facts.work
    if reach is None or not reach.entitlements:
        return Verdict(SyncState.SYNCED, "No entitlement depends on it, so it affects nobody's access."), None
    dependents = _dependents(reach)
    if work is not None and work.dead:
        headline = f"{dependents} Its last change could not be processed. {work.error_detail}"
        return Verdict(SyncState.REFUSED, headline, next_step(work.error_code, work.key)), None
    if work is not None and is_waiting(work, facts.now):
        headline = f"{dependents} Its last change is being processed. {work.error_detail}".rstrip()
        return Verdict(SyncState.LATE, headline), None
    if facts.held is not None:
        held = facts.held
        losing = "1 subject would lose access" if held.size == 1 else f"{held.size} subjects would lose access"
        headline = f"{dependents} By its last change {losing}; this is held for approval."
        return Verdict(SyncState.HELD, headline, approve_step(held.id)), None
    if reach.waiting:
        waiting = f"{reach.waiting} subject{'' if reach.waiting == 1 else 's'}"
        return Verdict(SyncState.LATE, f"{dependents} Its last change has yet to reach {waiting}."), None
    written = [e.settled_at for e in facts.history if e.settled_at and e.settled_at >= (facts.published or 0.0)]
    in_clerk = max(written, default=None)
    headline = f"{dependents} {_arrival(facts, in_clerk)}"
    return Verdict(SyncState.SYNCED, headline, _at_once(facts, in_clerk)), in_clerk


def _dependents(reach: Reach) -> str:
    entitlements = "1 entitlement depends" if reach.entitlements == 1 else f"{reach.entitlements} entitlements depend"
    if reach.subjects is None:
        return f"{entitlements} on it."
    return f"{entitlements} on it, for {reach.subjects} subject{'' if reach.subjects == 1 else 's'}."


def _row_of(facts: DocumentFacts, explanation: Explanation) -> ExplainedRow | None:
    return next((row for row in explanation.rows if row.document == facts.id), None)


def _still_in_clerk(facts: DocumentFacts, former: Explanation) -> bool:
    """Return whether Clerk still has what the document granted a former subject."""
    return former.change is not None and former.marker is not None and facts.id in former.marker.documents


def _arrived(facts: DocumentFacts, subject: Explanation) -> float | None:
    """Return when Clerk got this revision: by the ledger, by our marker, or when a run found nothing to write."""
    published = facts.published or 0.0
    written = [e.settled_at for e in _applied(subject) if facts.id in e.documents and e.settled_at]
    since = [settled for settled in written if settled >= published]
    if since:
        return min(since)
    marked = _epoch(subject.marker.at) if subject.marker and facts.id in subject.marker.documents else None
    if marked is not None and marked >= published:
        return marked
    work = subject.facts.work
    finished = work.last_finished_at if work is not None else None
    return finished if finished and finished >= published else None


def _removed(facts: DocumentFacts, subjects: Iterable[Explanation]) -> float | None:
    """Return when the last access that the document granted was removed from Clerk, by the ledger."""
    moments: list[float | None] = []
    for subject in subjects:
        after = None
        for entry in _applied(subject):
            if facts.id in entry.documents:
                moments.append(after)
                break
            after = entry.settled_at
    return max((m for m in moments if m is not None), default=None)


def _applied(subject: Explanation) -> list[Entry]:
    return [entry for entry in subject.facts.history if entry.state is LedgerState.APPLIED]


def _published(facts: DocumentFacts) -> str:
    return f"Published {at(facts.published, facts.now)} UTC, " if facts.published else "Published, "


def _arrival(facts: DocumentFacts, in_clerk: float | None) -> str:
    if facts.published is None or in_clerk is None:
        return f"{_published(facts)}and nothing is left to write to Clerk."
    published, now = at(facts.published, facts.now), facts.now
    return f"Published {published} → in Clerk {at(in_clerk, now)} → in every session {_sessions(facts, in_clerk)}."


def _sessions(facts: DocumentFacts, in_clerk: float) -> str:
    """Return by when every session has the change, and when a real token had it."""
    by, now, measured = in_clerk + SESSION_TOKEN_SECONDS, facts.now, _measured(facts, in_clerk)
    proof = "" if measured is None else f" (measured with a real token at {at(measured, now)})"
    return f"{'by' if by > now else 'since'} {at(by, now)} UTC{proof}"


def _measured(facts: DocumentFacts, in_clerk: float) -> float | None:
    """Return when real tokens of all its subjects had the change, if that was measured."""
    moments = [subject.in_token for subject in facts.subjects]
    known = [moment for moment in moments if moment is not None]
    return max(in_clerk, *known) if known and len(known) == len(moments) else None


def _at_once(facts: DocumentFacts, in_clerk: float | None) -> str:
    """Return what the app does for a session that must not wait for its next token."""
    by = (in_clerk or 0.0) + SESSION_TOKEN_SECONDS
    if by <= facts.now:
        return ""
    return f"To see it before {at(by, facts.now)} UTC, the app calls `getToken({{skipCache: true}})` in the browser."


def _epoch(text: str) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None

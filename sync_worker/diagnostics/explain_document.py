"""What became of one published document: when it was in Clerk and in every session, or what keeps it from there.

Why it exists: an editor looks at a document, not at subjects, and wants to know whether the publish has arrived. This
is pure. What is known of the people it is for comes judged from `explain`; reading is `inquiry`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from sync_worker.diagnostics.explain_subject import ADVICE, NO_ACCESS, Standing, State, Verdict, waits
from sync_worker.diagnostics.issues import next_step
from sync_worker.domain.freshness import moment
from sync_worker.errors import StaleRead
from sync_worker.formatting import at
from sync_worker.storage.ledger import State as LedgerState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sync_worker.diagnostics.explain_subject import Explanation, Line
    from sync_worker.domain.entitlements import Refusal
    from sync_worker.domain.freshness import DocumentRevision
    from sync_worker.storage.ledger import Entry
    from sync_worker.storage.queue_admin import Row

SESSION_TOKEN_SECONDS = 60.0
"""How long a session token lives in Clerk: so long after a write, every session has seen it."""


class Sort(StrEnum):
    """What sort of document it is."""

    ENTITLEMENT = "entitlement"
    REFERENCED = "referenced"
    MISSING = "missing"


Judgement = tuple[Verdict, float | None]
"""The verdict, and when Clerk came to hold what the document says (epoch seconds)."""


@dataclass(frozen=True, slots=True)
class Reach:
    """What a plan, a course or a cohort leads to. `people` is None when it is too many to tell apart at once.

    `waiting` are the subjects that its last change has still to reach.
    """

    entitlements: int
    people: int | None
    waiting: int


@dataclass(frozen=True, slots=True)
class DocumentFacts:
    """All that was read about one document. Times are epoch seconds.

    `stored` is how the document store has it, `shown` how the query index shows it. `refusal` says why it names nobody.
    `subject` is whom it is for now; `former` are those whom it was for before. `history` is the ledger's, the newest
    first. With a `problem` the rest is incomplete.
    """

    id: str
    now: float
    sort: Sort = Sort.MISSING
    stored: DocumentRevision | None = None
    shown: DocumentRevision | None = None
    refusal: Refusal | None = None
    subject: Explanation | None = None
    former: tuple[Explanation, ...] = ()
    history: tuple[Entry, ...] = ()
    work: Row | None = None
    reach: Reach | None = None
    problem: str = ""

    @property
    def published(self) -> float | None:
        """When the published revision was made; None when there is none."""
        read = moment(self.stored.updated_at) if self.stored else None
        return read.timestamp() if read is not None and read.year > 1 else None

    @property
    def index_lags(self) -> bool:
        """Whether queries show the document other than it is."""
        return (self.stored and self.stored.revision) != (self.shown and self.shown.revision)


@dataclass(frozen=True, slots=True)
class DocumentExplanation:
    """The verdict. `in_clerk` is when Clerk came to hold what the document says now, also where that is nothing."""

    facts: DocumentFacts
    verdict: Verdict
    in_clerk: float | None = None

    @property
    def in_sessions_by(self) -> float | None:
        """When every session token knows it."""
        return None if self.in_clerk is None else self.in_clerk + SESSION_TOKEN_SECONDS

    @property
    def subjects(self) -> tuple[Explanation, ...]:
        """Whom it is for, and whom it was for."""
        return (*((self.facts.subject,) if self.facts.subject else ()), *self.facts.former)

    def reason(self, explanation: Explanation) -> str:
        """Return what is to be said of one of its subjects: why the document does not count, or how the subject is."""
        line = _line(self.facts, explanation)
        if line is not None and line.standing in NO_ACCESS:
            return f"It does not count, because {line.reason}."
        if explanation in self.facts.former and not _still_held(self.facts, explanation):
            return "It was for this subject before, and gives it nothing any more."
        return explanation.verdict.headline

    def state(self, explanation: Explanation) -> State:
        """Return the state of one of its subjects, as far as the document goes."""
        line = _line(self.facts, explanation)
        if line is not None and line.standing in NO_ACCESS and explanation.change is None:
            return NO_ACCESS[line.standing]
        if explanation in self.facts.former and not _still_held(self.facts, explanation):
            return State.SYNCED
        return explanation.verdict.state


def explain_document(facts: DocumentFacts) -> DocumentExplanation:
    """Judge what was read about one document."""
    return DocumentExplanation(facts, *_judged(facts))


def _judged(facts: DocumentFacts) -> Judgement:
    if facts.problem:
        return Verdict(State.UNKNOWN, f"Not known: {facts.problem}", "Try again in a moment."), None
    if facts.index_lags:
        what = _published(facts) if facts.stored else "It is not published any more, "
        lags = f"{what}but Sanity's query index does not show that yet."
        return Verdict(State.LATE, lags, StaleRead.next_step()), None
    left = next((former for former in facts.former if _still_held(facts, former)), None)
    if left is not None and left.verdict.state is not State.UNKNOWN:
        ended = f"for {left.subject}" if facts.stored else "published"
        headline = f"It is not {ended} any more, but its access is still in Clerk. {left.verdict.headline}"
        return replace(left.verdict, headline=headline), None
    match facts.sort:
        case Sort.MISSING:
            return _missing(facts)
        case Sort.REFERENCED:
            return _referenced(facts)
        case Sort.ENTITLEMENT:
            return _entitlement(facts)


def _entitlement(facts: DocumentFacts) -> Judgement:
    if facts.refusal is not None or facts.subject is None:
        reason = f"{facts.refusal.field}: {facts.refusal.reason}" if facts.refusal else "it names nobody"
        headline = f"{_published(facts)}but it does not count, because {reason}."
        return Verdict(State.REFUSED, headline, ADVICE[Standing.REFUSED]), None
    verdict, line = facts.subject.verdict, _line(facts, facts.subject)
    if verdict.state is State.UNKNOWN:
        return verdict, None
    if line is not None and line.standing in NO_ACCESS:
        return _not_counting(facts, facts.subject, line)
    if verdict.state is not State.SYNCED:
        yet = "" if verdict.state is State.REFUSED else " yet"
        return replace(verdict, headline=f"{_published(facts)}but it is not in Clerk{yet}. {verdict.headline}"), None
    in_clerk = _arrived(facts, facts.subject)
    return Verdict(State.SYNCED, _arrival(facts, in_clerk)), in_clerk


def _not_counting(facts: DocumentFacts, subject: Explanation, line: Line) -> Judgement:
    """Judge a row that does not count now, though perhaps it did."""
    yet = " yet" if NO_ACCESS[line.standing] is State.PENDING else ""
    headline = f"{_published(facts)}but it does not count{yet}, because {line.reason}."
    if subject.change is not None:
        return replace(subject.verdict, headline=f"{headline} {subject.verdict.headline}"), None
    return Verdict(NO_ACCESS[line.standing], headline, ADVICE[line.standing]), _left(facts, [subject])


def _missing(facts: DocumentFacts) -> Judgement:
    if not facts.history and facts.work is None:
        headline = "No published document has this id, and nothing is known of one that had."
        return Verdict(State.UNKNOWN, headline, "Look the id up in Sanity: is it published?"), None
    gone = _left(facts, facts.former)
    if gone is None:
        return Verdict(State.DELETED, "It is not published any more, and gives no access."), None
    sessions = _by(gone + SESSION_TOKEN_SECONDS, facts.now)
    headline = f"It is not published any more. Gone from Clerk {at(gone, facts.now)} → from every session {sessions}."
    return Verdict(State.DELETED, headline), gone


def _referenced(facts: DocumentFacts) -> Judgement:
    """Judge a plan, a course or a cohort, which has no access of its own."""
    reach, work = facts.reach, facts.work
    if reach is None or not reach.entitlements:
        return Verdict(State.SYNCED, "No entitlement leads to it, so it changes nobody's access."), None
    leads = _leads(reach)
    if work is not None and work.dead:
        given_up = f"{leads} Its last change was given up: {work.detail}"
        return Verdict(State.REFUSED, given_up, next_step(work.code, work.key)), None
    if work is not None and waits(work, facts.now):
        return Verdict(State.LATE, f"{leads} Its last change is being passed on. {work.detail}".rstrip()), None
    if reach.waiting:
        return Verdict(State.LATE, f"{leads} Its last change has still to reach {reach.waiting} of them."), None
    written = [e.settled_at for e in facts.history if e.settled_at and e.settled_at >= (facts.published or 0.0)]
    in_clerk = max(written, default=None)
    return Verdict(State.SYNCED, f"{leads} {_arrival(facts, in_clerk)}"), in_clerk


def _leads(reach: Reach) -> str:
    leads = "1 entitlement leads" if reach.entitlements == 1 else f"{reach.entitlements} entitlements lead"
    if reach.people is None:
        return f"{leads} to it."
    people = "1 person or organization" if reach.people == 1 else f"{reach.people} people or organizations"
    return f"{leads} to it, for {people}."


def _line(facts: DocumentFacts, explanation: Explanation) -> Line | None:
    return next((line for line in explanation.lines if line.document == facts.id), None)


def _still_held(facts: DocumentFacts, former: Explanation) -> bool:
    """Tell whether Clerk still holds what the document gave somebody."""
    return former.change is not None and former.marker is not None and facts.id in former.marker.sources


def _arrived(facts: DocumentFacts, subject: Explanation) -> float | None:
    """Return when Clerk came to hold this revision: by the ledger, by our marker, or when a run found nothing to do."""
    published = facts.published or 0.0
    written = [e.settled_at for e in _applied(subject) if facts.id in e.documents and e.settled_at]
    since = [settled for settled in written if settled >= published]
    if since:
        return min(since)
    marked = _epoch(subject.marker.at) if subject.marker and facts.id in subject.marker.sources else None
    if marked is not None and marked >= published:
        return marked
    work = subject.facts.work
    return work.settled if work is not None and work.settled and work.settled >= published else None


def _left(facts: DocumentFacts, subjects: Iterable[Explanation]) -> float | None:
    """Return when what the document gave had left Clerk, by the ledger."""
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
    return f"Published {at(facts.published, facts.now)} UTC, " if facts.published else "It is published, "


def _arrival(facts: DocumentFacts, in_clerk: float | None) -> str:
    if facts.published is None or in_clerk is None:
        return f"{_published(facts)}and nothing of it has still to be written."
    by = in_clerk + SESSION_TOKEN_SECONDS
    now = facts.now
    return f"Published {at(facts.published, now)} → in Clerk {at(in_clerk, now)} → in every session {_by(by, now)}."


def _by(moment_: float, now: float) -> str:
    return f"{'by' if moment_ > now else 'since'} {at(moment_, now)} UTC"


def _epoch(text: str) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None

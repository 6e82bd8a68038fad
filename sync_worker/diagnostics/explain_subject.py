"""Why a subject has the access it has: what is published, what of it counts, what Clerk holds, and a verdict.

Why it exists: "she has paid and cannot get in" must be answered at once, in one plain sentence with a next step. This
is pure: it is given what was read, and judges it by the same policy and the same diff as a run, so that it cannot tell
another story. Reading is `inquiry`; what became of one document is `document`; putting it into JSON is `render`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from sync_worker.diagnostics.issues import next_step
from sync_worker.domain import diff as changes
from sync_worker.domain import merge as policy
from sync_worker.domain.changeset import Drift, classify, describe
from sync_worker.domain.entitlements import Access, ChangeKind, Entitlement, Refusal
from sync_worker.errors import AccessTooLarge, NoSuchSubject
from sync_worker.formatting import ago, at
from sync_worker.storage.ledger import State as LedgerState
from sync_worker.sync.address_resolution import AMBIGUOUS_REASON, PENDING_REASON

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sync_worker.domain.entitlements import Change, Layout, Marker, Observed, Value
    from sync_worker.domain.subjects import Subject
    from sync_worker.domain.timings import Timings
    from sync_worker.storage.ledger import Entry
    from sync_worker.storage.queue_admin import Row

NOT_TOLD = "no webhook told of it"


class State(StrEnum):
    """What became of a subject, or of a document."""

    SYNCED = "synced"
    LATE = "late"
    PENDING = "pending"
    REFUSED = "refused"
    HELD = "held"
    EXPIRED = "expired"
    DELETED = "deleted"
    UNKNOWN = "unknown"


class Standing(StrEnum):
    """How one published row stands."""

    COUNTS = "counts"
    REFUSED = "refused"
    AMBIGUOUS_ADDRESS = "shared"
    PENDING = "pending"
    NOT_YET = "not yet"
    OVER = "over"
    INACTIVE = "inactive"


NO_ACCESS = {
    Standing.REFUSED: State.REFUSED,
    Standing.AMBIGUOUS_ADDRESS: State.REFUSED,
    Standing.PENDING: State.PENDING,
    Standing.NOT_YET: State.PENDING,
    Standing.OVER: State.EXPIRED,
    Standing.INACTIVE: State.EXPIRED,
}
"""What a subject's state is when none of its rows counts, the first that applies."""

ADVICE = {
    Standing.REFUSED: "Correct the field that is named, in Sanity, and publish.",
    Standing.AMBIGUOUS_ADDRESS: next_step("ambiguous_address", ""),
    Standing.PENDING: next_step("pending_sign_up", ""),
    Standing.NOT_YET: "Nothing to do: access begins by itself.",
    Standing.OVER: "To give the access again, publish it with a later endsAt.",
    Standing.INACTIVE: 'To give the access again, publish it with the status "active", or without one.',
}


@dataclass(frozen=True, slots=True)
class Published:
    """One row as it was read for the subject. `at` is when it was published (epoch seconds), if that is known."""

    document: str
    revision: str
    at: float | None
    read: Entitlement | Refusal


@dataclass(frozen=True, slots=True)
class Facts:
    """All that was read about one subject. Times are epoch seconds.

    `history` is the ledger's, the newest first; `held` are the changesets that it stands on; `holders` are those in
    Clerk who have the address, if the subject is one; `heartbeat` is when a worker last gave a sign of life. With a
    `problem` the rest is incomplete.
    """

    subject: Subject
    now: float
    layout: Layout
    rows: tuple[Published, ...] = ()
    observed: Observed | None = None
    work: Row | None = None
    history: tuple[Entry, ...] = ()
    held: tuple[str, ...] = ()
    holders: tuple[Subject, ...] = ()
    heartbeat: float | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """One published row, and whether it counts."""

    document: str
    revision: str
    published: float | None
    standing: Standing
    reason: str
    values: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome in one sentence, and what to do about it."""

    state: State
    headline: str
    next_step: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything that decides one subject's access. `change` is what has yet to be written, `drift` why it differs."""

    facts: Facts
    verdict: Verdict
    lines: tuple[Line, ...]
    access: Access
    change: Change | None = None
    drift: Drift | None = None

    @property
    def subject(self) -> Subject:
        """Whom it is about."""
        return self.facts.subject

    @property
    def applied(self) -> Entry | None:
        """What was last written to Clerk."""
        return next((e for e in self.facts.history if e.state is LedgerState.APPLIED), None)

    @property
    def held_in_clerk(self) -> Mapping[str, object]:
        """The owned keys that Clerk holds."""
        return changes.managed_values(self.facts.observed, self.facts.layout) if self.facts.observed else {}

    @property
    def marker(self) -> Marker | None:
        """Our note in Clerk."""
        return self.facts.observed.marker if self.facts.observed else None


def explain(facts: Facts, timings: Timings) -> Explanation:
    """Judge what was read about one subject."""
    now = datetime.fromtimestamp(facts.now, UTC)
    rows = [row.read for row in facts.rows]
    access = policy.merge(
        [row for row in rows if isinstance(row, Entitlement)],
        facts.layout.fields,
        now,
        [row for row in rows if isinstance(row, Refusal)],
    )
    lines = tuple(_line(row, access, facts, now) for row in facts.rows)
    if facts.problem:
        again = "Try again in a moment. Nothing is taken away while a service cannot be read."
        return Explanation(facts, Verdict(State.UNKNOWN, f"Not known: {facts.problem}", again), lines, access)
    if facts.subject.is_address:
        return Explanation(facts, _of_address(facts, lines), lines, Access(refusals=access.refusals))
    if facts.observed is None:
        return Explanation(facts, _of_nobody(facts, access, lines), lines, access)
    try:
        change = changes.diff(access, facts.observed, facts.layout, at=now.isoformat(timespec="seconds"))
    except AccessTooLarge as error:
        return Explanation(facts, Verdict(State.REFUSED, str(error), error.next_step()), lines, access)
    if change.kind is ChangeKind.NONE:
        return Explanation(facts, _in_step(facts, access, lines), lines, access)
    drift = classify(change, facts.observed, facts.layout).drift
    return Explanation(facts, _differing(facts, timings, change, drift), lines, access, change, drift)


def _line(row: Published, access: Access, facts: Facts, now: datetime) -> Line:
    standing, reason = _standing(row, access, facts, now)
    values = row.read.values if isinstance(row.read, Entitlement) else {}
    return Line(row.document, row.revision, row.at, standing, reason, values)


def _standing(row: Published, access: Access, facts: Facts, now: datetime) -> tuple[Standing, str]:
    refused = [f"{r.field}: {r.reason}" for r in access.refusals if r.document == row.document]
    if refused:
        shared = isinstance(row.read, Refusal) and row.read.reason == AMBIGUOUS_REASON
        return Standing.AMBIGUOUS_ADDRESS if shared else Standing.REFUSED, "; ".join(refused)
    read = row.read
    assert isinstance(read, Entitlement)  # noqa: S101 - each refusal is among access.refusals
    if read.status not in (None, "active"):
        return Standing.INACTIVE, f"its status is {read.status!r}"
    if read.ends_at is not None and read.ends_at <= now:
        return Standing.OVER, f"it ended {_moment(read.ends_at, facts.now)}"
    if facts.subject.is_address:
        return Standing.PENDING, PENDING_REASON
    if not policy.is_active(read, now):
        assert read.starts_at is not None  # noqa: S101 - nothing else is left that keeps it from counting
        return Standing.NOT_YET, f"it begins {_moment(read.starts_at, facts.now)}"
    return Standing.COUNTS, f"until {_moment(read.ends_at, facts.now)}" if read.ends_at is not None else ""


def _of_address(facts: Facts, lines: tuple[Line, ...]) -> Verdict:
    """Judge an address that is not one person's."""
    if facts.holders:
        people = ", ".join(map(str, facts.holders))
        return Verdict(
            State.REFUSED, f"Several people have this address: {people}.", ADVICE[Standing.AMBIGUOUS_ADDRESS]
        )
    if not lines:
        return Verdict(
            State.SYNCED,
            "Nobody in Clerk has this address, and nothing published names it.",
            "If somebody should have access, publish an entitlement that names them.",
        )
    return _without_access(lines)


def _of_nobody(facts: Facts, access: Access, lines: tuple[Line, ...]) -> Verdict:
    """Judge a subject that Clerk does not know."""
    if access.sources or access.next_transition is not None:
        documents = ", ".join(line.document for line in lines)
        headline = f"There is nobody by this id in Clerk, so {documents} gives nobody access."
        return Verdict(State.REFUSED, headline, next_step(NoSuchSubject().code, str(facts.subject)))
    return Verdict(State.SYNCED, "There is nobody by this id in Clerk, and nothing published entitles it.")


def _in_step(facts: Facts, access: Access, lines: tuple[Line, ...]) -> Verdict:
    """Judge a subject for which nothing has to be written."""
    if access.sources:
        headline = f"Clerk holds what is published: {_told(access.values)}."
        wrong = [line for line in lines if NO_ACCESS.get(line.standing) is State.REFUSED]
        if not wrong:
            return Verdict(State.SYNCED, headline)
        headline += f" {wrong[0].document} does not count, because {wrong[0].reason}."
        return Verdict(State.SYNCED, headline, ADVICE[wrong[0].standing])
    if lines:
        return _without_access(lines)
    assert facts.observed is not None  # noqa: S101 - told apart by the caller
    held = changes.managed_values(facts.observed, facts.layout)
    if not held:
        return Verdict(State.SYNCED, "Nothing published names it, and Clerk holds no access of ours.")
    whose = "the baseline" if facts.observed.marker else "not ours, so it is left alone"
    return Verdict(State.SYNCED, f"Nothing published names it. Clerk holds {_told(held)}: {whose}.")


def _without_access(lines: tuple[Line, ...]) -> Verdict:
    """Judge a subject none of whose rows counts, by the row that comes closest to it."""
    closest = min(lines, key=lambda line: list(NO_ACCESS).index(line.standing))
    headline = f"No access: {closest.document} does not count, because {closest.reason}."
    return Verdict(NO_ACCESS[closest.standing], headline, ADVICE[closest.standing])


def _differing(facts: Facts, timings: Timings, change: Change, drift: Drift) -> Verdict:
    """Judge a subject that Clerk does not hold as published."""
    what = f"Clerk holds {_told(change.before)}, published is {_told(change.after)}"
    key, work = str(facts.subject), facts.work
    if change.kind is ChangeKind.REVOKE and facts.held:
        headline = f"Too many would lose access at once, so its revocation is held. {what}."
        return Verdict(State.HELD, headline, f"Read the list, then `sync-worker approve {facts.held[0]}`.")
    if work is not None and work.dead:
        return Verdict(
            State.REFUSED, f"Given up after {work.attempts} attempts: {work.detail}", next_step(work.code, key)
        )
    if work is None or not waits(work, facts.now):
        foreign = "what is there is not ours" if change.before else NOT_TOLD
        why = {Drift.EDITED: "somebody edited it in Clerk", Drift.UNMANAGED: foreign}.get(drift, NOT_TOLD)
        return Verdict(State.LATE, f"{what}: {why}.", f"`sync-worker sync {key}` makes it right now.")
    if facts.heartbeat is None or facts.now - facts.heartbeat > timings.worker_gone_after:
        since = "" if facts.heartbeat is None else f" since {at(facts.heartbeat, facts.now)} UTC"
        return Verdict(
            State.LATE,
            f"{what}, and no worker is running{since}.",
            "Start `sync-worker serve` or `sync-worker worker`.",
        )
    return Verdict(State.LATE, f"{what}; {_waiting(work, facts.now)}.", "Nothing to do, unless it lasts.")


def waits(work: Row, now: float) -> bool:
    """Tell whether a row waits for a run now; one that waits for a window to open or close does not."""
    return work.pending and (work.since is None or work.since <= now)


def _waiting(work: Row, now: float) -> str:
    """Say how a row that is alive waits."""
    if work.owner is not None:
        return "a worker is at it"
    again = "now" if work.due is None or work.due <= now else f"in {ago(work.due - now)}"
    if work.attempts:
        return f"tried {work.attempts} times, again {again}: {work.detail}"
    return f"its turn comes {again}"


def _told(values: Mapping[str, object]) -> str:
    """Put owned keys into a sentence."""
    filled = {name: value for name, value in values.items() if value not in ([], ())}
    return describe(filled or values) if values else "nothing"


def _moment(moment: datetime, now: float) -> str:
    return f"{at(moment.timestamp(), now)} UTC"

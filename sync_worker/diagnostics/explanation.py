"""The vocabulary of explanations: what was read about a subject, how each row is judged, and the verdict."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from sync_worker.diagnostics.issues import next_step
from sync_worker.domain.diff import values_in_place
from sync_worker.domain.ownership import NOTHING_WRITTEN, managed, same_json
from sync_worker.storage.ledger import State as LedgerState
from sync_worker.sync.address_resolution import AMBIGUOUS_ADDRESS, PENDING, REFUSED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sync_worker.clerk.billing import Subscription
    from sync_worker.domain.changeset import Drift
    from sync_worker.domain.entitlements import (
        Access,
        Change,
        Entitlement,
        Layout,
        Marker,
        Observed,
        Refusal,
        Unresolved,
        Value,
    )
    from sync_worker.domain.ownership import LastWrites
    from sync_worker.domain.subjects import Subject
    from sync_worker.storage.ledger import Entry
    from sync_worker.storage.queue_admin import Row


class SyncState(StrEnum):
    """Where a subject or a document is on its way to Clerk."""

    SYNCED = "synced"
    LATE = "late"
    PENDING = "pending"
    REFUSED = "refused"
    HELD = "held"
    EXPIRED = "expired"
    INACTIVE = "inactive"
    DELETED = "deleted"
    UNKNOWN = "unknown"


class RowStatus(StrEnum):
    """Whether one published row grants access now, or why it does not."""

    ACTIVE = "active"
    REFUSED = "refused"
    AMBIGUOUS_ADDRESS = "ambiguous"
    PENDING = "pending"
    SCHEDULED = "scheduled"
    ENDED = "ended"
    INACTIVE = "inactive"


NO_ACCESS = {
    RowStatus.REFUSED: SyncState.REFUSED,
    RowStatus.AMBIGUOUS_ADDRESS: SyncState.REFUSED,
    RowStatus.PENDING: SyncState.PENDING,
    RowStatus.SCHEDULED: SyncState.PENDING,
    RowStatus.ENDED: SyncState.EXPIRED,
    RowStatus.INACTIVE: SyncState.INACTIVE,
}
"""The state of a subject without any active row. The first status that occurs decides."""

ADVICE = {
    RowStatus.REFUSED: next_step(REFUSED),
    RowStatus.AMBIGUOUS_ADDRESS: next_step(AMBIGUOUS_ADDRESS),
    RowStatus.PENDING: next_step(PENDING),
    RowStatus.SCHEDULED: "Nothing to do: access starts on its own.",
    RowStatus.ENDED: "To restore access, publish it with a later endsAt.",
    RowStatus.INACTIVE: 'To restore access, publish it with the status "active" or without a status.',
}


@dataclass(frozen=True, slots=True)
class PublishedRow:
    """One row as read for the subject. `published` is in epoch seconds, None when Sanity does not say."""

    document: str
    revision: str
    published: float | None
    content: Entitlement | Refusal


@dataclass(frozen=True, slots=True)
class SubjectFacts:
    """Everything read about one subject. Times are epoch seconds.

    `history` is the ledger's, newest first; `written` is what it proves to be ours, and `taken_over` are its entries in
    which a key of the app became ours. `held` are the ids of held changesets that include the subject. `owners`
    are the Clerk users who have the address, if the subject is one; `uncounted` are those for whom it does not count,
    with the reason. `heartbeat` is when a worker was last seen, `measured` since when a real token has shown what Clerk
    has, and `visible` how many entitlements there are. With a `problem` the rest is incomplete; `advice` is for one
    that stays until somebody corrects something.
    """

    subject: Subject
    now: float
    layout: Layout
    rows: tuple[PublishedRow, ...] = ()
    observed: Observed | None = None
    work: Row | None = None
    history: tuple[Entry, ...] = ()
    written: LastWrites = NOTHING_WRITTEN
    taken_over: tuple[Entry, ...] = ()
    held: tuple[str, ...] = ()
    owners: tuple[Subject, ...] = ()
    uncounted: Mapping[Subject, str] = field(default_factory=dict)
    heartbeat: float | None = None
    measured: float | None = None
    visible: int | None = None
    problem: str = ""
    advice: str = ""


@dataclass(frozen=True, slots=True)
class ExplainedRow:
    """One published row with its status, the reason for it, and the values it grants."""

    document: str
    revision: str
    published: float | None
    status: RowStatus
    reason: str
    values: Mapping[str, Value] = field(default_factory=dict)
    unresolved: Unresolved | None = None


@dataclass(frozen=True, slots=True)
class ExplainedKey:
    """One key that Clerk holds: whether it is managed, since when (epoch seconds), and by which documents.

    `former` is what the app had in it before it was taken over.
    """

    name: str
    value: object
    managed: bool
    since: float | None = None
    documents: tuple[str, ...] = ()
    former: object = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome in one sentence, and what to do about it."""

    state: SyncState
    headline: str
    next_step: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """What decides one subject's access. `change` is what is still to be written, `drift` why it differs.

    `billing` is the subscription in Clerk Billing, if there is one.
    """

    facts: SubjectFacts
    verdict: Verdict
    rows: tuple[ExplainedRow, ...]
    access: Access
    change: Change | None = None
    drift: Drift | None = None
    billing: Subscription | None = None

    @property
    def subject(self) -> Subject:
        """The subject explained; for an address with one owner, that owner."""
        return self.facts.subject

    @property
    def applied(self) -> Entry | None:
        """The change last written to Clerk."""
        return next((e for e in self.facts.history if e.state is LedgerState.APPLIED), None)

    @property
    def in_token(self) -> float | None:
        """Since when a real token has shown what Clerk has (epoch seconds), if measured since the last write."""
        measured, written = self.facts.measured, (self.applied.settled_at if self.applied else None) or 0.0
        return measured if measured is not None and measured >= written else None

    @property
    def clerk_values(self) -> Mapping[str, object]:
        """What Clerk holds under our keys, managed or not."""
        return values_in_place(self.facts.observed, self.facts.layout) if self.facts.observed else {}

    @property
    def marker(self) -> Marker | None:
        """Our marker in Clerk."""
        return managed(self.facts.observed, self.facts.layout).marker if self.facts.observed else None

    @property
    def keys(self) -> tuple[ExplainedKey, ...]:
        """Each key that Clerk holds in our places: whose it is, and since when."""
        if self.facts.observed is None:
            return ()
        own = {slot.name for slot in managed(self.facts.observed, self.facts.layout, self.facts.written).slots}
        return tuple(self._key(name, value, is_managed=name in own) for name, value in self.clerk_values.items())

    def _key(self, name: str, value: object, *, is_managed: bool) -> ExplainedKey:
        if not is_managed:
            return ExplainedKey(name, value, managed=False)
        applied = [e for e in self.facts.history if e.state is LedgerState.APPLIED]
        set_by = (e for e in applied if name in e.taken_over or not same_json(e.before.get(name), e.after.get(name)))
        entry = next(set_by, None)
        former = next((e.taken_over[name] for e in self.facts.taken_over if name in e.taken_over), None)
        documents = self._sources(name, value) or (
            tuple(entry.documents) if entry else self.marker.documents if self.marker else ()
        )
        return ExplainedKey(name, value, True, entry.settled_at if entry else None, documents, former)

    def _sources(self, name: str, value: object) -> tuple[str, ...]:
        """Return the active rows that give a key this value, or members of it."""
        members = value if isinstance(value, list) else [value]
        return tuple(
            row.document
            for row in self.rows
            if row.status is RowStatus.ACTIVE and any(member in members for member in _members(row.values.get(name)))
        )


def _members(value: Value | None) -> tuple[object, ...]:
    return value if isinstance(value, tuple) else (value,)


def approve_step(changeset: str) -> str:
    """Return what to do about a held changeset."""
    return f"Review the list, then run `sync-worker approve {changeset}` to apply it."


def is_waiting(work: Row, now: float) -> bool:
    """Return whether a row waits for a run now, rather than for an access window to open or close."""
    return work.pending and (work.enqueued_at is None or work.enqueued_at <= now)

"""One subject's turn: why it is due, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sync_worker.domain.ownership import NO_ADOPTION
from sync_worker.domain.revisions import deletion_of
from sync_worker.domain.work import NO_CAUSE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from sync_worker.domain.entitlements import Access, Change
    from sync_worker.domain.lease import Lease
    from sync_worker.domain.ownership import Adoption
    from sync_worker.domain.revisions import ExpectedRevision
    from sync_worker.domain.subjects import Subject
    from sync_worker.domain.work import Cause
    from sync_worker.errors import SyncWorkerError


@dataclass(frozen=True, slots=True)
class Due:
    """A subject to reconcile, and why.

    `since` is when the oldest item was enqueued that this run serves, `transition` when time alone was to change the
    subject (both in epoch seconds); `delivery` is the id of the newest item's webhook. An operator said what to adopt,
    `approved` a list by its id, or `accepts_empty`: that documents which are proven missing may end access although no
    event reported it.
    """

    subject: Subject
    lease: Lease
    expected_revisions: tuple[ExpectedRevision, ...] = ()
    cause: Cause = NO_CAUSE
    since: float | None = None
    adoption: Adoption = NO_ADOPTION
    approved: str = ""
    accepts_empty: bool = False
    delivery: str = ""
    transition: float | None = None
    lane: int = 0

    @property
    def reported(self) -> list[ExpectedRevision]:
        """What events reported since a run was last finished; the rest of what is expected was served before."""
        return [expected for expected in self.expected_revisions if not expected.served]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one subject: a change (perhaps none was needed) with its access, or an error.

    `removed_sources` are documents that counted and are no longer for the subject. They are known only where
    entitlements name people by address: such a document may be another person's now. `recheck_at` is when to look again
    because a write may land late: an earlier one, or an attempt of this one that went `unanswered`. `written` is when
    Clerk answered the PATCH.
    `held` is the list on which the guard holds what the change would take away. `lapsed` are the documents whose window
    has ended, with the time (epoch seconds).
    """

    due: Due
    access: Access | None = None
    change: Change | None = None
    error: SyncWorkerError | None = None
    removed_sources: tuple[str, ...] = ()
    recheck_at: datetime | None = None
    written: datetime | None = None
    unanswered: bool = False
    held: str = ""
    lapsed: Mapping[str, float] = field(default_factory=dict)

    @property
    def writes(self) -> bool:
        """Whether a change is to be sent to Clerk, or was, perhaps without success."""
        return self.change is not None and self.change.is_needed

    @property
    def removes(self) -> bool:
        """Whether the change to be sent takes something away."""
        return self.change is not None and bool(self.change.losses)

    @property
    def transition_at(self) -> float | None:
        """When the clock alone changes the subject (epoch seconds); None if never."""
        transition = self.access.next_transition if self.access else None
        return transition.timestamp() if transition is not None else None

    @property
    def next_due(self) -> float | None:
        """When the subject may differ without any event (epoch seconds); None if never."""
        recheck = self.recheck_at.timestamp() if self.recheck_at is not None else None
        return min((at for at in (self.transition_at, recheck) if at is not None), default=None)

    @property
    def queue_seconds(self) -> float | None:
        """Seconds from the oldest item that the write serves to Clerk's answer; None when nothing was written."""
        if self.written is None or self.due.since is None:
            return None
        return max(0.0, self.written.timestamp() - self.due.since)

    @property
    def publish_latency_seconds(self) -> float | None:
        """Seconds from the oldest publish that the write serves to Clerk's answer; None when it serves none.

        A publish happened at its `_updatedAt`, or before it was enqueued where that is older: of two publishes of a
        document only the later one's time is kept. A delete has no time of its own, so it counts from the item.
        """
        if self.queue_seconds is None or self.written is None or not self.due.reported:
            return None
        updates = (e.updated_at for e in self.due.reported if deletion_of(e) is None)
        published = (at / 1_000_000 for at in updates if at is not None)
        return max([self.queue_seconds, *(self.written.timestamp() - at for at in published)])

"""What goes into the work queue and comes out of it: items, claims, and how a run of a claim ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sync_worker.domain.work import NO_CAUSE, Cause, WorkKind

if TYPE_CHECKING:
    from sync_worker.domain.revisions import ExpectedRevision

SCHEDULED_LANE = 1
"""Where a subject waits for a window to open or close: a course that opens for thousands must not hold up a publish."""

FANOUT = "document:"
"""The prefix of keys of documents."""

MEMBERS = "members:"
"""The prefix of keys of users whose memberships are to be looked up."""

ADDRESSES = ("email:", "external:")
"""The prefixes of keys of addresses. They are personal data, so a row goes as soon as it is done."""


@dataclass(frozen=True, slots=True)
class WorkItem:
    """A subject that may be out of sync, now or at `visible_at` (epoch seconds).

    `delivery` is the id of the webhook behind it. `enqueued_at` is when the first item of the chain was enqueued, where
    this one follows from an earlier one. `transition_at` is when the clock alone will change the subject (epoch
    seconds).
    """

    key: str
    lane: int = 0
    visible_at: float | None = None
    expected: ExpectedRevision | None = None
    cause: Cause = NO_CAUSE
    delivery: str = ""
    enqueued_at: float | None = None
    transition_at: float | None = None

    @property
    def kind(self) -> WorkKind:
        """What the key names."""
        if self.key.startswith(FANOUT):
            return WorkKind.DOCUMENT
        if self.key.startswith(MEMBERS):
            return WorkKind.MEMBERS
        return WorkKind.ADDRESS if self.key.startswith(ADDRESSES) else WorkKind.SUBJECT


@dataclass(frozen=True, slots=True)
class Claim:
    """A row that this process may work on until `lease_until` (epoch seconds, clock of the database).

    `attempts` counts the failed runs before. `enqueued_at` is when the oldest item was enqueued that no finished run
    has served, or when it became due if that is later. `error_code` is what the last run noted. `transition_at` is when
    the clock alone changes the subject, by the last finished run (epoch seconds).
    """

    key: str
    kind: WorkKind
    lane: int
    lease_token: str
    generation: int
    attempts: int
    expected_revisions: tuple[ExpectedRevision, ...]
    cause: Cause
    error_code: str
    lease_until: float
    enqueued_at: float
    delivery: str = ""
    transition_at: float | None = None


@dataclass(frozen=True, slots=True)
class Completed:
    """The run finished. `wrote` is set when Clerk counted a write to the subject.

    It is due again at `next_due`, in `lane`; at `transition_at`, which is not earlier, the clock alone changes it.
    `error_code` and `error_detail` stay visible as a note, such as rows that were refused.
    """

    claim: Claim
    next_due: float | None = None
    wrote: bool = False
    error_code: str = ""
    error_detail: str = ""
    lane: int = SCHEDULED_LANE
    transition_at: float | None = None


@dataclass(frozen=True, slots=True)
class Retry:
    """The run failed and is due again in `delay` seconds. `wrote` is set when the write may have reached Clerk.

    `not_before` is the service's Retry-After in seconds; enqueueing the subject does not shorten it.
    """

    claim: Claim
    error_code: str
    error_detail: str
    delay: float
    wrote: bool = False
    not_before: float = 0.0


@dataclass(frozen=True, slots=True)
class DeadLettered:
    """The run failed for good: kept and listed, but not run until it is enqueued or retried, or until `next_due`."""

    claim: Claim
    error_code: str
    error_detail: str
    next_due: float | None = None
    wrote: bool = False


@dataclass(frozen=True, slots=True)
class SetAside:
    """The run did what it may, and the rest waits for a person. It is kept and listed like what failed.

    What enqueued it is served, so none of that speaks for the rest later. `next_due` and `transition_at` are those of
    `Completed`.
    """

    claim: Claim
    error_code: str
    error_detail: str
    next_due: float | None = None
    wrote: bool = False
    transition_at: float | None = None


@dataclass(frozen=True, slots=True)
class Released:
    """The run did not begin, or may begin again: given back unchanged, due now."""

    claim: Claim


Completion = Completed | Retry | DeadLettered | SetAside | Released

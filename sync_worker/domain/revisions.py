"""The revisions that events reported of documents, and which a read must reflect. Pure.

Events arrive late, twice and in any order. `merge` keeps of two about one document what the later one says.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import IntEnum

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Deletion(IntEnum):
    """What a delete means for the subject that expects it. Of two reports of the same delete the higher one counts."""

    INDIRECT = 0
    """Reported for another subject: a read must reflect it, but it proves nothing about this one."""
    REPORTED = 1
    """Reported for this subject, and not handled by a finished run yet."""
    ACKNOWLEDGED = 2
    """Handled by a finished run. It is kept, because an older event that arrives late must not pass for a newer one."""


@dataclass(frozen=True, slots=True)
class Updated:
    """The document was published. `updated_at` is its `_updatedAt` in microseconds since the epoch, None if unknown."""

    document: str
    revision: str
    updated_at: int | None = None


@dataclass(frozen=True, slots=True)
class Deleted:
    """The document was deleted. `revision` and `updated_at` are those of its last revision: Sanity sends no others."""

    document: str
    revision: str
    updated_at: int | None = None
    deletion: Deletion = Deletion.REPORTED


@dataclass(frozen=True, slots=True)
class Ambiguous:
    """Several revisions have the same `updated_at`, or the revision is unknown: the document store has to decide.

    Revisions have no order. `deletion` is set if one of the events was a delete.
    """

    document: str
    updated_at: int | None = None
    deletion: Deletion | None = None


ExpectedRevision = Updated | Deleted | Ambiguous


def expected_revision(
    document: str, revision: str | None, updated_at: int | None, deletion: Deletion | None = None
) -> ExpectedRevision:
    """Return the expectation with these parts. Without a revision it is ambiguous."""
    if not revision:
        return Ambiguous(document, updated_at, deletion)
    if deletion is None:
        return Updated(document, revision, updated_at)
    return Deleted(document, revision, updated_at, deletion)


def revision_of(expected: ExpectedRevision) -> str | None:
    """Return the one revision that is expected, None if it is ambiguous."""
    return None if isinstance(expected, Ambiguous) else expected.revision


def deletion_of(expected: ExpectedRevision) -> Deletion | None:
    """Return what a delete means for the subject, None if there was none."""
    return None if isinstance(expected, Updated) else expected.deletion


def reports_delete(expected: ExpectedRevision) -> bool:
    """Return whether a delete was reported for the subject that no finished run has handled yet."""
    return deletion_of(expected) is Deletion.REPORTED


def indirect(expected: ExpectedRevision) -> ExpectedRevision:
    """Return what another subject has to expect: the same, but a delete proves nothing about that subject."""
    if deletion_of(expected) is None or isinstance(expected, Updated):
        return expected
    return replace(expected, deletion=Deletion.INDIRECT)


def merge(one: ExpectedRevision, other: ExpectedRevision) -> ExpectedRevision:
    """Return what two expectations of one document amount to, in either order.

    The later one counts; one without a time is the earlier. Two revisions of one moment are ambiguous. A delete counts
    beside any revision of its moment.
    """
    if _moment(one) != _moment(other):
        return max(one, other, key=_moment)
    same = revision_of(one) == revision_of(other) is not None
    deletions = {deletion for deletion in (deletion_of(one), deletion_of(other)) if deletion is not None}
    if not same and len(deletions) > 1:
        deletions.discard(Deletion.ACKNOWLEDGED)  # it was the other delete that has been handled
    return expected_revision(
        one.document, revision_of(one) if same else None, one.updated_at, max(deletions, default=None)
    )


def microseconds(text: str | None) -> int | None:
    """Read an `_updatedAt` (RFC 3339) as microseconds since the epoch; None if it is missing or cannot be read."""
    try:
        read = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return ((read if read.tzinfo else read.replace(tzinfo=UTC)) - _EPOCH) // timedelta(microseconds=1)


def _moment(expected: ExpectedRevision) -> tuple[bool, int]:
    return expected.updated_at is not None, expected.updated_at or 0

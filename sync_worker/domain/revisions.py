"""The revisions that events reported of documents, and which a read must reflect. Pure.

Events arrive late, twice and in any order. `merge` keeps of two about one document what the later one says. What a
finished run has served is kept for a while: an older event that arrives late must not pass for a newer one, and a read
that falls behind must not bring access back.
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
    """Reported for this subject."""


@dataclass(frozen=True, slots=True)
class Updated:
    """The document was published. `updated_at` is its `_updatedAt` in microseconds since the epoch, None if unknown.

    `served` is set when a finished run has reflected it; so for the other two.
    """

    document: str
    revision: str
    updated_at: int | None = None
    served: bool = False


@dataclass(frozen=True, slots=True)
class Deleted:
    """The document was deleted. `revision` and `updated_at` are those of its last revision: Sanity sends no others."""

    document: str
    revision: str
    updated_at: int | None = None
    deletion: Deletion = Deletion.REPORTED
    served: bool = False


@dataclass(frozen=True, slots=True)
class Ambiguous:
    """Several revisions have the same `updated_at`, or the revision is unknown: the document store has to decide.

    Revisions have no order. `deletion` is set if one of the events was a delete.
    """

    document: str
    updated_at: int | None = None
    deletion: Deletion | None = None
    served: bool = False


ExpectedRevision = Updated | Deleted | Ambiguous


def expected_revision(
    document: str,
    revision: str | None,
    updated_at: int | None,
    deletion: Deletion | None = None,
    *,
    served: bool = False,
) -> ExpectedRevision:
    """Return the expectation with these parts. Without a revision it is ambiguous."""
    if not revision:
        return Ambiguous(document, updated_at, deletion, served)
    if deletion is None:
        return Updated(document, revision, updated_at, served)
    return Deleted(document, revision, updated_at, deletion, served)


def revision_of(expected: ExpectedRevision) -> str | None:
    """Return the one revision that is expected, None if it is ambiguous."""
    return None if isinstance(expected, Ambiguous) else expected.revision


def deletion_of(expected: ExpectedRevision) -> Deletion | None:
    """Return what a delete means for the subject, None if there was none."""
    return None if isinstance(expected, Updated) else expected.deletion


def reports_delete(expected: ExpectedRevision) -> bool:
    """Return whether a delete was reported for the subject that no finished run has served yet."""
    return deletion_of(expected) is Deletion.REPORTED and not expected.served


def indirect(expected: ExpectedRevision) -> ExpectedRevision:
    """Return what another subject has to expect: the same, but a delete proves nothing about that subject."""
    if isinstance(expected, Updated) or expected.deletion is None:
        return replace(expected, served=False)
    return replace(expected, deletion=Deletion.INDIRECT, served=False)


def merge(one: ExpectedRevision, other: ExpectedRevision) -> ExpectedRevision:
    """Return what two expectations of one document amount to, in either order.

    The later one counts; one without a time is the earlier, but may be news where the other is served. Two revisions of
    one moment are ambiguous. A delete counts beside any revision of its moment.
    """
    same = revision_of(one) == revision_of(other) is not None
    if _moment(one) != _moment(other):
        earlier, later = sorted((one, other), key=_moment)
        is_known = same and _weight(earlier) <= _weight(later)
        if later.served and not earlier.served and earlier.updated_at is None and not is_known:
            return Ambiguous(one.document, later.updated_at, deletion_of(earlier))
        return later
    if same:
        weight = max(_weight(one), _weight(other))
        served = any(expected.served for expected in (one, other) if _weight(expected) == weight)
    else:
        served = one.served and other.served
        # A delete that was served is no news beside another revision of its moment.
        one, other = (indirect(e) if e.served and not served else e for e in (one, other))
        weight = max(_weight(one), _weight(other))
    deletion = Deletion(weight) if weight >= 0 else None
    return expected_revision(one.document, revision_of(one) if same else None, one.updated_at, deletion, served=served)


def microseconds(text: str | None) -> int | None:
    """Read an `_updatedAt` (RFC 3339) as microseconds since the epoch; None if it is missing or cannot be read."""
    try:
        read = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return ((read if read.tzinfo else read.replace(tzinfo=UTC)) - _EPOCH) // timedelta(microseconds=1)


def _moment(expected: ExpectedRevision) -> tuple[bool, int]:
    return expected.updated_at is not None, expected.updated_at or 0


def _weight(expected: ExpectedRevision) -> int:
    """Return how much the expectation says of a delete; -1 for an update."""
    deletion = deletion_of(expected)
    return -1 if deletion is None else deletion

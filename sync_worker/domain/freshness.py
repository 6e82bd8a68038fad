"""Whether a read reflects what an event reported. Pure.

Sanity sends webhooks before its query index has caught up, so a read right after one may be old. A read is used for a
subject only when it reflects all revisions that are expected of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sync_worker.domain.entitlements import ExpectedRevision

_LONG_AGO = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class DocumentRevision:
    """One document as a read showed it: its `_rev` and `_updatedAt`."""

    revision: str
    updated_at: str


@dataclass(frozen=True, slots=True)
class Stored:
    """What the document store says: `documents` exist, `missing` are proven not to; in neither: not readable."""

    documents: Mapping[str, DocumentRevision]
    missing: frozenset[str]


def reflects(revisions: Mapping[str, DocumentRevision], expected: ExpectedRevision) -> bool:
    """Return whether a query shows the expected revision, a later one, or absence after a delete.

    Revisions have no order; `_updatedAt` has one, but in places only a resolution of a second. Of two revisions in one
    second neither proves the other, so the document store has to decide. An expectation without a revision stands for
    such two.
    """
    seen = revisions.get(expected.document)
    if seen is None:
        return expected.deleted and bool(expected.revision)
    published = moment(expected.updated_at)
    later = published > _LONG_AGO and moment(seen.updated_at) > published
    return later or (seen.revision == expected.revision and not expected.deleted)


def is_ambiguous(revisions: Mapping[str, DocumentRevision], expected: ExpectedRevision) -> bool:
    """Return whether the document store has to decide: the query shows another revision of the same moment."""
    seen = revisions.get(expected.document)
    if not expected.revision:
        return True
    return seen is not None and seen.revision != expected.revision and seen.updated_at == expected.updated_at


def matches_store(revisions: Mapping[str, DocumentRevision], stored: Stored, document: str) -> bool:
    """Return whether a query shows `document` as the document store has it, which is never behind."""
    seen, truth = revisions.get(document), stored.documents.get(document)
    if truth is None:
        return seen is None and document in stored.missing
    return seen is not None and seen.revision == truth.revision


def moment(text: str) -> datetime:
    """Read an `_updatedAt`. An unreadable one is long ago, so that it proves nothing."""
    try:
        read = datetime.fromisoformat(text)
    except ValueError:
        return _LONG_AGO
    return read if read.tzinfo else read.replace(tzinfo=UTC)

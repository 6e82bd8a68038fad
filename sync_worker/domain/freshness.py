"""Whether a read reflects what an event reported. Pure.

Sanity sends webhooks before its query index has caught up, so a read right after one may be old. A read is used for a
subject only when it reflects all revisions that are expected of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sync_worker.domain.revisions import Ambiguous, Deleted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sync_worker.domain.revisions import ExpectedRevision


@dataclass(frozen=True, slots=True)
class DocumentRevision:
    """One document as a read showed it: its `_rev`, and its `_updatedAt` in microseconds since the epoch, if known.

    `type` is its `_type`, where the read shows it.
    """

    revision: str
    updated_at: int | None
    type: str = ""


@dataclass(frozen=True, slots=True)
class Stored:
    """What the document store says: `documents` exist, `missing` are proven not to; in neither: not readable."""

    documents: Mapping[str, DocumentRevision]
    missing: frozenset[str]


def reflects(revisions: Mapping[str, DocumentRevision], expected: ExpectedRevision) -> bool:
    """Return whether a query shows the expected revision, a later one, or absence after a delete.

    Of two revisions of one moment neither proves the other, so the document store has to decide.
    """
    if isinstance(expected, Ambiguous):
        return False
    seen = revisions.get(expected.document)
    if seen is None:
        return isinstance(expected, Deleted)
    if expected.updated_at is not None and seen.updated_at is not None and seen.updated_at > expected.updated_at:
        return True
    return seen.revision == expected.revision and not isinstance(expected, Deleted)


def is_ambiguous(revisions: Mapping[str, DocumentRevision], expected: ExpectedRevision) -> bool:
    """Return whether the document store has to decide: the query shows another revision of the same moment.

    It has to where the expected revision was served before, too: that may have been overtaken by a change which no
    event reported.
    """
    if isinstance(expected, Ambiguous) or expected.served:
        return True
    seen = revisions.get(expected.document)
    return seen is not None and seen.revision != expected.revision and seen.updated_at == expected.updated_at


def matches_store(revisions: Mapping[str, DocumentRevision], stored: Stored, document: str) -> bool:
    """Return whether a query shows `document` as the document store has it, which is never behind."""
    seen, truth = revisions.get(document), stored.documents.get(document)
    if truth is None:
        return seen is None and document in stored.missing
    return seen is not None and seen.revision == truth.revision

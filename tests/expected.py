"""Expected revisions with their time as text, as events bring it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sync_worker.domain.revisions import Deleted, Updated, microseconds

if TYPE_CHECKING:
    from sync_worker.sandbox.server import Sandbox


def updated(document: str, revision: str, updated_at: str = "") -> Updated:
    return Updated(document, revision, microseconds(updated_at))


def deleted(document: str, revision: str, updated_at: str = "") -> Deleted:
    return Deleted(document, revision, microseconds(updated_at))


def stored(box: Sandbox, document: str) -> Updated:
    """Return the revision of a document, as an event of its last change reports it."""
    found = box.lake.documents[document]
    return updated(document, found["_rev"], found["_updatedAt"])


def deletion_of(box: Sandbox, document: str) -> Deleted:
    """Return what the event of its delete will report."""
    last = stored(box, document)
    return Deleted(document, last.revision, last.updated_at)


async def delete(box: Sandbox, document: str) -> Deleted:
    """Delete a document, and return what the event reports."""
    reported = deletion_of(box, document)
    await box.lake.mutate([{"delete": {"id": document}}])
    return reported

"""Expected revisions with their time as text, as events bring it."""

from __future__ import annotations

from sync_worker.domain.revisions import Deleted, Updated, microseconds


def updated(document: str, revision: str, updated_at: str = "") -> Updated:
    return Updated(document, revision, microseconds(updated_at))


def deleted(document: str, revision: str, updated_at: str = "") -> Deleted:
    return Deleted(document, revision, microseconds(updated_at))

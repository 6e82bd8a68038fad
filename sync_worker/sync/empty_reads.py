"""What may be taken away while no entitlement is visible at all: only what a delete that happened explains.

A wrong token, dataset or type name looks the same as an empty dataset. The document store distinguishes them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sync_worker.domain.entitlements import ChangeKind
from sync_worker.domain.revisions import reports_delete
from sync_worker.errors import DatasetEmpty
from sync_worker.sync.outcome import Outcome

if TYPE_CHECKING:
    from sync_worker.domain.entitlements import Change
    from sync_worker.sanity.source import Snapshot, Source
    from sync_worker.sync.outcome import Due


async def prove_emptiness(source: Source, outcomes: list[Outcome], snapshot: Snapshot) -> list[Outcome]:
    """Return the outcomes of a read; where it shows no entitlement, only proven deletions take access away.

    The documents that gave the access must be missing in the store, and an event must have reported it, or an operator.
    """
    revoking = {o.due.subject: (o.due, o.change) for o in outcomes if o.change is not None and _revokes(o.change)}
    if snapshot.visible or not revoking:
        return outcomes
    needed = {subject: _proof_needed(due, change) for subject, (due, change) in revoking.items()}
    stored = await source.stored(set().union(*needed.values()))
    unproven = {
        subject
        for subject, (due, change) in revoking.items()
        if not _end_was_reported(due, change) or not needed[subject] <= stored.missing
    }
    if len(unproven) < len(revoking):
        # Entitlements may have become visible before the proof: then the first read missed some.
        second = await source.by_subject([*revoking], ())
        unproven |= revoking.keys() if second.visible else set()
    return [
        Outcome(o.due, error=DatasetEmpty(), recheck_at=o.recheck_at) if o.due.subject in unproven else o
        for o in outcomes
    ]


def _revokes(change: Change) -> bool:
    return change.kind is ChangeKind.REVOKE


def _end_was_reported(due: Due, change: Change) -> bool:
    """Return whether an event reported a deletion, or named a document that gives access, and so existed."""
    reported = (reports_delete(e) or e.document in change.former_documents for e in due.reported)
    return any(reported) or (due.accepts_empty and bool(change.former_documents))


def _proof_needed(due: Due, change: Change) -> set[str]:
    return {*change.former_documents, *(e.document for e in due.reported if reports_delete(e))}

"""Leases for tests, and who owns what in the work queue, as its table says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sync_worker.domain.lease import Lease
from tests.clock import CLOCK

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sync_worker.domain.clock import Clock
    from sync_worker.storage.queue import WorkQueue
    from sync_worker.storage.work_items import Claim

HELD = "SELECT key FROM work WHERE key = ? AND lease_token = ? AND visible_at > NOW()"


def lease_of(subject: str, *, seconds: float = 60.0, clock: Clock = CLOCK) -> Lease:
    """Return a lease of a subject that was never claimed, so that the ledger knows of none."""
    return Lease.begin(subject, "", clock, seconds)


async def holds(queue: WorkQueue, claims: Iterable[Claim]) -> set[str]:
    """Return the keys whose claims still own them, with time left on the lease."""
    requested = [(claim.key, claim.lease_token) for claim in claims]
    return {
        row[0] for row in await queue._db.read(lambda tx: [row for one in requested for row in tx.execute(HELD, one)])
    }

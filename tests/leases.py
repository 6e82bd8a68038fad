"""Who owns what in the work set, as its table says: no run has to ask that by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sync_worker.storage.queue import Claim, WorkQueue

HELD = "SELECT key FROM work WHERE key = ? AND lease_token = ? AND visible_at > NOW()"


async def holds(ws: WorkQueue, claims: Iterable[Claim]) -> set[str]:
    """Return the keys whose claims still own them, with time left on the lease."""
    asked = [(claim.key, claim.token) for claim in claims]
    return {row[0] for row in await ws._db.read(lambda tx: [row for one in asked for row in tx.execute(HELD, one)])}

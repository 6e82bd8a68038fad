"""Subjects of the queue's tests, and how they claim them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sync_worker.storage.queue import WorkQueue
    from sync_worker.storage.work_items import Claim


A, B, C = "user:user_a", "user:user_b", "user:user_c"
DOCUMENT = "document:plan-gold"
LEASE = 30.0


async def claim_one(queue: WorkQueue, lane: int = 0) -> Claim:
    (claim,) = await queue.claim(lane, 10, LEASE)
    return claim


async def keys(queue: WorkQueue, lane: int = 0, limit: int = 10) -> list[str]:
    return [claim.key for claim in await queue.claim(lane, limit, LEASE)]

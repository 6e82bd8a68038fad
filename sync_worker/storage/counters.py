"""Counts that all processes share: webhooks, calls, changes, and how long a publish took.

A scrape reaches one web process, which does not know what the workers did. So each process counts for itself and adds
what is new to the database every few seconds. A killed process loses the counts of its last seconds.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import Counter
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from sync_worker.errors import DatabaseUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from sync_worker.domain.timings import Timings
    from sync_worker.storage.queue_admin import QueueAdmin
    from sync_worker.transport import Call

PREFIX = "total:"
"""The prefix of their names in the table `state`: `total:calls:Clerk:200`."""
WEBHOOKS, CALLS, CHANGES = "webhooks", "calls", "changes"
MISSED_WEBHOOKS = "missed_webhooks"
"""The name of the counter of changes without a webhook."""
LATENCY, LATENCY_MS = "publish_to_clerk", "publish_to_clerk_ms"
BOUNDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, float("inf"))
"""The upper bounds of the histogram, in seconds: from an idle worker to a change that only the poll found."""

Key = tuple[str, ...]


class Counters:
    """Counts in memory, and adds to the totals in the database."""

    def __init__(self, admin: QueueAdmin, timings: Timings) -> None:
        self._admin = admin
        self._timings = timings
        self._new: Counter[Key] = Counter()

    def webhook(self, source: str, answer: str) -> None:
        """Count one delivery."""
        self._new[WEBHOOKS, source, answer] += 1

    def call(self, call: Call) -> None:
        """Count one request to a service."""
        self._new[CALLS, call.service, call.outcome] += 1

    def change(self, kind: str, seconds: float | None) -> None:
        """Count a change that Clerk has accepted, and the seconds from its publish to Clerk's response, if known."""
        self._new[CHANGES, kind] += 1
        if seconds is not None:
            self._new[LATENCY, str(BOUNDS[bisect_left(BOUNDS, seconds)])] += 1
            self._new[(LATENCY_MS,)] += round(seconds * 1000)

    async def flush(self) -> None:
        """Add new counts to the shared totals. Raises DatabaseUnavailable, and keeps them for the next time."""
        new, self._new = self._new, Counter()
        if not new:
            return
        try:
            await self._admin.count({PREFIX + ":".join(key): more for key, more in new.items()})
        except DatabaseUnavailable:
            self._new.update(new)
            raise

    async def recall(self) -> Mapping[Key, int]:
        """Return the shared totals. Raises DatabaseUnavailable."""
        kept = await self._admin.recall_all(PREFIX)
        return {tuple(name.removeprefix(PREFIX).split(":")): int(value) for name, value in kept.items()}

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Flush every few seconds until the block ends, and once more at the end."""
        ended = asyncio.Event()
        keeping = asyncio.create_task(self._keep(ended), name="counters")
        try:
            yield
        finally:
            ended.set()
            await keeping
            await self._try_to_flush()

    async def _keep(self, ended: asyncio.Event) -> None:
        while not ended.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(self._timings.counter_flush_interval):
                    await ended.wait()
            await self._try_to_flush()

    async def _try_to_flush(self) -> None:
        with suppress(DatabaseUnavailable):  # reported elsewhere; the counts are kept for the next time
            await self.flush()

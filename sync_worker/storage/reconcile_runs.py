"""What outlives a reconcile: which run is active, how the last one ended, and the last successful one."""

from __future__ import annotations

import asyncio
import json
import secrets
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from sync_worker.errors import AlreadyRunning, DatabaseUnavailable
from sync_worker.storage.leadership import Leadership
from sync_worker.storage.state import REMEMBER

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sync_worker.domain.clock import Clock
    from sync_worker.domain.timings import Timings
    from sync_worker.storage.database import Database

LOCK = "reconcile:running"
GOOD = "reconcile"
ENDED = "reconcile:ended"
WELL, BADLY = "well", "badly"
"""How the last run ended, of those that meant to write."""


@dataclass(frozen=True, slots=True)
class LastSuccess:
    """What the last good run saw: `entitlements` in Sanity and subjects with our marker in Clerk.

    Of the users, `over_budget` had more than `claims_budget` bytes of claims, and `largest` had the most.
    """

    entitlements: int
    managed: int
    claims_budget: int = 0
    over_budget: int = 0
    largest: str = ""

    @classmethod
    def parse(cls, text: str) -> LastSuccess:
        """Return what `json` made."""
        return cls(**json.loads(text))

    def json(self) -> str:
        """Return it as text for the database."""
        return json.dumps(asdict(self))


class ReconcileRuns:
    """The rows of `state` about runs. Errors: DatabaseUnavailable."""

    def __init__(self, db: Database, timings: Timings) -> None:
        self._db = db
        self._timings = timings

    def lock(self, token: str) -> Leadership:
        """Return the lease that keeps a second run out."""
        return Leadership(self._db, LOCK, token, self._timings.reconcile_lock)

    async def last_good(self) -> LastSuccess | None:
        """Return what the last good run saw."""
        rows = await self._db.read(lambda tx: tx.execute("SELECT value FROM state WHERE name = ?", (GOOD,)))
        return LastSuccess.parse(rows[0][0]) if rows else None

    async def remember_good(self, good: LastSuccess) -> None:
        """Keep what a good run saw, and that it was now."""
        await self._db.run(lambda tx: tx.execute(REMEMBER, (GOOD, good.json())))

    async def remember_end(self, *, well: bool) -> None:
        """Keep how a run that meant to write ended."""
        await self._db.run(lambda tx: tx.execute(REMEMBER, (ENDED, WELL if well else BADLY)))

    async def ended_well(self) -> bool | None:
        """Return whether the last run ended well; None when none has ended yet."""
        rows = await self._db.read(lambda tx: tx.execute("SELECT value FROM state WHERE name = ?", (ENDED,)))
        return rows[0][0] == WELL if rows else None


@asynccontextmanager
async def exclusive_run(runs: ReconcileRuns, clock: Clock, timings: Timings) -> AsyncIterator[None]:
    """Keep a second run out, in every process, for as long as this one lives. Raises AlreadyRunning."""
    lease = runs.lock(secrets.token_hex(8))
    if not await lease.acquire():
        raise AlreadyRunning

    async def live() -> None:
        while True:
            await clock.sleep(timings.reconcile_lock_renewal)
            with suppress(DatabaseUnavailable):  # the next renewal comes before the lease ends
                await lease.acquire()

    renewal = asyncio.create_task(live())
    try:
        yield
    finally:
        renewal.cancel()
        await asyncio.wait({renewal})
        with suppress(DatabaseUnavailable):  # the lease ends by itself
            await lease.release()


@asynccontextmanager
async def judged(runs: ReconcileRuns) -> AsyncIterator[None]:
    """Remember of a run that means to write that it ended badly when it raises; otherwise it says so itself."""
    try:
        yield
    except BaseException:
        with suppress(DatabaseUnavailable):
            await runs.remember_end(well=False)
        raise

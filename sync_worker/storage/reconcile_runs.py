"""What outlives a reconcile: which run is active, the last successful one, and the changesets held for approval."""

from __future__ import annotations

import asyncio
import json
import secrets
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from sync_worker.errors import AlreadyRunning, DatabaseUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from sync_worker.domain.clock import Clock
    from sync_worker.domain.timings import Timings
    from sync_worker.storage.database import Database, Row, Transaction

LOCK = "reconcile:running"
GOOD = "reconcile"
ENDED = "reconcile:ended"
WELL, BADLY = "well", "badly"
"""How the last run ended, of those that meant to write."""

_ACQUIRE = """
INSERT INTO state (name, value, at) VALUES (?, ?, NOW())
ON CONFLICT (name) DO UPDATE SET value = excluded.value, at = excluded.at
WHERE state.value = excluded.value OR state.at < NOW() - ?
RETURNING name
"""
_HOLD = """
INSERT INTO held (id, at, expires, reason, subjects) VALUES (?, NOW(), NOW() + ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET at = excluded.at, expires = excluded.expires, reason = excluded.reason,
  subjects = excluded.subjects
"""
_NOTE = """
INSERT INTO state (name, value, at) VALUES (?, ?, NOW()) ON CONFLICT (name) DO UPDATE SET value = excluded.value
"""
_REMEMBER = """
INSERT INTO state (name, value, at) VALUES (?, ?, NOW())
ON CONFLICT (name) DO UPDATE SET value = excluded.value, at = excluded.at
"""
# By the bytes of the names: other collations of a database may sort ";" before ":".
_FORGET_REVOKED = """
DELETE FROM state WHERE name COLLATE "C" >= 'revoked:' AND name COLLATE "C" < 'revoked;' AND at < NOW() - ?
"""
_SELECT = "SELECT id, at, expires, reason, subjects FROM held WHERE expires > NOW()"


@dataclass(frozen=True, slots=True)
class LastSuccess:
    """What the last good run saw: `entitlements` in Sanity and subjects with our marker in Clerk."""

    entitlements: int
    managed: int


@dataclass(frozen=True, slots=True)
class Held:
    """Revocations that wait for a person. Times are epoch seconds."""

    id: str
    at: float
    expires: float
    reason: str
    subjects: tuple[str, ...]


class Runs:
    """The table `held`, and the rows of `state` about runs. Errors: DatabaseUnavailable."""

    def __init__(self, db: Database, timings: Timings) -> None:
        self._db = db
        self._timings = timings

    async def acquire(self, token: str) -> bool:
        """Begin, or go on with, the only run; False when another one lives. Call it again within `reconcile_lock`."""
        lasts = self._timings.reconcile_lock
        rows = await self._db.run(lambda tx: tx.execute(_ACQUIRE, (LOCK, token, lasts)))
        return bool(rows)

    async def release(self, token: str) -> None:
        """End the run."""
        await self._db.run(lambda tx: tx.execute("DELETE FROM state WHERE name = ? AND value = ?", (LOCK, token)))

    async def last_good(self) -> LastSuccess | None:
        """Return what the last good run saw."""
        rows = await self._db.read(lambda tx: tx.execute("SELECT value FROM state WHERE name = ?", (GOOD,)))
        return LastSuccess(**json.loads(rows[0][0])) if rows else None

    async def remember_good(self, good: LastSuccess) -> None:
        """Keep what a good run saw, and that it was now."""
        await self._db.run(lambda tx: tx.execute(_REMEMBER, (GOOD, json.dumps(asdict(good)))))

    async def remember_end(self, *, well: bool) -> None:
        """Keep how a run that meant to write ended."""
        await self._db.run(lambda tx: tx.execute(_REMEMBER, (ENDED, WELL if well else BADLY)))

    async def ended_well(self) -> bool | None:
        """Tell whether the last run ended well; None when none has ended yet."""
        rows = await self._db.read(lambda tx: tx.execute("SELECT value FROM state WHERE name = ?", (ENDED,)))
        return rows[0][0] == WELL if rows else None

    async def hold(self, id_: str, subjects: Sequence[str], reason: str) -> None:
        """Keep a changeset until it is approved or expires. Holding one again adds to it and prolongs it."""

        def work(tx: Transaction) -> None:
            known = tx.execute(f"{_SELECT} AND id = ?", (id_,))
            everybody = {*subjects, *(_held(known[0]).subjects if known else ())}
            tx.execute(_HOLD, (id_, self._timings.approval_expiry, reason, json.dumps(sorted(everybody))))

        await self._db.run(work)

    async def count_revocations(self, cause: str, subjects: Sequence[str]) -> int:
        """Note revocations by one cause; return how many subjects it were in the window, each counted once."""

        def work(tx: Transaction) -> int:
            tx.execute(_FORGET_REVOKED, (self._timings.revocation_window,))
            name = f"revoked:{cause}"
            known = tx.execute("SELECT value FROM state WHERE name = ? FOR UPDATE", (name,))
            everybody = {*subjects, *(json.loads(known[0][0]) if known else ())}
            tx.execute(_NOTE, (name, json.dumps(sorted(everybody))))
            return len(everybody)

        return await self._db.run(work)

    async def held(self) -> list[Held]:
        """Return the changesets that can be approved, the newest first."""
        rows = await self._db.read(lambda tx: tx.execute(f"{_SELECT} ORDER BY at DESC"))
        return [_held(row) for row in rows]

    async def find(self, id_: str) -> Held | None:
        """Return one changeset, unless it expired."""
        rows = await self._db.read(lambda tx: tx.execute(f"{_SELECT} AND id = ?", (id_,)))
        return _held(rows[0]) if rows else None

    async def drop(self, id_: str) -> None:
        """Forget a changeset: it was applied, or does not hold any more."""
        await self._db.run(lambda tx: tx.execute("DELETE FROM held WHERE id = ? OR expires < NOW()", (id_,)))


@asynccontextmanager
async def exclusive_run(runs: Runs, clock: Clock, timings: Timings) -> AsyncIterator[None]:
    """Keep a second run out, in every process, for as long as this one lives. Raises AlreadyRunning."""
    token = secrets.token_hex(8)
    if not await runs.acquire(token):
        raise AlreadyRunning

    async def live() -> None:
        while True:
            await clock.sleep(timings.reconcile_lock_renewal)
            await runs.acquire(token)

    renewal = asyncio.create_task(live())
    try:
        yield
    finally:
        renewal.cancel()
        with suppress(asyncio.CancelledError):
            await renewal
        await runs.release(token)


@asynccontextmanager
async def judged(runs: Runs) -> AsyncIterator[None]:
    """Remember of a run that means to write that it ended badly when it raises; otherwise it says so itself."""
    try:
        yield
    except BaseException:
        with suppress(DatabaseUnavailable):
            await runs.remember_end(well=False)
        raise


def _held(row: Row) -> Held:
    id_, at, expires, reason, subjects = row
    return Held(id_, at, expires, reason, tuple(json.loads(subjects)))

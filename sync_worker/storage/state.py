"""The few named values that must outlive a process: cursors, heartbeats and counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sync_worker.storage.database import Database

COUNT = """
INSERT INTO state (name, value, at) VALUES (?, ?, NOW())
ON CONFLICT (name) DO UPDATE
SET value = CAST(CAST(state.value AS BIGINT) + CAST(excluded.value AS BIGINT) AS TEXT), at = excluded.at
"""

# The collation of the database may overlook a colon.
RECALL_ALL = 'SELECT name, value FROM state WHERE name COLLATE "C" >= ? AND name COLLATE "C" < ?'

REMEMBER = """
INSERT INTO state (name, value, at) VALUES (?, ?, NOW())
ON CONFLICT (name) DO UPDATE SET value = excluded.value, at = excluded.at
"""


# Needs what a write needs, but changes no row.
CHANGE_NOTHING = "UPDATE state SET at = at WHERE name = ''"

LAST_EVENT, CONNECTED, FAILURE = "listen:last", "listen:connected", "listen:failure"
"""The last event of the listener's stream, when it was last connected, and why Sanity last refused it."""

PAGES_URL = "pages:url"
"""Where somebody last signed in to the pages, which is where notices lead to: scheme and host."""

STOPPED = "worker:stopped"
"""Why a worker does nothing: the code of a refused key or a wrong setting. It is written again while that lasts."""


class NamedValues:
    """The table `state`. Errors: DatabaseUnavailable."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def remember(self, name: str, value: str) -> None:
        """Keep a named value, with the time."""
        await self._db.run(lambda tx: tx.execute(REMEMBER, (name, value)))

    async def forget(self, name: str, at: float) -> None:
        """Drop a named value, unless it was kept anew after `at` (epoch seconds)."""
        await self._db.run(lambda tx: tx.execute("DELETE FROM state WHERE name = ? AND at = ?", (name, at)))

    async def check_writable(self) -> None:
        """Raise DatabaseUnavailable if nothing can be written. It writes only after a write of this process failed."""
        if self._db.write_failed:
            await self.remember("readyz", "written")
            self._db.write_failed = False
        else:
            await self._db.run(lambda tx: tx.execute(CHANGE_NOTHING))

    async def count(self, more: Mapping[str, int]) -> None:
        """Add to numbers that all processes share, in one transaction."""
        rows = [(name, str(number)) for name, number in sorted(more.items())]
        await self._db.run(lambda tx: tx.executemany(COUNT, rows))

    async def age(self, name: str) -> float | None:
        """Return for how many seconds a named value has been kept, by the clock of the database."""
        sql = "SELECT NOW() - at FROM state WHERE name = ?"
        rows = await self._db.read(lambda tx: tx.execute(sql, (name,)))
        return float(rows[0][0]) if rows else None

    async def recall(self, name: str) -> tuple[str, float] | None:
        """Return a named value and when it was kept (epoch seconds)."""
        rows = await self._db.read(lambda tx: tx.execute("SELECT value, at FROM state WHERE name = ?", (name,)))
        return (rows[0][0], rows[0][1]) if rows else None

    async def recall_all(self, prefix: str) -> Mapping[str, str]:
        """Return all named values whose name begins with `prefix`, which ends with a colon."""
        bounds = (prefix, prefix.removesuffix(":") + ";")  # the character after the colon
        return dict(await self._db.read(lambda tx: tx.execute(RECALL_ALL, bounds)))

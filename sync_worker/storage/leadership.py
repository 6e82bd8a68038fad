"""Lets one process at a time do what only one may: by a lease in the database, which it renews."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sync_worker.storage.database import Database

ACQUIRE = """
INSERT INTO state (name, value, at) VALUES (?, ?, NOW())
ON CONFLICT (name) DO UPDATE SET value = excluded.value, at = excluded.at
WHERE state.value = excluded.value OR state.at < NOW() - ?
RETURNING name
"""
RELEASE = "DELETE FROM state WHERE name = ? AND value = ?"


@dataclass(frozen=True, slots=True)
class Leadership:
    """A lease of `seconds` under a name, for the process with this token. Errors: DatabaseUnavailable."""

    db: Database
    name: str
    token: str
    seconds: float

    async def acquire(self) -> bool:
        """Take the lease, or renew it; False while another process has it. Call it again within its time."""
        return bool(await self.db.run(lambda tx: tx.execute(ACQUIRE, (self.name, self.token, self.seconds))))

    async def release(self) -> None:
        """Give the lease back."""
        await self.db.run(lambda tx: tx.execute(RELEASE, (self.name, self.token)))

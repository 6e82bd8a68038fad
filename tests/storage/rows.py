"""Named rows, for tests of what a transaction leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sync_worker.storage.database import Database, Transaction


PUT = "INSERT INTO state (name, value, at) VALUES (?, '', NOW())"
NAMES = "SELECT name FROM state ORDER BY name"


async def names(db: Database) -> list[str]:
    return [row[0] for row in await db.read(lambda tx: tx.execute(NAMES))]


async def put(db: Database, name: str) -> None:
    await db.run(lambda tx: tx.execute(PUT, (name,)))


def put_and_notify(tx: Transaction) -> None:
    tx.execute(PUT, ("a",))
    tx.notify()

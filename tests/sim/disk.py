"""The database: real SQL on an in-memory SQLite, run inline in the event loop.

Threads would bring back real time and a random order. A `Disk` outlives all processes; a `Session` is the connection of
one process, and does nothing once the process is dead.
"""

from __future__ import annotations

import asyncio
import sqlite3
from typing import TYPE_CHECKING, Any, TypeVar

from sync_worker.errors import DatabaseUnavailable
from sync_worker.storage.database import Database, Parameters
from sync_worker.storage.migrations import migrate
from sync_worker.storage.sqlite_thread import translated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from random import Random

    from sync_worker.storage.database import Row, Transaction
    from tests.sim.machine import Process

T = TypeVar("T")

OTHERS_FIRST = 0.15
"""How often another task runs before or after a transaction; always would be slow."""


class Disk:
    """One SQLite database. `trouble` is the fraction of transactions that fail; half of those are committed."""

    def __init__(self, clock: Callable[[], float], random: Random) -> None:
        self.clock = clock
        self.random = random
        self.trouble = 0.0
        self.was_in_trouble = False
        self.sessions: list[Session] = []
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        self.connection.create_function("NOW", 0, clock, deterministic=True)
        self.transact(migrate)

    def transact(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` in one transaction."""
        tx = Tx(self.connection, self.clock)
        self.connection.execute("BEGIN")
        try:
            result = work(tx)
        except BaseException:
            self.connection.execute("ROLLBACK")
            raise
        self.connection.execute("COMMIT")
        if tx.notified:
            for session in self.sessions:
                session.wake()
        return result

    def fails(self) -> bool:
        """Return whether this transaction is to fail."""
        if not self.trouble or self.random.random() >= self.trouble:
            return False
        self.was_in_trouble = True
        return True

    def ask(self, sql: str, parameters: Parameters = ()) -> list[Row]:
        """Look into the database, for the test."""
        return self.connection.execute(sql, parameters).fetchall()


class Tx:
    """The SQL of one transaction."""

    def __init__(self, connection: sqlite3.Connection, clock: Callable[[], float]) -> None:
        self._connection = connection
        self._clock = clock
        self.notified = False

    @property
    def now(self) -> float:
        return self._clock()

    def execute(self, sql: str, parameters: Parameters = ()) -> list[Row]:
        return self._connection.execute(translated(sql), parameters).fetchall()

    def executemany(self, sql: str, parameters: Iterable[Parameters]) -> list[Row]:
        statement, rows = translated(sql), list[Any]()
        for one in parameters:
            rows += self._connection.execute(statement, one).fetchall()
        return rows

    def notify(self) -> None:
        self.notified = True


class Session(Database):
    """What one process sees of the disk. A dead process's call never returns, and does nothing."""

    def __init__(self, disk: Disk, process: Process) -> None:
        super().__init__()
        self._disk = disk
        self._process = process

    async def start(self) -> None:
        self._disk.sessions.append(self)

    async def close(self) -> None:
        if self in self._disk.sessions:
            self._disk.sessions.remove(self)

    async def run(self, work: Callable[[Transaction], T]) -> T:
        await self._turn()
        if self._disk.fails():
            if self._disk.random.random() < 0.5:
                self._disk.transact(work)
            raise DatabaseUnavailable("the disk is full")
        result = self._disk.transact(work)
        await self._turn()
        return result

    async def read(self, work: Callable[[Transaction], T]) -> T:
        await self._turn()
        if self._disk.fails():
            raise DatabaseUnavailable("the disk does not answer")
        return work(Tx(self._disk.connection, self._disk.clock))

    async def _turn(self) -> None:
        """Let others run sometimes, as a thread would."""
        if self._disk.random.random() < OTHERS_FIRST:
            await asyncio.sleep(0)
        self._process.must_live()

"""SQLite on a thread: the jobs that wait share one transaction, so a batch of writes costs one disk flush."""

from __future__ import annotations

import asyncio
import queue
import re
import sqlite3
import threading
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from sync_worker.errors import DatabaseUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sync_worker.domain.clock import Clock
    from sync_worker.storage.database import Parameters, Row, Transaction

MOST_SHARED = 500
"""The maximum of jobs per commit, so that the first does not wait long for the last."""

DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}

_LIST = re.compile(r"EACH\((\?|:\w+)\)")


@lru_cache(maxsize=256)
def translated(sql: str) -> str:
    """Translate SQL for SQLite. `NOW()` stays: each connection has a function of that name."""
    return (
        _LIST.sub(r"SELECT value FROM json_each(\1)", sql)
        .replace("LEAST(", "min(")
        .replace("GREATEST(", "max(")
        .replace("FOR UPDATE", "")
        .replace("SKIP LOCKED", "")
        .replace('COLLATE "C"', "")
        .replace("BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY", "INTEGER PRIMARY KEY AUTOINCREMENT")
    )


class SqliteTransaction:
    """The view that one job has of a transaction that it may share with others."""

    def __init__(self, connection: sqlite3.Connection, clock: Clock) -> None:
        self._connection = connection
        self._clock = clock
        self.notified = False

    @property
    def now(self) -> float:
        """See Transaction."""
        return self._clock.now()

    def execute(self, sql: str, parameters: Parameters = ()) -> list[Row]:
        """See Transaction."""
        return self._connection.execute(translated(sql), parameters).fetchall()

    def executemany(self, sql: str, parameters: Iterable[Parameters]) -> list[Row]:
        """See Transaction."""
        statement, cursor, rows = translated(sql), self._connection.cursor(), []
        for one in parameters:
            rows += cursor.execute(statement, one).fetchall()
        return rows

    def notify(self) -> None:
        """See Transaction."""
        self.notified = True


@dataclass(slots=True)
class Job:
    """A piece of work, and its result. Only durable work has to be on the disk when its result is returned."""

    work: Callable[[Transaction], Any]
    future: asyncio.Future[Any]
    durable: bool
    result: Any = None
    error: Exception | None = None
    notified: bool = False


class ConnectionThread:
    """A thread with its own connection. It runs all waiting jobs in one transaction, and then returns their results."""

    def __init__(
        self,
        name: str,
        connect: Callable[[], sqlite3.Connection],
        begin: str,
        *,
        clock: Clock,
        check: Callable[[], None],
        answer: Callable[[list[Job]], None],
        poll: float,
        changed_elsewhere: Callable[[], None] | None = None,
    ) -> None:
        self._connect = connect
        self._begin = begin
        self._clock = clock
        self._check = check
        self._answer = answer
        self._poll = poll
        self._changed_elsewhere = changed_elsewhere
        self._seen: int | None = None
        self._flushes: bool | None = None
        self._connection: sqlite3.Connection | None = None
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Submit a job."""
        self._jobs.put(job)

    async def stop(self) -> None:
        """Finish all submitted jobs, and close the connection."""
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)

    def _serve(self) -> None:
        while jobs := self._next_jobs():
            self._commit(jobs)
            self._answer(jobs)
        self._disconnect()

    def _next_jobs(self) -> list[Job]:
        """Wait for a job, then take all that are queued; an empty list means stop."""
        first = self._jobs.get() if self._changed_elsewhere is None else self._watch(self._changed_elsewhere)
        if first is None:
            return []
        jobs = [first]
        with suppress(queue.Empty):
            while len(jobs) < MOST_SHARED:
                job = self._jobs.get_nowait()
                if job is None:
                    self._jobs.put(None)
                    break
                jobs.append(job)
        return jobs

    def _watch(self, changed_elsewhere: Callable[[], None]) -> Job | None:
        """Wait for a job, and poll for commits of others: `data_version` ignores those of this connection."""
        while True:
            if self._connection is not None:
                with suppress(sqlite3.Error):
                    version = self._connection.execute("PRAGMA data_version").fetchone()[0]
                    if version != self._seen:
                        self._seen = version
                        changed_elsewhere()
            with suppress(queue.Empty):
                return self._jobs.get(timeout=self._poll)

    def _commit(self, jobs: list[Job]) -> None:
        try:
            if self._connection is None:
                self._connection = self._connect()
            self._check()
            self._flush(self._connection, any(job.durable for job in jobs))
            self._connection.execute(self._begin)
            for job in jobs:
                self._attempt(self._connection, job)
            self._connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - every waiting job must get it
            self._disconnect()
            for job in jobs:
                job.error = explained(error)

    def _flush(self, connection: sqlite3.Connection, at_commit: bool) -> None:
        """Flush the next commit to the disk, with all before it, or leave it to a later one."""
        if at_commit is not self._flushes:
            connection.execute(f"PRAGMA synchronous = {'FULL' if at_commit else 'NORMAL'}")
            self._flushes = at_commit

    def _attempt(self, connection: sqlite3.Connection, job: Job) -> None:
        """Run one job in a savepoint, so that its failure does not affect other jobs."""
        if job.future.cancelled():
            return
        connection.execute("SAVEPOINT job")
        tx = SqliteTransaction(connection, self._clock)
        try:
            job.result = job.work(tx)
            job.notified = tx.notified
        except Exception as error:
            if not connection.in_transaction:  # SQLite has rolled back everything, for example because the disk is full
                raise
            connection.execute("ROLLBACK TO job")
            job.error = explained(error)
        connection.execute("RELEASE job")

    def _disconnect(self) -> None:
        """Close, which rolls back; the next job reconnects."""
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
        self._connection = None
        self._seen = None
        self._flushes = None


def explained(error: Exception) -> Exception:
    """Return DatabaseUnavailable for a problem with the file, and any other error unchanged."""
    trouble = (
        isinstance(error, sqlite3.OperationalError | sqlite3.InternalError) or type(error) is sqlite3.DatabaseError
    )
    if not trouble:
        return error
    if getattr(error, "sqlite_errorcode", 0) & 0xFF in DAMAGED:  # the low byte is the primary code
        text = f"The SQLite file is damaged ({error}). Stop, move it away, start, and run `sync-worker reconcile`."
    else:
        text = f"SQLite: {error}."
    answer = DatabaseUnavailable(text)
    answer.__cause__ = error
    return answer

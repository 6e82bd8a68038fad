"""SQLite: one file, one writing connection per process, commits shared by everybody who waits.

A durable commit costs one disk flush, so work that arrives during a flush is committed together by the next one. Reads
have their own connection and never wait.
"""

from __future__ import annotations

import asyncio
import os
import queue
import re
import sqlite3
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sync_worker.errors import ConfigurationError, DatabaseUnavailable
from sync_worker.storage.database import Database, closed
from sync_worker.storage.migrations import migrate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sync_worker.domain.clock import Clock
    from sync_worker.domain.timings import Timings
    from sync_worker.storage.database import Parameters, Row, Transaction

T = TypeVar("T")

OLDEST = (3, 35)
"""The first SQLite with RETURNING."""

MOST_SHARED = 500
"""How many pieces of work share one commit at most, so that the first is not kept waiting by the last."""

DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def file_of(rest: str) -> str:
    """Return the path in what follows `sqlite://`: `/relative.db` or `//absolute.db`."""
    path = rest.removeprefix("/")
    if not rest.startswith("/") or not path or "?" in path or path == ":memory:":
        raise ConfigurationError("DATABASE_URL must be sqlite:///relative.db or sqlite:////absolute.db, nothing more.")
    return path


_LIST = re.compile(r"EACH\((\?|:\w+)\)")


@lru_cache(maxsize=256)
def translated(sql: str) -> str:
    """Return the SQL in SQLite's words. `NOW()` stays: each connection has a function of that name."""
    return (
        _LIST.sub(r"SELECT value FROM json_each(\1)", sql)
        .replace("LEAST(", "min(")
        .replace("GREATEST(", "max(")
        .replace("FOR UPDATE", "")
        .replace("SKIP LOCKED", "")
        .replace('COLLATE "C"', "")
        .replace("BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY", "INTEGER PRIMARY KEY AUTOINCREMENT")
    )


class _Transaction:
    """One piece of work's view of the transaction that it may share with others."""

    def __init__(self, connection: sqlite3.Connection, clock: Clock) -> None:
        self._connection = connection
        self._clock = clock
        self.notified = False

    @property
    def now(self) -> float:
        return self._clock.now()

    def execute(self, sql: str, parameters: Parameters = ()) -> list[Row]:
        return self._connection.execute(translated(sql), parameters).fetchall()

    def executemany(self, sql: str, parameters: Iterable[Parameters]) -> list[Row]:
        statement, cursor, rows = translated(sql), self._connection.cursor(), []
        for one in parameters:
            rows += cursor.execute(statement, one).fetchall()
        return rows

    def notify(self) -> None:
        self.notified = True


@dataclass(slots=True)
class Job:
    """A piece of work, and what became of it."""

    work: Callable[[Transaction], Any]
    future: asyncio.Future[Any]
    result: Any = None
    error: Exception | None = None
    notified: bool = False


class ConnectionThread:
    """A thread with its own connection, which runs the jobs that wait in one transaction and then answers them all."""

    def __init__(
        self,
        name: str,
        connect: Callable[[], sqlite3.Connection],
        begin: str,
        *,
        clock: Clock,
        answer: Callable[[list[Job]], None],
        poll: float,
        changed_elsewhere: Callable[[], None] | None = None,
    ) -> None:
        self._connect = connect
        self._begin = begin
        self._clock = clock
        self._answer = answer
        self._poll = poll
        self._changed_elsewhere = changed_elsewhere
        self._seen: int | None = None
        self._connection: sqlite3.Connection | None = None
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Hand a job in."""
        self._jobs.put(job)

    async def stop(self) -> None:
        """Return once all that was handed in is answered and the connection is closed."""
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)

    def _serve(self) -> None:
        while jobs := self._next_jobs():
            self._commit(jobs)
            self._answer(jobs)
        self._disconnect()

    def _next_jobs(self) -> list[Job]:
        """Wait for one job, then take all that are there; an empty list is the end."""
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
        """Wait for a job, and meanwhile look for commits: this connection's own do not count in `data_version`."""
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
            self._connection.execute(self._begin)
            for job in jobs:
                self._attempt(self._connection, job)
            self._connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - every waiting job must get it
            self._disconnect()
            for job in jobs:
                job.error = explained(error)

    def _attempt(self, connection: sqlite3.Connection, job: Job) -> None:
        """Run one job in a savepoint, so that its failure undoes no other job's work."""
        if job.future.cancelled():
            return
        connection.execute("SAVEPOINT job")
        tx = _Transaction(connection, self._clock)
        try:
            job.result = job.work(tx)
            job.notified = tx.notified
        except Exception as error:
            if not connection.in_transaction:  # a full disk or the like made SQLite undo everything
                raise
            connection.execute("ROLLBACK TO job")
            job.error = explained(error)
        connection.execute("RELEASE job")

    def _disconnect(self) -> None:
        """Close, which also undoes what is not committed; the next job connects anew."""
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
        self._connection = None
        self._seen = None


def explained(error: Exception) -> Exception:
    """Return DatabaseUnavailable for trouble with the file, and any other error as it is."""
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


class SqliteDatabase(Database):
    """One file."""

    def __init__(self, path: str, clock: Clock, timings: Timings, *, watch: bool = False) -> None:
        super().__init__()
        self._path = path
        self._clock = clock
        self._timings = timings
        self._watch = watch
        self._loop: asyncio.AbstractEventLoop | None = None
        self._writer: ConnectionThread | None = None
        self._reader: ConnectionThread | None = None

    async def start(self) -> None:
        """Open or create the file, in WAL mode, and migrate."""
        if sqlite3.sqlite_version_info < OLDEST:
            raise ConfigurationError(f"SQLite {sqlite3.sqlite_version} is too old: 3.35 or newer is needed.")
        self._loop = asyncio.get_running_loop()
        self._writer = ConnectionThread(
            "sqlite-writer",
            self._connect_writer,
            "BEGIN IMMEDIATE",
            clock=self._clock,
            answer=self._answer_soon,
            poll=self._timings.sqlite_poll,
            changed_elsewhere=self._wake_soon if self._watch else None,
        )
        self._reader = ConnectionThread(
            "sqlite-reader",
            self._connect_reader,
            "BEGIN",
            clock=self._clock,
            answer=self._answer_soon,
            poll=self._timings.sqlite_poll,
        )
        try:
            await self.run(lambda _: None)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Finish what was handed in, and close the file."""
        writer, reader, self._writer, self._reader = self._writer, self._reader, None, None
        for thread in (reader, writer):
            if thread is not None:
                await thread.stop()
        self._signal.set()

    async def run(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` on the writing connection, in one commit with everything else that waits."""
        return await self._submit(self._writer, work)

    async def read(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` on the reading connection."""
        return await self._submit(self._reader, work)

    async def _submit(self, thread: ConnectionThread | None, work: Callable[[Transaction], T]) -> T:
        if thread is None or self._loop is None:
            raise closed()
        future: asyncio.Future[T] = self._loop.create_future()
        thread.submit(Job(work, future))
        return await future

    def _answer_soon(self, jobs: list[Job]) -> None:
        self._call_soon(self._answer, jobs)

    def _wake_soon(self) -> None:
        self._call_soon(self._signal.set)

    def _call_soon(self, function: Callable[..., None], *arguments: object) -> None:
        assert self._loop is not None  # noqa: S101 - for the type checker: threads live after `start`
        with suppress(RuntimeError):  # the loop is gone, and so is everybody who waited
            self._loop.call_soon_threadsafe(function, *arguments)

    def _answer(self, jobs: list[Job]) -> None:
        for job in jobs:
            if job.future.done():
                continue
            if job.error is None:
                job.future.set_result(job.result)
            else:
                job.future.set_exception(job.error)
        if any(job.notified for job in jobs):
            self._signal.set()

    def _connect_writer(self) -> sqlite3.Connection:
        self._create_file()
        connection = self._connect()
        try:
            self._switch_to_wal(connection)
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA secure_delete = ON")  # an address that was looked up is gone from the file too
            connection.execute("BEGIN IMMEDIATE")
            migrate(_Transaction(connection, self._clock))
            connection.execute("COMMIT")
        except BaseException:
            connection.close()
            raise
        return connection

    def _connect_reader(self) -> sqlite3.Connection:
        connection = self._connect()
        connection.execute("PRAGMA query_only = ON")
        return connection

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=self._timings.sqlite_busy_timeout, isolation_level=None)
        connection.create_function("NOW", 0, self._clock.now, deterministic=True)  # once a statement, so indexes serve
        return connection

    def _create_file(self) -> None:
        """Create the file readable by its owner only, as some keys are e-mail addresses."""
        if not Path(self._path).absolute().parent.is_dir():
            raise ConfigurationError(f"DATABASE_URL: the folder of {self._path} does not exist.")
        with suppress(OSError):  # it exists, or SQLite reports the problem
            os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))

    def _switch_to_wal(self, connection: sqlite3.Connection) -> None:
        deadline = time.monotonic() + self._timings.sqlite_busy_timeout
        while True:
            try:
                mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
                break
            except sqlite3.OperationalError as error:  # SQLite does not wait by itself while another process switches
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(self._timings.sqlite_poll)
        if mode != "wal":
            raise ConfigurationError(
                f"SQLite keeps {self._path} in journal mode {mode}, not wal: use a local disk, not a network share, "
                "or set DATABASE_URL to a PostgreSQL server."
            )

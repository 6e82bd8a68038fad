"""SQLite: one file, with one writing and one reading connection per process.

Reads never wait for a writer.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sync_worker.errors import ConfigurationError, DatabaseUnavailable
from sync_worker.storage.database import Database, closed
from sync_worker.storage.migrations import migrate
from sync_worker.storage.sqlite_thread import ConnectionThread, Job, SqliteTransaction

if TYPE_CHECKING:
    from collections.abc import Callable

    from sync_worker.domain.clock import Clock
    from sync_worker.domain.timings import Timings
    from sync_worker.storage.database import Transaction

T = TypeVar("T")

OLDEST = (3, 35)
"""The first SQLite with RETURNING."""


def file_of(rest: str) -> str:
    """Return the path from the part of a URL after `sqlite://`: `/relative.db` or `//absolute.db`."""
    path = rest.removeprefix("/")
    if not rest.startswith("/") or not path or "?" in path or path == ":memory:":
        raise ConfigurationError("DATABASE_URL must be sqlite:///relative.db or sqlite:////absolute.db, nothing more.")
    return path


def refuse_place(path: str) -> None:
    """Raise ConfigurationError with the reason if there can be no file at `path`."""
    place = Path(path).absolute()
    if not place.parent.is_dir():
        raise ConfigurationError(f"DATABASE_URL: the folder of {path} does not exist. Create it, or correct the path.")
    if place.is_dir():
        raise ConfigurationError(f"DATABASE_URL: {path} is a folder, not a file. Add the name of a file.")
    if not os.access(place.parent, os.W_OK):  # SQLite keeps more files beside this one
        raise ConfigurationError(f"DATABASE_URL: the folder of {path} is not writable for this user.")


class SqliteDatabase(Database):
    """One SQLite file."""

    def __init__(self, path: str, clock: Clock, timings: Timings, *, watch: bool = False) -> None:
        super().__init__()
        self._path = path
        self._clock = clock
        self._timings = timings
        self._watch = watch
        self._identity: tuple[int, int] | None = None
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
            check=self._check_file,
            answer=self._answer_soon,
            poll=self._timings.sqlite_poll,
            changed_elsewhere=self._wake_soon if self._watch else None,
        )
        self._reader = ConnectionThread(
            "sqlite-reader",
            self._connect_reader,
            "BEGIN",
            clock=self._clock,
            check=self._check_file,
            answer=self._answer_soon,
            poll=self._timings.sqlite_poll,
        )
        try:
            await self.run(lambda _: None)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Finish the submitted work, and close the file."""
        writer, reader, self._writer, self._reader = self._writer, self._reader, None, None
        for thread in (reader, writer):
            if thread is not None:
                await thread.stop()
        self._signal.set()

    async def run(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` on the writing connection, in one commit with all other waiting work."""
        return await self._write(work, durable=True)

    async def run_volatile(self, work: Callable[[Transaction], T]) -> T:
        """See Database. It is not flushed to the disk, unless durable work shares the commit."""
        return await self._write(work, durable=False)

    async def read(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` on the reading connection."""
        return await self._submit(self._reader, work, durable=False)

    async def _write(self, work: Callable[[Transaction], T], *, durable: bool) -> T:
        try:
            return await self._submit(self._writer, work, durable=durable)
        except DatabaseUnavailable:
            self.write_failed = True
            raise

    async def _submit(self, thread: ConnectionThread | None, work: Callable[[Transaction], T], *, durable: bool) -> T:
        if thread is None or self._loop is None:
            raise closed()
        future: asyncio.Future[T] = self._loop.create_future()
        thread.submit(Job(work, future, durable))
        return await future

    def _answer_soon(self, jobs: list[Job]) -> None:
        self._call_soon(self._answer, jobs)

    def _wake_soon(self) -> None:
        self._call_soon(self._signal.set)

    def _call_soon(self, function: Callable[..., None], *arguments: object) -> None:
        assert self._loop is not None  # noqa: S101 - for the type checker: threads live after `start`
        with suppress(RuntimeError):  # the loop is closed, so nothing waits
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

    def _check_file(self) -> None:
        """Raise DatabaseUnavailable if the file is not the one that was opened: what is written would be lost."""
        if self._identity is not None and self._identity != _identity(self._path):
            raise DatabaseUnavailable(
                f"The SQLite file {self._path} was removed or replaced while it was open. Put it back, or restart."
            )

    def _connect_writer(self) -> sqlite3.Connection:
        self._check_file()
        self._create_file()
        connection = self._connect()
        try:
            self._switch_to_wal(connection)
            connection.execute("PRAGMA synchronous = FULL")  # for the migration; later as each commit needs it
            connection.execute("PRAGMA secure_delete = ON")  # deleted addresses must not stay in the file
            connection.execute("BEGIN IMMEDIATE")
            migrate(SqliteTransaction(connection, self._clock))
            connection.execute("COMMIT")
        except BaseException:
            connection.close()
            raise
        self._identity = _identity(self._path)
        return connection

    def _connect_reader(self) -> sqlite3.Connection:
        self._check_file()
        connection = self._connect()
        connection.execute("PRAGMA query_only = ON")
        return connection

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=self._timings.sqlite_busy_timeout, isolation_level=None)
        connection.create_function("NOW", 0, self._clock.now, deterministic=True)  # so that indexes work
        return connection

    def _create_file(self) -> None:
        """Create the file readable by its owner only, as some keys are e-mail addresses."""
        refuse_place(self._path)
        with suppress(OSError):  # it exists, or SQLite reports the problem
            os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))

    def _switch_to_wal(self, connection: sqlite3.Connection) -> None:
        # In real time, whatever our clock shows: this thread waits for another process.
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


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - before every commit, so without the detour
    except OSError:
        return None
    return found.st_dev, found.st_ino

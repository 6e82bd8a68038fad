"""PostgreSQL: short transactions on a few connections, and LISTEN on one more.

Any number of web and worker processes share one database. Nothing stays in a session between two transactions (no
prepared statements, no SET), so PgBouncer in transaction mode works. LISTEN does not work through it;
the listener detects that nothing arrives, and `changed` polls instead.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import selectors
import socket
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

import psycopg
from psycopg.pq import TransactionStatus

from sync_worker.errors import ConfigurationError, DatabaseUnavailable
from sync_worker.storage.database import Database, closed
from sync_worker.storage.migrations import migrate
from sync_worker.storage.postgres_server import Server, milliseconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sync_worker.domain.clock import Clock
    from sync_worker.domain.timings import Timings
    from sync_worker.storage.database import Parameters, Row, Transaction
    from sync_worker.storage.postgres_server import Connection

T = TypeVar("T")

CLOCK = "CAST(EXTRACT(EPOCH FROM statement_timestamp()) AS double precision)"
"""Not clock_timestamp(): it is volatile, so no index would serve a comparison with it."""

CHANNEL = "sync_worker"
NOTIFY = "BEGIN; SET LOCAL synchronous_commit = off; SELECT pg_notify('{}', '{}'); COMMIT"
"""In a transaction of its own: NOTIFY holds a lock of the whole server until its commit, so that commits which wait for
the disk would wait for each other. What is lost with the server is found by the poll."""

MIGRATION_LOCK = 7_796_883_427
"""The key of the advisory lock; any number that no other program uses."""


_LIST = re.compile(r"EACH\((\?|:\w+)\)")
_NAMED = re.compile(r"(?<![\w:]):([a-z_]+)\b")


@lru_cache(maxsize=256)
def translated(sql: str, clock: str) -> bytes:
    """Translate SQL for PostgreSQL; `clock` is the expression for `NOW()`."""
    return (
        _NAMED.sub(r"%(\1)s", _LIST.sub(r"SELECT json_array_elements_text(CAST(\1 AS json))", sql))
        .replace("?", "%s")
        .replace("NOW()", clock)
        .encode()
    )


class _Transaction:
    """The transaction of one piece of work."""

    def __init__(self, connection: Connection, clock: Clock | None) -> None:
        self._cursor = connection.cursor()
        self._clock = clock
        self.notified = False

    @property
    def now(self) -> float:
        return float(self.execute("SELECT NOW()")[0][0])

    def execute(self, sql: str, parameters: Parameters = ()) -> list[Row]:
        self._cursor.execute(self._translated(sql), parameters)
        return self._rows()

    def executemany(self, sql: str, parameters: Iterable[Parameters]) -> list[Row]:
        self._cursor.executemany(self._translated(sql), parameters, returning=True)
        rows = self._rows()
        while self._cursor.nextset():
            rows += self._rows()
        return rows

    def notify(self) -> None:
        self.notified = True

    def _translated(self, sql: str) -> bytes:
        return translated(sql, CLOCK if self._clock is None else f"CAST({self._clock.now()!r} AS double precision)")

    def _rows(self) -> list[Row]:
        return self._cursor.fetchall() if self._cursor.description else []


class PostgresDatabase(Database):
    """One database on a server. It uses the clock of the server unless `clock` is given."""

    def __init__(
        self, url: str, clock: Clock | None, timings: Timings, *, watch: bool = False, connections: int = 4
    ) -> None:
        super().__init__()
        self._server = Server(url, timings)
        self._clock = clock
        self._timings = timings
        self._limits = _limits(timings)
        self._watch = watch
        self._token = secrets.token_hex(8)
        self._connections = connections
        self._idle: deque[Connection] = deque()
        self._threads: ThreadPoolExecutor | None = None
        self._listener: Listener | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self) -> None:
        """Connect, migrate under an advisory lock, and listen."""
        self._loop = asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(self._connections, thread_name_prefix="postgres")
        try:
            await self.run(self._migrate)
        except psycopg.ProgrammingError as error:
            await self.close()
            raise ConfigurationError(f"The tables cannot be made: {self._server.describe(error)}") from error
        except BaseException:
            await self.close()
            raise
        if self._watch:
            self._listener = Listener(self._server, self._token, self._wake_soon, self._timings)

    async def close(self) -> None:
        """Finish the running work, and disconnect."""
        threads, self._threads = self._threads, None
        listener, self._listener = self._listener, None
        if listener is not None:
            await asyncio.to_thread(listener.stop)
        if threads is not None:
            await asyncio.to_thread(threads.shutdown)
        while self._idle:
            self._idle.pop().close()
        self._signal.set()

    async def run(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` on one of the connections; wait for one if all are busy."""
        try:
            return await self._submit("BEGIN", work)
        except DatabaseUnavailable:
            self.write_failed = True
            raise

    async def read(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` on one of the connections, read-only."""
        return await self._submit("BEGIN READ ONLY", work)

    async def changed(self, timeout: float) -> bool:  # noqa: ASYNC109 - see Signal.wait
        """See Database. Polls while the listener does not work."""
        polls = self._listener is not None and not self._listener.is_listening
        return await self._signal.wait(min(timeout, self._timings.postgres_poll) if polls else timeout)

    async def _submit(self, begin: str, work: Callable[[Transaction], T]) -> T:
        if self._threads is None or self._loop is None:
            raise closed()
        return await self._loop.run_in_executor(self._threads, self._perform, begin, work)

    def _wake_soon(self) -> None:
        assert self._loop is not None  # noqa: S101 - for the type checker: threads live after `start`
        with suppress(RuntimeError):  # the loop is closed, so nothing waits
            self._loop.call_soon_threadsafe(self._signal.set)

    @staticmethod
    def _migrate(tx: Transaction) -> None:
        tx.execute("SET LOCAL lock_timeout = 0")
        tx.execute("SET LOCAL statement_timeout = 0")
        tx.execute("SELECT pg_advisory_xact_lock(?)", (MIGRATION_LOCK,))
        migrate(tx)

    def _perform(self, begin: str, work: Callable[[Transaction], T]) -> T:
        """Run `work`; retry after a deadlock, or if an idle connection turns out to be dead."""
        for _ in range(self._timings.postgres_tries):
            connection, fresh = self._take()
            attempt = Attempt(connection, f"{begin}; {self._limits}", self._clock, self._token)
            try:
                result = attempt.run(work)
            except (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected) as error:
                reason: psycopg.Error = error
                time.sleep(self._timings.postgres_deadlock_wait)  # a thread, in real time: the other transaction ends
            except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
                raise self._server.unavailable(error) from error  # a newer release is being rolled out
            except (psycopg.OperationalError, psycopg.InterfaceError, psycopg.InternalError) as error:
                was_dead = connection.closed and not fresh and not attempt.committing
                connection.close()  # a server that became read-only must not be used again
                if not was_dead:
                    raise self._server.unavailable(error) from error
                reason = error
                self._forget_idle()
            else:
                if attempt.notified:
                    self._wake_soon()
                return result
            finally:
                self._give_back(connection)
        raise self._server.unavailable(reason) from reason

    def _take(self) -> tuple[Connection, bool]:
        """Return a connection, and whether it is new."""
        try:
            return self._idle.pop(), False
        except IndexError:
            return self._server.connect(), True

    def _give_back(self, connection: Connection) -> None:
        with suppress(psycopg.Error):
            if connection.info.transaction_status is not TransactionStatus.IDLE:
                connection.execute("ROLLBACK")
        if connection.info.transaction_status is TransactionStatus.IDLE:
            self._idle.append(connection)
        else:
            connection.close()

    def _forget_idle(self) -> None:
        """Close all idle connections after the server was gone, so that the next one is new."""
        with suppress(IndexError):
            while True:
                self._idle.pop().close()


class Attempt:
    """One attempt at a transaction. `begin` is the statement that starts it."""

    def __init__(self, connection: Connection, begin: str, clock: Clock | None, token: str) -> None:
        self._connection = connection
        self._begin = begin
        self._clock = clock
        self._token = token
        self.committing = False
        self.notified = False

    def run(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` and commit it."""
        self._connection.execute(self._begin.encode())
        tx = _Transaction(self._connection, self._clock)
        result = work(tx)
        if self._connection.info.transaction_status is not TransactionStatus.INTRANS:
            raise psycopg.errors.InFailedSqlTransaction("a statement failed, so nothing can be committed")
        commit = f"COMMIT; {NOTIFY.format(CHANNEL, self._token)}" if tx.notified else "COMMIT"
        self.committing = True
        self._connection.execute(commit.encode())
        self.notified = tx.notified
        return result


def _limits(timings: Timings) -> str:
    """Return the statements that limit a transaction, so that a process that hangs in one does not block others."""
    limits = {
        "lock_timeout": timings.postgres_lock_timeout,
        "statement_timeout": timings.postgres_statement_timeout,
        "idle_in_transaction_session_timeout": timings.postgres_idle_timeout,
    }
    return "; ".join(f"SET LOCAL {name} = {milliseconds(seconds)}" for name, seconds in limits.items())


class Listener:
    """A thread that listens for the commits of other processes on its own connection, and reconnects if that dies."""

    def __init__(self, server: Server, token: str, wake: Callable[[], None], timings: Timings) -> None:
        self._server = server
        self._timings = timings
        self._token = token
        self._wake = wake
        self._stopping, self._stop = socket.socketpair()
        self.is_listening = False
        self._thread = threading.Thread(target=self._serve, name="postgres-listener", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread, and wait a moment for it. A thread that is stuck ends by itself later."""
        self._stop.close()
        self._thread.join(self._timings.postgres_stop_wait)

    def _serve(self) -> None:
        with self._stopping:
            while True:
                with suppress(psycopg.Error, DatabaseUnavailable, OSError):
                    with self._server.connect() as connection:
                        self._listen(connection)
                    return
                self.is_listening = False
                if self._must_stop(self._timings.postgres_reconnect):
                    return

    def _listen(self, connection: Connection) -> None:
        """Listen until stopped; raise when the connection dies."""
        connection.execute(f"LISTEN {CHANNEL}".encode())
        self._wake()  # for commits before it listened
        with self._server.connect() as another:
            another.execute("SELECT pg_notify(%s, %s)", (CHANNEL, self._token))
        # In real time, whatever our clock shows: this thread waits on sockets.
        tested, silence = time.monotonic(), self._timings.postgres_listen_check
        while not self._must_stop(silence, connection):
            if time.monotonic() - tested >= silence:
                connection.execute(b"SELECT 1")
                tested = time.monotonic()
            payloads = {notification.payload for notification in connection.notifies(timeout=0)}
            self.is_listening = self.is_listening or self._token in payloads
            if payloads - {self._token}:
                self._wake()

    def _must_stop(self, timeout: float, *others: Connection) -> bool:
        """Wait until it has to stop, or one of the others has something to read. Return whether it has to stop."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._stopping, selectors.EVENT_READ)
            for other in others:
                selector.register(other, selectors.EVENT_READ)
            return any(key.fileobj is self._stopping for key, _ in selector.select(timeout))

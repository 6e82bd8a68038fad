"""The interface of the database: short transactions, and wake-ups after commits.

Other modules write SQL that runs on both SQLite and PostgreSQL; only `sqlite` and `postgres` know the differences.

The SQL is the common subset, with `?` or `:name` for parameters, and these words of PostgreSQL, which `sqlite_thread`
translates: `LEAST(`, `GREATEST(`, `FOR UPDATE`, `SKIP LOCKED`, `COLLATE "C"` and `BIGINT GENERATED ALWAYS AS IDENTITY
PRIMARY KEY`. `NOW()` is the clock of the database, in epoch seconds. `IN (EACH(?))` takes a JSON array of strings. `%`
and `?` have no other use.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from sync_worker.errors import DatabaseUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

T = TypeVar("T")
Row = tuple[Any, ...]
Parameters = Sequence[object] | Mapping[str, object]
"""Values for `?` in order, or for `:name` by name."""


@asynccontextmanager
async def patience(seconds: float) -> AsyncIterator[None]:
    """Raise DatabaseUnavailable if the block takes longer: the database may be connected, and silent.

    What it was asked may still be done, as after a lost connection.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise DatabaseUnavailable(f"It did not answer within {seconds:.0f} s.") from None


class Transaction(Protocol):
    """What a piece of work may do. It is valid only while the work runs."""

    @property
    def now(self) -> float:
        """Epoch seconds by the clock of the database."""

    def execute(self, sql: str, parameters: Parameters = ()) -> list[Row]:
        """Run one statement and return its rows."""

    def executemany(self, sql: str, parameters: Iterable[Parameters]) -> list[Row]:
        """Run one statement for each set of parameters, in order, and return all their rows."""

    def notify(self) -> None:
        """Wake every process that waits in `changed`, after the commit."""


class Signal:
    """A commit that has not been handled yet. It stays set until one `wait` returns, so none is missed."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def set(self) -> None:
        """Wake the waiters, or else the next one."""
        self._event.set()

    async def wait(self, timeout: float) -> bool:  # noqa: ASYNC109 - a timeout is a result here, not an error
        """Wait at most `timeout` seconds; return whether it was set."""
        try:
            async with asyncio.timeout(timeout):
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return True


class Database(ABC):
    """One SQLite file or one PostgreSQL database. It belongs to the event loop that started it.

    Failures that may be temporary (locked, full, unreachable, restarted, damaged) raise DatabaseUnavailable; the next
    call tries again, so no restart is needed. Other errors of a piece of work are raised unchanged.
    """

    write_failed = False
    """Whether a write of this process has failed, and none is known to have succeeded since."""

    def __init__(self) -> None:
        self._signal = Signal()

    @abstractmethod
    async def start(self) -> None:
        """Connect, and migrate the tables.

        Raises ConfigurationError when it can never work, DatabaseUnavailable when it does not work now.
        """

    @abstractmethod
    async def close(self) -> None:
        """Finish the submitted work, and disconnect."""

    @abstractmethod
    async def run(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` in one transaction; return its result once that is committed durably.

        It runs in another thread, and may run again after a deadlock, so it must touch nothing but the transaction.
        """

    async def run_volatile(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` as `run` does, but a loss of power may undo it, as long as nothing was committed durably after it.

        For what is then decided anew, such as who works on what; where flushing costs nothing it is the same as `run`.
        """
        return await self.run(work)

    @abstractmethod
    async def read(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` in one read-only transaction, which never waits for a writer."""

    async def changed(self, timeout: float) -> bool:  # noqa: ASYNC109 - see Signal.wait
        """Return True as soon as a `notify` was committed, or False after `timeout` seconds.

        A commit since the last return counts, so look for work first and wait then. It may also return early
        without a commit. Only one task per process may wait here: a second one would miss commits.
        """
        return await self._signal.wait(timeout)

    def wake(self) -> None:
        """Let `changed` return, as after a commit."""
        self._signal.set()

    async def schema_version(self) -> int:
        """Return the version of the tables."""
        rows = await self.read(lambda tx: tx.execute("SELECT MAX(version) FROM schema_version"))
        return int(rows[0][0])


def closed() -> DatabaseUnavailable:
    """Return the error of a call that came after `close` or before `start`."""
    return DatabaseUnavailable("It is not open: the process is starting or stopping.")

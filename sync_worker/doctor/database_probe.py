"""Inspects the database without changing it: whether it exists, is writable, and which schema version it has.

Opening the database elsewhere migrates it or creates the file, which a diagnosis must never do.
"""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sync_worker.runtime.wiring import open_database
from sync_worker.storage.migrations import STEPS
from sync_worker.storage.reconcile_runs import GOOD, LastSuccess
from sync_worker.storage.sqlite import file_of, refuse_place
from sync_worker.storage.sqlite_thread import explained

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sync_worker.domain.clock import Clock
    from sync_worker.domain.timings import Timings

NEWEST = len(STEPS)
VERSION = "SELECT version, compatible_from FROM schema_version ORDER BY version DESC LIMIT 1"
NOTED = "SELECT name, at FROM state"
LAST_GOOD = f"SELECT value FROM state WHERE name = '{GOOD}'"  # noqa: S608 - a constant
TRIAL = "INSERT INTO schema_version (version, compatible_from, at) VALUES (-1, 0, 0) RETURNING version"
"""A row that is rolled back at once: it only proves that the database is writable."""


@dataclass(frozen=True, slots=True)
class Tables:
    """The schema version, and the oldest version whose program works with it. Version 0 means that there are no tables.

    `noted` is when each named value was last stored, in epoch seconds. `last_good` is what the last good reconcile saw.
    """

    version: int
    compatible_from: int
    noted: Mapping[str, float]
    last_good: LastSuccess | None = None


NO_TABLES = Tables(0, 0, {})


async def inspect(url: str, clock: Clock, timings: Timings) -> Tables:
    """Inspect the database at `url`. Raises DatabaseUnavailable, or ConfigurationError for an invalid URL."""
    open_database(url, clock, timings)  # validates the URL; nothing is opened before start
    scheme, _, rest = url.strip().partition("://")
    if scheme == "sqlite":
        return await asyncio.to_thread(_inspect_file, file_of(rest), timings)
    return await asyncio.to_thread(_inspect_server, url.strip(), timings)


def _inspect_file(path: str, timings: Timings) -> Tables:
    refuse_place(path)
    if not Path(path).exists():
        return NO_TABLES
    busy = timings.sqlite_busy_timeout
    try:
        with closing(sqlite3.connect(path, timeout=busy, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            return _probe(lambda sql: connection.execute(sql).fetchall(), "SELECT 1 FROM sqlite_master WHERE name = {}")
    except sqlite3.Error as error:
        raise explained(error) from None


def _inspect_server(url: str, timings: Timings) -> Tables:
    import psycopg  # noqa: PLC0415 - an optional extra

    from sync_worker.storage.postgres_server import Server  # noqa: PLC0415 - as above

    server = Server(url, timings)
    try:
        with closing(server.connect()) as connection:
            connection.execute("BEGIN")
            return _probe(
                lambda sql: connection.execute(sql.encode()).fetchall(), "SELECT 1 WHERE to_regclass({}) IS NOT NULL"
            )
    except psycopg.Error as error:
        raise server.unavailable(error) from None


def _probe(execute: Callable[[str], Sequence[tuple[Any, ...]]], exists: str) -> Tables:
    """Read the version and try to write. The caller closes the connection, which rolls back."""
    if not execute(exists.format("'schema_version'")):
        return NO_TABLES
    version, compatible_from = execute(VERSION)[0]
    execute(TRIAL)
    good = execute(LAST_GOOD)
    return Tables(version, compatible_from, dict(execute(NOTED)), LastSuccess.parse(good[0][0]) if good else None)

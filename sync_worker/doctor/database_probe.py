"""A look at the database that changes nothing: is it there, can it be written, of which version are its tables.

Why it exists: whatever opens the database brings its tables up to date. Who looks into trouble must not do that, least
of all while the previous release is still at work, and must not make a file where somebody mistyped its name.
"""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sync_worker.storage.database import open_database
from sync_worker.storage.migrations import STEPS
from sync_worker.storage.sqlite import explained, file_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sync_worker.domain.clock import Clock
    from sync_worker.domain.timings import Timings

NEWEST = len(STEPS)
VERSION = "SELECT version, compatible_from FROM schema_version ORDER BY version DESC LIMIT 1"
NOTED = "SELECT name, at FROM state"
TRIAL = "INSERT INTO schema_version (version, compatible_from, at) VALUES (-1, 0, 0) RETURNING version"
"""A row that is taken back at once; that it could be written is the answer."""


@dataclass(frozen=True, slots=True)
class Tables:
    """Of which version the tables are, and the oldest program that works with them. Version 0 means no tables.

    `noted` is when each of the named values was kept, in epoch seconds.
    """

    version: int
    compatible_from: int
    noted: Mapping[str, float]


NONE = Tables(0, 0, {})


async def inspect(url: str, clock: Clock, timings: Timings) -> Tables:
    """Look at the database of this address. Raises DatabaseUnavailable; ConfigurationError when it is no address."""
    open_database(url, clock, timings)  # it is not started: this only reads the address
    scheme, _, rest = url.strip().partition("://")
    if scheme == "sqlite":
        return await asyncio.to_thread(_inspect_file, file_of(rest), timings)
    return await asyncio.to_thread(_inspect_server, url.strip(), timings)


def _inspect_file(path: str, timings: Timings) -> Tables:
    if not Path(path).exists():
        return NONE
    busy = timings.sqlite_busy_timeout
    try:
        with closing(sqlite3.connect(path, timeout=busy, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            return _look(lambda sql: connection.execute(sql).fetchall(), "SELECT 1 FROM sqlite_master WHERE name = {}")
    except sqlite3.Error as error:
        raise explained(error) from None


def _inspect_server(url: str, timings: Timings) -> Tables:
    import psycopg  # noqa: PLC0415 - an optional extra

    from sync_worker.storage.postgres import Server  # noqa: PLC0415 - as above

    server = Server(url, timings)
    try:
        with closing(server.connect()) as connection:
            connection.execute("BEGIN")
            return _look(
                lambda sql: connection.execute(sql.encode()).fetchall(), "SELECT 1 WHERE to_regclass({}) IS NOT NULL"
            )
    except psycopg.Error as error:
        raise server.unavailable(error) from None


def _look(execute: Callable[[str], Sequence[tuple[Any, ...]]], exists: str) -> Tables:
    """Read the version and try to write. Nothing is committed: the connection is closed in the transaction."""
    if not execute(exists.format("'schema_version'")):
        return NONE
    version, compatible_from = execute(VERSION)[0]
    execute(TRIAL)
    return Tables(version, compatible_from, dict(execute(NOTED)))

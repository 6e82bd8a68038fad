from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from sync_worker.doctor.database_probe import NEWEST, NO_TABLES, inspect
from sync_worker.errors import ConfigurationError, DatabaseUnavailable
from sync_worker.storage.database import open_database
from sync_worker.storage.queue_admin import QueueAdmin
from tests.clock import CLOCK, TIMINGS, ManualClock

pytestmark = pytest.mark.anyio


async def prepare(url: str) -> None:
    clock = ManualClock(7.0)
    database = open_database(url, clock, TIMINGS, server_clock=clock)
    await database.start()
    await QueueAdmin(database, TIMINGS).remember("note", "text")
    await database.close()


def versions(url: str) -> list[int]:
    """Read the database beside the program."""
    query = "SELECT version FROM schema_version ORDER BY version"
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as file:
            return [row[0] for row in file.execute(query)]
    with psycopg.connect(url) as server:
        return [row[0] for row in server.execute(query.encode())]


async def test_a_look_tells_the_version_and_what_was_noted_and_leaves_nothing(database_url: str) -> None:
    await prepare(database_url)
    before = versions(database_url)
    tables = await inspect(database_url, CLOCK, TIMINGS)
    assert (tables.version, tables.compatible_from <= NEWEST, tables.noted) == (NEWEST, True, {"note": 7.0})
    assert versions(database_url) == before


async def test_a_database_without_tables_stays_so(bare_database_url: str) -> None:
    assert await inspect(bare_database_url, CLOCK, TIMINGS) == NO_TABLES
    assert await inspect(bare_database_url, CLOCK, TIMINGS) == NO_TABLES


async def test_a_look_makes_no_file(sqlite_url: str) -> None:
    await inspect(sqlite_url, CLOCK, TIMINGS)
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        sqlite3.connect(f"file:{sqlite_url.removeprefix('sqlite:///')}?mode=ro", uri=True)


@pytest.fixture
def damaged_url(sqlite_url: str) -> str:
    Path(sqlite_url.removeprefix("sqlite:///")).write_bytes(b"no database at all" * 100)
    return sqlite_url


async def test_a_file_that_is_damaged_is_told(damaged_url: str) -> None:
    with pytest.raises(DatabaseUnavailable, match="damaged"):
        await inspect(damaged_url, CLOCK, TIMINGS)


async def test_a_file_that_somebody_else_writes_for_long_is_told(sqlite_url: str) -> None:
    await prepare(sqlite_url)
    with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseUnavailable, match="locked"):
            await inspect(sqlite_url, CLOCK, replace(TIMINGS, sqlite_busy_timeout=0.01))


async def test_a_server_that_only_reads_is_told(postgres_url: str) -> None:
    await prepare(postgres_url)
    with psycopg.connect(postgres_url, autocommit=True) as server:
        name = server.info.dbname
        server.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on'.encode())
    with pytest.raises(DatabaseUnavailable, match="read-only"):
        await inspect(postgres_url, CLOCK, TIMINGS)


async def test_a_server_that_is_not_there_is_told_without_the_password() -> None:
    with pytest.raises(DatabaseUnavailable) as caught:
        await inspect("postgres://u:planted@127.0.0.1:9/d", CLOCK, TIMINGS)
    assert "planted" not in str(caught.value)


@pytest.mark.parametrize("url", ["mysql://x", "sqlite://x.db", "postgres://u:p@ss:word@h/d"])
async def test_what_is_no_address_is_told(url: str) -> None:
    with pytest.raises(ConfigurationError, match="DATABASE_URL"):
        await inspect(url, CLOCK, TIMINGS)

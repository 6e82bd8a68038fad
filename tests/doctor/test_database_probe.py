from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from sync_worker.doctor.database_probe import NEWEST, NO_TABLES, inspect
from sync_worker.errors import ConfigurationError, DatabaseUnavailable
from sync_worker.runtime.wiring import open_database
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
    """Read the database directly."""
    query = "SELECT version FROM schema_version ORDER BY version"
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as file:
            return [row[0] for row in file.execute(query)]
    with psycopg.connect(url) as server:
        return [row[0] for row in server.execute(query.encode())]


async def test_inspecting_reads_the_version_and_the_named_values_and_writes_nothing(database_url: str) -> None:
    await prepare(database_url)
    before = versions(database_url)
    tables = await inspect(database_url, CLOCK, TIMINGS)
    assert (tables.version, tables.compatible_from <= NEWEST, tables.noted) == (NEWEST, True, {"note": 7.0})
    assert versions(database_url) == before


async def test_inspecting_creates_no_tables(bare_database_url: str) -> None:
    assert await inspect(bare_database_url, CLOCK, TIMINGS) == NO_TABLES
    assert await inspect(bare_database_url, CLOCK, TIMINGS) == NO_TABLES


async def test_inspecting_creates_no_file(sqlite_url: str) -> None:
    await inspect(sqlite_url, CLOCK, TIMINGS)
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        sqlite3.connect(f"file:{sqlite_url.removeprefix('sqlite:///')}?mode=ro", uri=True)


@pytest.fixture
def damaged_url(sqlite_url: str) -> str:
    Path(sqlite_url.removeprefix("sqlite:///")).write_bytes(b"no database at all" * 100)
    return sqlite_url


async def test_a_damaged_file_is_reported(damaged_url: str) -> None:
    with pytest.raises(DatabaseUnavailable, match="damaged"):
        await inspect(damaged_url, CLOCK, TIMINGS)


async def test_a_file_locked_for_too_long_is_reported(sqlite_url: str) -> None:
    await prepare(sqlite_url)
    with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseUnavailable, match="locked"):
            await inspect(sqlite_url, CLOCK, replace(TIMINGS, sqlite_busy_timeout=0.01))


async def test_a_read_only_server_is_reported(postgres_url: str) -> None:
    await prepare(postgres_url)
    with psycopg.connect(postgres_url, autocommit=True) as server:
        name = server.info.dbname
        server.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on'.encode())
    with pytest.raises(DatabaseUnavailable, match="read-only"):
        await inspect(postgres_url, CLOCK, TIMINGS)


async def test_an_unreachable_server_is_reported_without_the_password() -> None:
    with pytest.raises(DatabaseUnavailable) as caught:
        await inspect("postgres://u:planted@127.0.0.1:9/d", CLOCK, TIMINGS)
    assert "planted" not in str(caught.value)


@pytest.mark.parametrize("url", ["mysql://x", "sqlite://x.db", "postgres://u:p@ss:word@h/d"])
async def test_an_invalid_url_is_reported(url: str) -> None:
    with pytest.raises(ConfigurationError, match="DATABASE_URL"):
        await inspect(url, CLOCK, TIMINGS)

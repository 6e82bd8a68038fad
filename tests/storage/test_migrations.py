"""Tables are made and renewed as a database is opened, whichever release opened it before."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from sync_worker.errors import ConfigurationError, DatabaseUnavailable
from sync_worker.storage import migrations as schema
from tests.storage.databases import opened
from tests.storage.rows import names, put

if TYPE_CHECKING:
    from sync_worker.storage.database import Database

pytestmark = pytest.mark.anyio


async def test_a_new_database_has_the_newest_tables(db: Database) -> None:
    assert await db.schema_version() == len(schema.STEPS)


async def test_opening_again_keeps_what_is_there(database_url: str) -> None:
    async with opened(database_url) as db:
        await put(db, "a")
    async with opened(database_url) as db:
        assert await names(db) == ["a"]
        versions = await db.read(lambda tx: tx.execute("SELECT version FROM schema_version ORDER BY version"))
        assert versions == [(n,) for n in range(1, len(schema.STEPS) + 1)]


async def test_a_newer_step_is_applied_to_an_older_database(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(database_url) as db:
        await put(db, "a")
    step = schema.Step(compatible_from=1, statements=("ALTER TABLE state ADD COLUMN note TEXT",))
    newer = (*schema.STEPS, step)
    monkeypatch.setattr(schema, "STEPS", newer)
    async with opened(database_url) as db:
        assert await db.schema_version() == len(newer)
        assert await db.read(lambda tx: tx.execute("SELECT name, note FROM state")) == [("a", None)]


RECORD = "INSERT INTO schema_version (version, compatible_from, at) VALUES (?, ?, NOW())"


async def test_a_database_of_a_newer_program_that_keeps_us_working_is_used(database_url: str) -> None:
    async with opened(database_url) as db:
        await db.run(lambda tx: tx.execute(RECORD, (99, len(schema.STEPS))))
    async with opened(database_url) as db:
        await put(db, "a")
        assert await db.schema_version() == 99


async def test_a_database_of_a_newer_program_that_we_would_break_is_refused(database_url: str) -> None:
    async with opened(database_url) as db:
        await db.run(lambda tx: tx.execute(RECORD, (99, 98)))
    with pytest.raises(ConfigurationError, match="Install the newer release"):
        async with opened(database_url):
            pass


async def test_a_migration_that_fails_leaves_the_database_as_it_was(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = schema.Step(compatible_from=2, statements=("CREATE TABLE half (a INTEGER)", "CREATE TABLE work (a INTEGER)"))
    with monkeypatch.context() as patched:
        patched.setattr(schema, "STEPS", (*schema.STEPS, step))
        with pytest.raises((DatabaseUnavailable, ConfigurationError), match="work"):
            async with opened(database_url):
                pass
    async with opened(database_url) as db:
        assert await db.schema_version() == len(schema.STEPS)
        await db.run(lambda tx: tx.execute("CREATE TABLE half (a INTEGER)"))


OPEN_AND_CLOSE = """
import asyncio, os, sys
from sync_worker.runtime.system_clock import SystemClock
from sync_worker.runtime.wiring import open_database
from sync_worker.domain.timings import Timings
async def main():
    db = open_database(sys.argv[1], SystemClock(), Timings())
    await db.start()
    os.write(1, f"{await db.schema_version()} ".encode())
    await db.close()
parent = os.getpid()
children = [pid for _ in range(6) if os.getpid() == parent and (pid := os.fork())]
if os.getpid() == parent:
    sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children))
asyncio.run(main())
"""
"""Forked from one that has imported everything, so that all of them reach the database at the same moment."""


def test_processes_that_start_at_once_on_an_empty_database_all_come_up(bare_database_url: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", OPEN_AND_CLOSE, bare_database_url],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (ran.returncode, ran.stdout.split(), ran.stderr) == (0, [str(len(schema.STEPS))] * 6, "")

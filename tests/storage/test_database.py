"""Short transactions, wake-ups and trouble, on both databases; what only one of them has is in its own file."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from sync_worker.errors import ConfigurationError, DatabaseUnavailable
from sync_worker.runtime.wiring import open_database
from sync_worker.storage import migrations as schema
from tests.clock import CLOCK, TIMINGS, ManualClock
from tests.oracle import GUARD
from tests.storage.databases import opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from sync_worker.storage.database import Database, Transaction

pytestmark = pytest.mark.anyio

PUT = "INSERT INTO state (name, value, at) VALUES (?, '', NOW())"
NAMES = "SELECT name FROM state ORDER BY name"


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Database]:
    async with opened(database_url) as database:
        yield database


async def names(db: Database) -> list[str]:
    return [row[0] for row in await db.read(lambda tx: tx.execute(NAMES))]


async def put(db: Database, name: str) -> None:
    await db.run(lambda tx: tx.execute(PUT, (name,)))


def put_and_notify(tx: Transaction) -> None:
    tx.execute(PUT, ("a",))
    tx.notify()


async def first_wake(db: Database) -> None:
    """Wait for the one that says that watching has begun."""
    async with asyncio.timeout(GUARD):
        while not await db.changed(GUARD):
            pass


# --- the address -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "",
        "work.db",
        "mysql://root:hunter2@db/work",
        "sqlite:",
        "sqlite://",
        "sqlite:///",
        "sqlite://hunter2/work.db",
        "sqlite:///:memory:",
        "sqlite:///work.db?password=hunter2",
        "postgres://user:hunter2@host:port/db",
        "postgresql://user:hunter2@host/db?nonsense=hunter2",
        "postgresql://user:hunter2%@host/db",
        "postgresql://user:a@hunter2@host/db",
        "postgresql://user:a/hunter2@host/db",
        "postgresql://user:1/hunter2@host/db",
    ],
)
async def test_a_wrong_address_is_a_configuration_error_without_the_password(url: str) -> None:
    with pytest.raises(ConfigurationError, match="DATABASE_URL") as caught:
        open_database(url, CLOCK, TIMINGS)
    assert "hunter2" not in str(caught.value)


async def test_a_relative_address_is_relative_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with opened("sqlite:///here.db"):
        assert (tmp_path / "here.db").exists()


async def test_postgres_without_its_driver_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "sync_worker.storage.postgres", raising=False)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'sanity-clerk-sync\[postgres\]'"):
        open_database("postgres://user:pw@127.0.0.1/db", CLOCK, TIMINGS)


# --- transactions ----------------------------------------------------------------------------------------------------


async def test_what_ran_is_there_for_the_next_reader(db: Database) -> None:
    await put(db, "a")
    assert await names(db) == ["a"]


async def test_the_result_of_the_work_is_returned(db: Database) -> None:
    assert await db.run(lambda tx: tx.execute("SELECT 40 + ?", (2,))) == [(42,)]


async def test_rows_of_many_statements_come_in_their_order(db: Database) -> None:
    rows = await db.run(lambda tx: tx.executemany(f"{PUT} RETURNING name", [("b",), ("a",), ("c",)]))
    assert rows == [("b",), ("a",), ("c",)]


async def test_failing_work_leaves_nothing_and_raises_what_it_raised(db: Database) -> None:
    def work(tx: Transaction) -> None:
        tx.execute(PUT, ("a",))
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        await db.run(work)
    assert await names(db) == []


async def test_failing_work_does_not_hurt_work_at_the_same_time(db: Database) -> None:
    def fail(tx: Transaction) -> None:
        tx.execute(PUT, ("bad",))
        raise LookupError

    results = await asyncio.gather(
        *(put(db, f"{n:02}") for n in range(20)),
        db.run(fail),
        *(put(db, f"{n:02}") for n in range(20, 40)),
        return_exceptions=True,
    )
    assert [type(r) for r in results if r is not None] == [LookupError]
    assert await names(db) == [f"{n:02}" for n in range(40)]


async def test_work_that_violates_a_constraint_raises_the_drivers_error_and_leaves_nothing(db: Database) -> None:
    def work(tx: Transaction) -> None:
        tx.execute(PUT, ("a",))
        tx.execute(PUT, ("a",))

    with pytest.raises(Exception, match=r"(?i)unique"):
        await db.run(work)
    assert await names(db) == []


async def test_a_failed_statement_that_the_work_overlooks_is_not_taken_for_a_commit(postgres_url: str) -> None:
    def work(tx: Transaction) -> None:
        tx.execute(PUT, ("a",))
        with pytest.raises(Exception, match="no_such_table"):
            tx.execute("SELECT * FROM no_such_table")

    async with opened(postgres_url) as db:
        with pytest.raises(DatabaseUnavailable):
            await db.run(work)
        assert await names(db) == []


async def test_a_read_cannot_write(db: Database) -> None:
    with pytest.raises(DatabaseUnavailable, match=r"(?i)read.?only"):
        await db.read(lambda tx: tx.execute(PUT, ("a",)))
    assert await names(db) == []


async def test_a_read_does_not_wait_for_work_that_is_under_way(db: Database) -> None:
    begun, may_end = threading.Event(), threading.Event()

    def work(tx: Transaction) -> None:
        tx.execute(PUT, ("a",))
        begun.set()
        assert may_end.wait(GUARD)

    running = asyncio.create_task(db.run(work))
    await asyncio.to_thread(begun.wait, GUARD)
    try:
        assert await names(db) == []
    finally:
        may_end.set()
    await running
    assert await names(db) == ["a"]


async def test_a_caller_that_gave_up_does_not_hold_up_the_others(db: Database) -> None:
    given_up = [asyncio.create_task(put(db, f"{n}")) for n in range(20)]
    await asyncio.sleep(0)
    for task in given_up:
        task.cancel()
    await put(db, "z")
    assert (await names(db))[-1] == "z"
    assert all(task.cancelled() for task in given_up)


async def test_now_is_the_clock_that_was_passed_in(database_url: str) -> None:
    clock = ManualClock(1234.5)
    async with opened(database_url, clock, server_clock=clock) as db:
        assert await db.run(lambda tx: (tx.now, tx.execute("SELECT NOW()")[0][0])) == (1234.5, 1234.5)


async def test_a_server_goes_by_its_own_clock_whatever_ours_shows(postgres_url: str) -> None:
    async with opened(postgres_url, ManualClock(1234.5)) as db:
        assert await db.run(lambda tx: tx.now) > 1.7e9


async def test_now_goes_on_by_itself(db: Database) -> None:
    first = await db.run(lambda tx: tx.now)
    second = await db.run(lambda tx: tx.execute("SELECT NOW()")[0][0])
    assert 1.7e9 < first < second


async def test_work_before_start_and_after_close_is_refused(database_url: str) -> None:
    db = open_database(database_url, CLOCK, TIMINGS)
    with pytest.raises(DatabaseUnavailable, match="not open"):
        await names(db)
    await db.start()
    await db.close()
    with pytest.raises(DatabaseUnavailable, match="not open"):
        await names(db)


async def test_what_was_handed_in_before_close_is_done(database_url: str) -> None:
    db = open_database(database_url, CLOCK, TIMINGS)
    await db.start()
    writes = [asyncio.create_task(put(db, f"{n:02}")) for n in range(30)]
    await asyncio.sleep(0)
    await db.close()
    await asyncio.gather(*writes)
    async with opened(database_url) as again:
        assert await names(again) == [f"{n:02}" for n in range(30)]


# --- wake-ups --------------------------------------------------------------------------------------------------------


async def test_a_committed_notify_ends_the_wait(db: Database) -> None:
    waiting = asyncio.create_task(db.changed(60))
    await asyncio.sleep(0)
    await db.run(put_and_notify)
    assert await asyncio.wait_for(waiting, GUARD)


async def test_a_commit_between_looking_and_waiting_is_not_overlooked(db: Database) -> None:
    assert await names(db) == []
    await db.run(put_and_notify)
    assert await asyncio.wait_for(db.changed(60), GUARD)


async def test_a_wait_that_was_cancelled_does_not_swallow_the_commit(db: Database) -> None:
    waiting = asyncio.create_task(db.changed(60))
    await asyncio.sleep(0)
    await db.run(put_and_notify)
    waiting.cancel()
    seen = (await asyncio.gather(waiting, return_exceptions=True))[0] is True
    assert seen or await asyncio.wait_for(db.changed(60), GUARD)


async def test_without_a_commit_the_wait_ends_at_its_timeout(db: Database) -> None:
    await put(db, "no notify")
    assert not await db.changed(0.02)


async def test_work_that_failed_wakes_nobody(db: Database) -> None:
    def work(tx: Transaction) -> None:
        put_and_notify(tx)
        raise LookupError

    with pytest.raises(LookupError):
        await db.run(work)
    assert not await db.changed(0.05)


async def test_a_commit_of_another_process_ends_the_wait(database_url: str) -> None:
    async with opened(database_url, watch=True) as watching, opened(database_url) as other:
        await first_wake(watching)
        waiting = asyncio.create_task(watching.changed(60))
        await asyncio.sleep(0)
        await other.run(put_and_notify)
        assert await asyncio.wait_for(waiting, GUARD)


async def test_own_commits_without_notify_do_not_wake_a_watcher(database_url: str) -> None:
    async with opened(database_url, watch=True) as watching:
        await first_wake(watching)
        await put(watching, "a")
        assert not await watching.changed(0.1)


async def test_closing_ends_a_wait_at_once(database_url: str) -> None:
    db = open_database(database_url, CLOCK, TIMINGS, watch=True)
    await db.start()
    waiting = asyncio.create_task(db.changed(60))
    await asyncio.sleep(0)
    async with asyncio.timeout(GUARD):
        await db.close()
        await waiting


# --- tables ----------------------------------------------------------------------------------------------------------


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

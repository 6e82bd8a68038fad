"""Addresses and short transactions, on both databases; what only one of them has is in its own file."""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from sync_worker.errors import ConfigurationError, DatabaseUnavailable
from sync_worker.runtime.wiring import open_database
from tests.clock import CLOCK, TIMINGS, ManualClock
from tests.oracle import GUARD
from tests.storage.databases import opened
from tests.storage.rows import PUT, names, put

if TYPE_CHECKING:
    from pathlib import Path

    from sync_worker.storage.database import Database, Transaction

pytestmark = pytest.mark.anyio


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


async def test_now_goes_on_by_itself(database_url: str) -> None:
    async with opened(database_url) as db:
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

"""What only SQLite has: shared commits, WAL, and trouble with a file."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import threading
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest

from sync_worker.errors import ConfigurationError, DatabaseUnavailable
from sync_worker.storage import queue as queue_module
from sync_worker.storage import sqlite_thread
from sync_worker.storage.queue import WorkQueue
from sync_worker.storage.sqlite import SqliteDatabase
from sync_worker.storage.work_items import Completed, WorkItem
from tests.clock import CLOCK, TIMINGS
from tests.oracle import GUARD

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from sync_worker.storage.database import Transaction
    from sync_worker.storage.work_items import Claim

pytestmark = pytest.mark.anyio

PUT = "INSERT INTO state (name, value, at) VALUES (?, '', 0)"
COUNT = "SELECT COUNT(*) FROM state"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "work.db"


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[SqliteDatabase]:
    db = SqliteDatabase(str(path), CLOCK, replace(TIMINGS, sqlite_busy_timeout=0.05))
    await db.start()
    try:
        yield db
    finally:
        await db.close()


async def put(db: SqliteDatabase, name: str) -> None:
    await db.run(lambda tx: tx.execute(PUT, (name,)))


async def count(db: SqliteDatabase) -> int:
    return int((await db.read(lambda tx: tx.execute(COUNT)))[0][0])


def flushing(tx: Transaction) -> str:
    """Return how far the commit that is under way goes."""
    return {1: "NORMAL", 2: "FULL"}[tx.execute("PRAGMA synchronous")[0][0]]


async def test_only_durable_work_is_flushed_to_the_disk(path: Path) -> None:
    async with opened(path) as db:
        assert [await db.run(flushing), await db.run_volatile(flushing), await db.run(flushing)] == [
            "FULL",
            "NORMAL",
            "FULL",
        ]


async def test_volatile_work_is_flushed_with_durable_work_that_shares_its_commit(path: Path) -> None:
    going = threading.Event()

    def wait(_: Transaction) -> None:
        going.wait(GUARD)

    async with opened(path) as db:
        first = asyncio.create_task(db.run(wait))
        await asyncio.sleep(0)
        both = [asyncio.create_task(run(flushing)) for run in (db.run_volatile, db.run)]
        await asyncio.sleep(0)
        going.set()
        await first
        assert await asyncio.gather(*both) == ["FULL", "FULL"]


async def test_a_claim_is_not_flushed_and_what_was_accepted_is(path: Path) -> None:
    seen: list[str] = []

    def look(*given: Any) -> list[Claim]:
        seen.extend(flushing(tx) for tx in given if hasattr(tx, "notify"))
        return []

    async with opened(path) as db:
        queue = WorkQueue(db, TIMINGS)
        with patch.object(queue_module, "_claims", look), patch.object(WorkQueue, "_enqueue", look):
            await queue.claim(0, 1, 30.0)
            await queue.enqueue([WorkItem("user:user_1")])
    assert seen == ["NORMAL", "FULL"]


async def test_an_address_that_was_looked_up_is_gone_from_the_file_too(path: Path) -> None:
    async with opened(path) as db:
        queue = WorkQueue(db, TIMINGS)
        await queue.enqueue([WorkItem(f"email:ada-{number}@example.com") for number in range(100)])
        for _ in range(2):
            claims = await queue.claim_lookups(0, 50, 30.0)
            await queue.complete([Completed(claim) for claim in claims])
    assert b"ada-" not in path.read_bytes()  # noqa: ASYNC240 - it is small


async def test_work_that_came_during_a_commit_shares_the_next_one(path: Path) -> None:
    begun, may_end = threading.Event(), threading.Event()
    seen: list[tuple[int, int]] = []

    def hold(_: Transaction) -> None:
        begun.set()
        assert may_end.wait(GUARD)

    def look(tx: Transaction) -> None:
        seen.append((tx.execute(COUNT)[0][0], outsider.execute(COUNT).fetchone()[0]))
        tx.execute(PUT, (f"{len(seen)}",))

    async with opened(path) as db:
        outsider = sqlite3.connect(path, check_same_thread=False)
        holding = asyncio.create_task(db.run(hold))
        await asyncio.to_thread(begun.wait, GUARD)
        others = [asyncio.create_task(db.run(look)) for _ in range(5)]
        await asyncio.sleep(0)
        may_end.set()
        await asyncio.gather(holding, *others)
        outsider.close()
    assert seen == [(n, 0) for n in range(5)]


async def test_closing_finishes_the_work_that_waits(path: Path) -> None:
    begun, may_end = threading.Event(), threading.Event()

    def hold(_: Transaction) -> None:
        begun.set()
        assert may_end.wait(GUARD)

    db = SqliteDatabase(str(path), CLOCK, TIMINGS)
    await db.start()
    works = [asyncio.create_task(db.run(hold))]
    await asyncio.to_thread(begun.wait, GUARD)
    works += [asyncio.create_task(put(db, f"{n}")) for n in range(3)]
    await asyncio.sleep(0)
    closing = asyncio.create_task(db.close())
    await asyncio.sleep(0)
    with pytest.raises(DatabaseUnavailable, match="not open"):
        await put(db, "too late")
    assert not closing.done()
    asyncio.get_running_loop().call_later(0.05, may_end.set)
    async with asyncio.timeout(GUARD):
        await asyncio.gather(closing, *works)
    async with opened(path) as again:
        assert await count(again) == 3


async def test_a_file_that_another_process_uses_without_wal_is_waited_for(path: Path) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("CREATE TABLE theirs (a)")
    other.execute("BEGIN IMMEDIATE")
    db = SqliteDatabase(str(path), CLOCK, TIMINGS)
    starting = asyncio.create_task(db.start())
    assert not (await asyncio.wait({starting}, timeout=0.1))[0]
    other.execute("ROLLBACK")
    async with asyncio.timeout(GUARD):
        await starting
    other.close()
    await db.close()


async def test_the_file_is_in_wal_mode_and_every_commit_is_flushed(path: Path) -> None:
    async with opened(path) as db:
        modes = await db.run(lambda tx: tx.execute("PRAGMA journal_mode") + tx.execute("PRAGMA synchronous"))
    assert modes == [("wal",), (2,)]


async def test_a_file_that_cannot_be_in_wal_mode_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match="journal mode memory"):
        await SqliteDatabase(":memory:", CLOCK, TIMINGS).start()


async def test_a_sqlite_without_returning_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
    with pytest.raises(ConfigurationError, match=r"3\.35"):
        await SqliteDatabase(str(path), CLOCK, TIMINGS).start()


async def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"the folder of .*/nowhere/work\.db does not exist"):
        await SqliteDatabase(str(tmp_path / "nowhere" / "work.db"), CLOCK, TIMINGS).start()


async def test_only_the_owner_can_read_the_files(path: Path) -> None:
    async with opened(path) as db:
        await put(db, "a")
        modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    assert modes == {"work.db": 0o600, "work.db-shm": 0o600, "work.db-wal": 0o600}


@pytest.mark.parametrize("run", [SqliteDatabase.run, SqliteDatabase.run_volatile])
async def test_a_failed_write_is_remembered_whether_it_was_durable_or_not(path: Path, run: Callable[..., Any]) -> None:
    async with opened(path) as db:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(DatabaseUnavailable, match="locked"):
                await run(db, lambda tx: tx.execute(PUT, ("one",)))
            other.execute("ROLLBACK")
        assert db.write_failed


async def test_a_file_that_another_process_keeps_locked_is_unavailable_until_it_lets_go(path: Path) -> None:
    async with opened(path) as db:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseUnavailable, match="locked"):
            await put(db, "a")
        assert await count(db) == 0
        other.execute("ROLLBACK")
        other.close()
        await put(db, "a")
        assert await count(db) == 1


async def test_a_short_lock_is_waited_for(path: Path) -> None:
    db = SqliteDatabase(str(path), CLOCK, TIMINGS)
    await db.start()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    writing = asyncio.create_task(put(db, "a"))
    assert not (await asyncio.wait({writing}, timeout=0.1))[0]
    other.execute("ROLLBACK")
    other.close()
    await writing
    await db.close()


def spoil(path: Path, keep: int = 4096) -> None:
    """Overwrite a file with nonsense, all but its beginning."""
    content = path.read_bytes() if path.exists() else b""
    path.write_bytes(content[:keep] + b"nonsense" * 10_000)


async def test_a_damaged_file_says_what_to_do(path: Path) -> None:
    spoil(path, keep=0)
    with pytest.raises(DatabaseUnavailable, match=r"damaged.*move it away"):
        async with opened(path):
            pass


async def test_a_file_that_is_damaged_while_in_use_says_what_to_do(path: Path) -> None:
    async with opened(path) as db:
        await db.run(lambda tx: tx.executemany(PUT, [(f"{n:05}" * 50,) for n in range(500)]))
    spoil(path)
    with pytest.raises(DatabaseUnavailable, match="damaged"):
        async with opened(path) as db:
            await count(db)


FULL_DISK = """
import asyncio, resource, sys
from pathlib import Path
from sync_worker.runtime.system_clock import SystemClock
from sync_worker.errors import DatabaseUnavailable
from sync_worker.storage.sqlite import SqliteDatabase
from sync_worker.domain.timings import Timings

PUT = "INSERT INTO state (name, value, at) VALUES (?, ?, 0)"

async def main(path):
    db = SqliteDatabase(path, SystemClock(), Timings())
    await db.start()
    small = Path(path + "-wal").stat().st_size + 20_000
    resource.setrlimit(resource.RLIMIT_FSIZE, (small, resource.RLIM_INFINITY))
    acknowledged, refused = [], []
    for n in range(10):
        try:
            await db.run(lambda tx: tx.execute(PUT, (str(n), "x" * 9000)))
            acknowledged.append(n)
        except DatabaseUnavailable:
            refused.append(n)
    assert acknowledged and refused, (acknowledged, refused)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await db.run(lambda tx: tx.execute(PUT, ("after", "")))
    rows = await db.read(lambda tx: tx.execute("SELECT name FROM state"))
    assert {row[0] for row in rows} == {*map(str, acknowledged), "after"}, rows
    await db.close()

asyncio.run(main(sys.argv[1]))
"""


def test_after_a_full_disk_the_next_call_works_and_what_was_acknowledged_is_there(path: Path) -> None:
    subprocess.run([sys.executable, "-c", FULL_DISK, str(path)], check=True, timeout=30)


def test_each_word_of_the_common_sql_is_translated() -> None:
    assert (
        sqlite_thread.translated(
            "SELECT LEAST(a, GREATEST(b, c)) FROM t WHERE a IN (EACH(?)) FOR UPDATE SKIP LOCKED"
        ).strip()
        == "SELECT min(a, max(b, c)) FROM t WHERE a IN (SELECT value FROM json_each(?))"
    )

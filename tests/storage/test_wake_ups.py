"""A commit wakes who waits for it, in this process and in others, on both databases."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from sync_worker.runtime.wiring import open_database
from tests.clock import CLOCK, TIMINGS
from tests.oracle import GUARD
from tests.storage.databases import opened
from tests.storage.rows import names, put, put_and_notify

if TYPE_CHECKING:
    from sync_worker.storage.database import Database, Transaction

pytestmark = pytest.mark.anyio


async def first_wake(db: Database) -> None:
    """Wait for the one that says that watching has begun."""
    async with asyncio.timeout(GUARD):
        while not await db.changed(GUARD):
            pass


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

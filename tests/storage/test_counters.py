"""Counts that all processes share: none is lost, none is counted twice, and nothing is written for nothing."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from sync_worker.errors import DatabaseUnavailable
from sync_worker.storage.counters import Counters
from sync_worker.storage.queue_admin import QueueAdmin
from sync_worker.transport import Call
from tests.clock import TIMINGS
from tests.oracle import GUARD, until_seen
from tests.storage.databases import opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sync_worker.storage.database import Database

pytestmark = pytest.mark.anyio
PATCHED = Call("Clerk", "PATCH", "200", 0.1)
CALLS = ("calls", "Clerk", "200")
OFTEN = replace(TIMINGS, counter_flush_interval=0.02)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with opened(database_url) as database:
        yield database


async def test_what_several_processes_count_at_once_adds_up(database_url: str) -> None:
    async def process(database: Database) -> None:
        own = Counters(QueueAdmin(database, TIMINGS), TIMINGS)
        for _ in range(20):
            own.call(PATCHED)
            own.webhook("sanity", "accepted")
            await own.flush()

    async with opened(database_url) as one, opened(database_url) as other:
        await asyncio.gather(process(one), process(other))
        assert await Counters(QueueAdmin(one, TIMINGS), TIMINGS).recall() == {
            CALLS: 40,
            ("webhooks", "sanity", "accepted"): 40,
        }


async def test_a_new_process_goes_on_where_the_last_one_ended(database: Database) -> None:
    for _ in range(2):
        own = Counters(QueueAdmin(database, TIMINGS), TIMINGS)
        own.call(PATCHED)
        await own.flush()
    assert (await own.recall())[CALLS] == 2


async def test_what_was_counted_last_is_added_when_the_process_ends(database: Database) -> None:
    own = Counters(QueueAdmin(database, TIMINGS), TIMINGS)
    async with own.kept():
        own.call(PATCHED)
    assert await own.recall() == {CALLS: 1}


async def test_it_is_added_every_few_seconds(database: Database) -> None:
    own = Counters(QueueAdmin(database, TIMINGS), OFTEN)
    async with own.kept():
        for count in (1, 2):
            own.call(PATCHED)
            await until_seen(own.recall, {CALLS: count}.__eq__)


async def test_nothing_is_written_when_nothing_was_counted(database: Database) -> None:
    own = Counters(QueueAdmin(database, TIMINGS), TIMINGS)
    await database.close()
    await own.flush()  # would raise


async def test_what_could_not_be_added_is_added_later_and_once(database_url: str) -> None:
    async with opened(database_url) as database:
        own = Counters(QueueAdmin(database, TIMINGS), TIMINGS)
    own.call(PATCHED)
    with pytest.raises(DatabaseUnavailable):
        await own.flush()
    own.call(PATCHED)
    await database.start()
    await own.flush()
    await own.flush()
    assert (await own.recall())[CALLS] == 2
    await database.close()


async def test_a_database_that_is_gone_does_not_end_the_process(database_url: str) -> None:
    failed = asyncio.Event()

    class Watched(Counters):
        async def flush(self) -> None:
            try:
                await super().flush()
            except DatabaseUnavailable:
                failed.set()
                raise

    async with opened(database_url) as database:
        own = Watched(QueueAdmin(database, TIMINGS), OFTEN)
    async with own.kept():
        own.call(PATCHED)
        await asyncio.wait_for(failed.wait(), GUARD)
        await database.start()
    assert (await own.recall())[CALLS] == 1
    await database.close()


async def test_a_change_is_counted_by_its_kind_and_by_the_time_since_its_publish(database: Database) -> None:
    own = Counters(QueueAdmin(database, TIMINGS), TIMINGS)
    for seconds in (0.1, 0.3, 7200.0, None):
        own.change("revoke", seconds)
    await own.flush()
    assert await own.recall() == {
        ("changes", "revoke"): 4,
        ("publish_to_clerk", "0.1"): 1,
        ("publish_to_clerk", "0.5"): 1,
        ("publish_to_clerk", "inf"): 1,
        ("publish_to_clerk_ms",): 7_200_400,
    }


async def test_names_that_only_begin_alike_are_not_totals(database: Database) -> None:
    admin = QueueAdmin(database, TIMINGS)
    for name in ("total", "totals:calls:x", "total;x", "tota:x", "Total:x"):
        await admin.remember(name, "1")
    assert await Counters(admin, TIMINGS).recall() == {}

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sync_worker.storage.liveness import Liveness, note_of
from sync_worker.storage.queue import WorkQueue
from tests.clock import TIMINGS, ManualClock
from tests.storage.databases import opened_on

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sync_worker.storage.database import Database

pytestmark = pytest.mark.anyio


@pytest.fixture
async def database(sqlite_url: str, clock: ManualClock) -> AsyncIterator[Database]:
    async with opened_on(sqlite_url, clock) as database:
        yield database


async def received_at(database: Database) -> float | None:
    note = await WorkQueue(database, TIMINGS).recall(note_of("sanity"))
    return note[1] if note else None


async def test_a_burst_is_noted_once_and_a_later_webhook_again(database: Database, clock: ManualClock) -> None:
    liveness, started = Liveness(WorkQueue(database, TIMINGS), clock, TIMINGS), clock.now()
    for _ in range(3):
        await liveness.now("sanity")
        clock.advance(TIMINGS.liveness_note_interval / 3 - 0.1)
    assert await received_at(database) == started
    clock.advance(1)
    await liveness.now("sanity")
    assert await received_at(database) == clock.now()


async def test_each_service_is_noted_by_itself(database: Database, clock: ManualClock) -> None:
    liveness = Liveness(WorkQueue(database, TIMINGS), clock, TIMINGS)
    await liveness.now("clerk")
    assert await received_at(database) is None
    await liveness.now("sanity")
    assert await received_at(database) == clock.now()


async def test_trouble_with_the_database_is_kept_from_the_sender(database: Database, clock: ManualClock) -> None:
    await database.close()
    await Liveness(WorkQueue(database, TIMINGS), clock, TIMINGS).now("sanity")

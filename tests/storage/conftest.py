"""A database and its queue, on a clock that the test moves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sync_worker.storage.queue import WorkQueue
from tests.clock import TIMINGS, ManualClock
from tests.storage.databases import opened_on

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sync_worker.storage.database import Database


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def db(database_url: str, clock: ManualClock) -> AsyncIterator[Database]:
    async with opened_on(database_url, clock) as database:
        yield database


@pytest.fixture
async def queue(db: Database) -> WorkQueue:
    return WorkQueue(db, TIMINGS)

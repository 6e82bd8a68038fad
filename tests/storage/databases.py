"""A database that a test opens for itself."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from sync_worker.runtime.wiring import open_database
from tests.clock import CLOCK, TIMINGS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from sync_worker.domain.clock import Clock
    from sync_worker.storage.database import Database
    from tests.clock import ManualClock


@asynccontextmanager
async def opened(url: str, clock: Clock = CLOCK, **options: Any) -> AsyncIterator[Database]:
    database = open_database(url, clock, TIMINGS, **options)
    await database.start()
    try:
        yield database
    finally:
        await database.close()


def opened_on(url: str, clock: ManualClock) -> AbstractAsyncContextManager[Database]:
    """Open a database whose server goes by the test's clock too."""
    return opened(url, clock, server_clock=clock)

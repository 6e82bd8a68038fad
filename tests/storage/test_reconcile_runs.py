"""The lock of a reconcile: it is renewed while the run lives, whatever happens to a single renewal."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import pytest

from sync_worker.errors import DatabaseUnavailable
from sync_worker.storage.reconcile_runs import ReconcileRuns, exclusive_run
from tests.clock import TIMINGS, ManualClock
from tests.oracle import GUARD

if TYPE_CHECKING:
    from collections.abc import Collection

    from sync_worker.storage.database import Database

pytestmark = pytest.mark.anyio
LONGER_THAN_A_LEASE = int(TIMINGS.reconcile_lock // TIMINGS.reconcile_lock_renewal) + 2


@dataclass
class Unreliable:
    """A database whose writes fail, those with the given numbers. The first is the one that takes the lock."""

    db: Database
    failing: Collection[int]
    writes: int = 0
    outlived: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, work: Any) -> Any:
        self.writes += 1
        if self.writes > LONGER_THAN_A_LEASE:
            self.outlived.set()
            await asyncio.Event().wait()  # the clock does not move from here
        if self.writes in self.failing:
            raise DatabaseUnavailable("It is locked.")
        return await self.db.run(work)


async def second_run_gets_in(db: Database, clock: ManualClock, failing: Collection[int]) -> bool:
    """Return whether a second run can start when the first has lived longer than a lease."""
    unreliable = Unreliable(db, failing)
    async with exclusive_run(ReconcileRuns(cast("Database", unreliable), TIMINGS), clock, TIMINGS):
        async with asyncio.timeout(GUARD):
            await unreliable.outlived.wait()
        unreliable.writes = 1 - LONGER_THAN_A_LEASE  # so that the lock can be released
        return await ReconcileRuns(db, TIMINGS).lock("second").acquire()


@pytest.mark.parametrize("failing", [(), (2,), (4,)], ids=["none", "the first", "a later one"])
async def test_the_lock_survives_one_failed_renewal(db: Database, clock: ManualClock, failing: tuple[int, ...]) -> None:
    assert not await second_run_gets_in(db, clock, failing)


async def test_a_run_that_cannot_renew_its_lock_keeps_no_other_out(db: Database, clock: ManualClock) -> None:
    assert await second_run_gets_in(db, clock, range(2, 100))


async def test_a_run_that_cannot_release_its_lock_has_still_ended_well(db: Database, clock: ManualClock) -> None:
    class Stopped(ManualClock):
        async def sleep(self, _: float) -> None:
            await asyncio.Event().wait()

    async with exclusive_run(ReconcileRuns(cast("Database", Unreliable(db, (2,))), TIMINGS), Stopped(), TIMINGS):
        pass
    clock.advance(TIMINGS.reconcile_lock + 1)
    assert await ReconcileRuns(db, TIMINGS).lock("second").acquire()

"""The call budget: the whole limit at once, never more than the limit in any window, direct calls first."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import TYPE_CHECKING, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync_worker.errors import DatabaseUnavailable
from sync_worker.storage.rate_limit import Budget, Window
from tests.clock import TIMINGS, ManualClock
from tests.oracle import GUARD
from tests.storage.databases import opened_on

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from sync_worker.storage.database import Database, Transaction

T = TypeVar("T")

LIMIT, WINDOW, SLOT = 20, TIMINGS.budget_window, TIMINGS.budget_slot
RESERVE = 1


@pytest.fixture
def budget(db: Database, clock: ManualClock) -> Budget:
    return Budget(db, "clerk", LIMIT, clock, TIMINGS)


async def all_of(calls: list[Coroutine[object, object, None]]) -> None:
    async with asyncio.timeout(GUARD):
        await asyncio.gather(*calls)


def most_in_a_window(moments: list[float]) -> int:
    return max(sum(start <= moment < start + WINDOW for moment in moments) for start in moments)


@given(
    limit=st.integers(1, 40),
    asks=st.lists(st.tuples(st.floats(0, 12), st.integers(1, 60), st.floats(0, SLOT)), max_size=60),
)
def test_no_window_ever_holds_more_than_the_limit_even_of_calls_that_are_sent_late(
    limit: int, asks: list[tuple[float, int, float]]
) -> None:
    now, window, moments = 1_000_000.0, Window(limit, WINDOW, SLOT, {}), list[float]()
    for gap, requested, late in asks:
        now += gap
        window = window.at(now)
        granted = min(requested, window.available())
        window = window.grant(granted, now)
        moments += [now + late] * granted
    assert not moments or most_in_a_window(moments) <= limit


@given(
    grants=st.lists(st.tuples(st.floats(0, 3), st.integers(1, 10)), min_size=1, max_size=20),
    reserved=st.integers(0, 5),
)
def test_a_full_window_grants_at_the_moment_it_names_and_not_before(
    grants: list[tuple[float, int]], reserved: int
) -> None:
    now, window = 1_000_000.0, Window(LIMIT, WINDOW, SLOT, {})
    for gap, calls in grants:
        now += gap
        window = window.at(now)
        window = window.grant(min(calls, window.available()), now)
    window = window.grant(window.available(), now)
    opens = window.opens(reserved=reserved)
    assert now < opens <= now + WINDOW + 2 * SLOT
    assert window.at(opens).available(reserved=reserved) > 0
    assert window.at(opens - SLOT / 2).available(reserved=reserved) == 0


def test_a_clock_that_was_set_back_locks_nobody_out_for_longer_than_a_window() -> None:
    window = Window(LIMIT, WINDOW, SLOT, {}).grant(LIMIT, 1_000_000.0)
    earlier = window.at(900_000.0)
    assert earlier.available() == 0
    assert earlier.at(900_000.0 + WINDOW + 2 * SLOT).available() == LIMIT


@pytest.mark.anyio
async def test_after_a_rest_the_whole_limit_goes_out_at_once(budget: Budget, clock: ManualClock) -> None:
    await all_of([budget.take() for _ in range(LIMIT)])
    assert clock.slept == []


@pytest.mark.anyio
async def test_one_more_than_the_limit_waits_for_the_window(budget: Budget, clock: ManualClock) -> None:
    start = clock.now()
    await all_of([budget.take() for _ in range(LIMIT + 1)])
    assert WINDOW <= clock.now() - start <= WINDOW + 2 * SLOT
    assert len(clock.slept) == 1


@pytest.mark.anyio
async def test_calls_that_wait_are_spread_so_that_no_window_has_too_many(budget: Budget, clock: ManualClock) -> None:
    moments: list[float] = []

    async def call() -> None:
        await budget.take()
        moments.append(clock.now())

    await all_of([call() for _ in range(LIMIT * 5)])
    assert len(moments) == LIMIT * 5
    assert most_in_a_window(moments) == LIMIT
    assert max(moments) - min(moments) <= 4 * (WINDOW + 2 * SLOT)


@pytest.mark.anyio
async def test_calls_that_wait_together_are_one_transaction(
    budget: Budget, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    transactions: list[object] = []
    run = db.run

    async def counted(work: Callable[[Transaction], T]) -> T:
        transactions.append(work)
        return await run(work)

    monkeypatch.setattr(db, "run", counted)
    await all_of([budget.take() for _ in range(LIMIT)])
    assert len(transactions) == 1


@pytest.mark.anyio
async def test_who_came_first_goes_first(budget: Budget) -> None:
    order: list[int] = []

    async def call(number: int) -> None:
        await budget.take()
        order.append(number)

    await all_of([call(number) for number in range(LIMIT * 3)])
    assert order == list(range(LIMIT * 3))


@pytest.mark.anyio
async def test_direct_calls_go_before_fan_out_and_fan_out_before_repair(budget: Budget) -> None:
    order: list[int] = []

    async def call(lane: int) -> None:
        await budget.take(lane)
        order.append(lane)

    await all_of([budget.take() for _ in range(LIMIT)])
    await all_of([call(lane) for lane in (2, 1, 0) * 5])
    assert order == [0] * 5 + [1] * 5 + [2] * 5


@pytest.mark.anyio
@pytest.mark.parametrize("lane", [1, 2])
async def test_bulk_calls_leave_a_tenth_for_direct_ones(budget: Budget, clock: ManualClock, lane: int) -> None:
    await all_of([budget.take(lane) for _ in range(LIMIT - RESERVE)])
    assert (await budget.left(lane), await budget.left()) == (0, RESERVE)
    await all_of([budget.take() for _ in range(RESERVE)])
    assert clock.slept == []


class SleepingClock(ManualClock):
    """A clock on which a sleep never ends."""

    def __init__(self) -> None:
        super().__init__()
        self.asleep = asyncio.Event()

    async def sleep(self, _: float) -> None:
        self.asleep.set()
        await asyncio.Event().wait()


@pytest.mark.anyio
async def test_a_direct_call_does_not_wait_for_bulk_calls_that_wait(db: Database) -> None:
    clock = SleepingClock()
    budget = Budget(db, "clerk", LIMIT, clock, TIMINGS)
    bulk = [asyncio.create_task(budget.take(1)) for _ in range(LIMIT)]
    async with asyncio.timeout(GUARD):
        await clock.asleep.wait()
        await budget.take(0)
    assert sum(task.done() for task in bulk) == LIMIT - RESERVE
    for task in bulk:
        task.cancel()


@pytest.mark.anyio
async def test_a_caller_that_gave_up_takes_nothing(budget: Budget) -> None:
    tasks = [asyncio.create_task(budget.take()) for _ in range(LIMIT)]
    await asyncio.sleep(0)
    for task in tasks[: LIMIT - 1]:
        task.cancel()
    await tasks[-1]
    assert await budget.left() == LIMIT - 1


@pytest.mark.anyio
async def test_names_are_counted_apart(db: Database, clock: ManualClock, budget: Budget) -> None:
    await all_of([budget.take() for _ in range(LIMIT)])
    other = Budget(db, "sanity", LIMIT, clock, TIMINGS)
    assert await other.left() == LIMIT
    await other.take()
    assert clock.slept == []


@pytest.mark.anyio
async def test_two_programs_on_one_database_share_the_limit(database_url: str, clock: ManualClock) -> None:
    clocks = SleepingClock(), SleepingClock()
    async with (
        opened_on(database_url, clock) as one,
        opened_on(database_url, clock) as two,
        asyncio.timeout(GUARD),
    ):
        budgets = [Budget(db, "clerk", LIMIT, own, TIMINGS) for db, own in zip((one, two), clocks, strict=True)]
        calls = [asyncio.create_task(budgets[n % 2].take()) for n in range(LIMIT * 2 + 2)]
        for own in clocks:
            await own.asleep.wait()
        assert sum(call.done() for call in calls) == LIMIT
        for call in calls:
            call.cancel()


@pytest.mark.anyio
async def test_a_pause_holds_everybody(database_url: str, clock: ManualClock) -> None:
    async with (
        opened_on(database_url, clock) as one,
        opened_on(database_url, clock) as two,
    ):
        first, second = (Budget(db, "clerk", LIMIT, clock, TIMINGS) for db in (one, two))
        start = clock.now()
        await first.pause(3.0)
        assert (await first.left(), await second.left()) == (0, 0)
        await second.take()
        assert clock.now() - start == 3.0
        assert clock.slept == [3.0]


@pytest.mark.anyio
async def test_of_two_pauses_the_longer_holds(budget: Budget, clock: ManualClock) -> None:
    start = clock.now()
    await budget.pause(5.0)
    await budget.pause(1.0)
    await budget.take()
    assert clock.now() - start == 5.0


@pytest.mark.anyio
async def test_a_clock_that_was_set_back_does_not_prolong_a_pause(budget: Budget, clock: ManualClock) -> None:
    await budget.pause(3.0)
    clock.advance(-3600)
    assert await budget.left() == LIMIT
    await budget.pause(2.0)
    start = clock.now()
    await budget.take()
    assert clock.now() - start == 2.0


@pytest.mark.anyio
async def test_nobody_is_held_for_longer_than_a_minute_by_one_refusal(budget: Budget, clock: ManualClock) -> None:
    start = clock.now()
    await budget.pause(86_400)
    await budget.take()
    assert clock.now() - start == 60.0


@pytest.mark.anyio
async def test_left_counts_what_may_be_sent_now(budget: Budget, clock: ManualClock) -> None:
    assert (await budget.left(), await budget.left(lane=1)) == (LIMIT, LIMIT - RESERVE)
    await all_of([budget.take() for _ in range(5)])
    assert await budget.left() == LIMIT - 5
    clock.advance(WINDOW + 2 * SLOT)
    assert await budget.left() == LIMIT


@pytest.mark.anyio
@pytest.mark.parametrize("lane", [0, 1])
async def test_so_many_calls_are_left_after_the_wait_for_them(budget: Budget, clock: ManualClock, lane: int) -> None:
    for _ in range(LIMIT - RESERVE):
        await budget.take()
        clock.advance(SLOT)
    await clock.sleep(await budget.wait_for(12, lane) - 0.001)
    assert await budget.left(lane) == 11
    await clock.sleep(0.002)
    assert await budget.left(lane) == 12


@pytest.mark.anyio
async def test_a_pause_is_waited_for_too(budget: Budget) -> None:
    await budget.pause(5.0)
    assert await budget.wait_for(1) == 5.0


@pytest.mark.anyio
async def test_without_the_database_waiting_calls_fail_and_later_calls_work(budget: Budget, db: Database) -> None:
    await db.close()
    answers = await asyncio.gather(*(budget.take(lane) for lane in (0, 1, 2)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [DatabaseUnavailable] * 3
    with pytest.raises(DatabaseUnavailable):
        await budget.left()
    with pytest.raises(DatabaseUnavailable):
        await budget.pause(1)
    await db.start()
    await budget.take()
    assert await budget.left() == LIMIT - 1


TAKE_FOR_A_WHILE = """
import asyncio, sys, time
from dataclasses import replace
from sync_worker.storage.rate_limit import Budget
from sync_worker.runtime.system_clock import SystemClock
from sync_worker.runtime.wiring import open_database
from sync_worker.domain.timings import Timings

async def main(url):
    clock, timings = SystemClock(), replace(Timings(), budget_window=1.0)
    db = open_database(url, clock, timings)
    await db.start()
    budget = Budget(db, "clerk", 20, clock, timings)
    end = time.monotonic() + 4.0
    async def call():
        while time.monotonic() < end:
            await budget.take()
            print(time.monotonic())
    await asyncio.gather(*(call() for _ in range(10)))
    await db.close()

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.full("it takes a window of real time; every commit runs the same on a virtual clock")
def test_processes_share_the_limit_in_real_time(database_url: str) -> None:
    processes = [
        subprocess.Popen([sys.executable, "-c", TAKE_FOR_A_WHILE, database_url], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    moments = sorted(float(line) for process in processes for line in process.communicate(timeout=60)[0].splitlines())
    assert 0 < len(moments) <= 100  # each for itself they would reach 120
    assert max(sum(start <= moment < start + 0.5 for moment in moments) for start in moments) <= 20

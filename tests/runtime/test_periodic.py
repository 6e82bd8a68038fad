from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from structlog.testing import capture_logs

from sync_worker.domain.clock import utc
from sync_worker.errors import ServiceUnavailable
from sync_worker.runtime.periodic import daily, every, until
from tests.clock import ManualClock

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("now", "seconds"),
    [("2026-05-01T02:00", 3600), ("2026-05-01T03:00", 86400), ("2026-05-01T04:00", 23 * 3600)],
)
def test_the_next_time_is_today_or_tomorrow(now: str, seconds: float) -> None:
    assert until("03:00", datetime.fromisoformat(now).replace(tzinfo=UTC)) == seconds


async def test_an_error_does_not_end_a_timer() -> None:
    done: list[float] = []

    async def work() -> None:
        done.append(1)
        raise ServiceUnavailable("no") if len(done) == 1 else ValueError("a bug")

    class Clock(ManualClock):
        async def sleep(self, seconds: float) -> None:
            assert seconds == 5
            if len(done) == 2:
                raise asyncio.CancelledError

    with capture_logs() as logs, pytest.raises(asyncio.CancelledError):
        await every(5, "t", work, Clock())
    assert [line["event"] for line in logs] == ["timer_failed", "timer_broken"]


async def test_zero_seconds_and_an_empty_time_are_never() -> None:
    async def work() -> None:
        raise AssertionError

    await every(0, "t", work, ManualClock())
    await daily("", "t", work, ManualClock())


async def test_once_a_day_is_at_the_time_of_day() -> None:
    clock, moments = ManualClock(datetime(2026, 5, 1, 2, tzinfo=UTC).timestamp()), list[datetime]()

    async def work() -> None:
        moments.append(utc(clock))
        clock.advance(60)
        if len(moments) == 3:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await daily("03:00", "t", work, clock)
    assert moments == [datetime(2026, 5, day, 3, tzinfo=UTC) for day in (1, 2, 3)]

"""Clocks for tests, and the timings of production for parts that a test puts together itself."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from sync_worker.domain.timings import Timings
from sync_worker.runtime.system_clock import SystemClock

CLOCK, TIMINGS = SystemClock(), Timings()
PATIENT = replace(TIMINGS, lease=400.0, run_deadline=300.0, clerk_timeout=200.0, sanity_timeout=200.0)
"""For tests that count calls: however slow the machine, none is repeated because it took too long."""


class ManualClock:
    """Moved by hand, or by sleeping on it. The time of day goes with the time that has passed."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self._now = now
        self.slept: list[float] = []

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        self._now += seconds

    async def sleep(self, seconds: float) -> None:
        """Let the time pass at once, after everybody else had their turn."""
        self.slept.append(seconds)
        await asyncio.sleep(0)
        self._now += seconds


class ShiftedClock(SystemClock):
    """The machine's clock, whose time of day is `ahead` by so many seconds. Setting that is somebody setting it."""

    def __init__(self, ahead: float = 0.0) -> None:
        self.ahead = ahead

    def now(self) -> float:
        return super().now() + self.ahead


class ImpatientClock(SystemClock):
    """The machine's clock, on which no sleep takes any time."""

    async def sleep(self, _: float) -> None:
        """Return at once."""

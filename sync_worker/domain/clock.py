"""The clock that the program goes by: the time of day, the time that has passed, and waiting."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What is asked of a clock. Everything that needs the time, or waits, is given one."""

    def now(self) -> float:
        """Return the time of day in epoch seconds. Somebody may set it, forward or back."""

    def monotonic(self) -> float:
        """Return seconds since some moment. It never goes back, but may stand still while the machine is suspended."""

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""


def utc(clock: Clock) -> datetime:
    """Return the time of day as a datetime in UTC."""
    return datetime.fromtimestamp(clock.now(), UTC)

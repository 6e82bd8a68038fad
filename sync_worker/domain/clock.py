"""The clock that is passed to everything that needs the time or has to wait."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """A wall clock, a monotonic clock, and a sleep."""

    def now(self) -> float:
        """Return the wall-clock time in epoch seconds. It can jump forward or back."""

    def monotonic(self) -> float:
        """Return seconds since an arbitrary start. It never goes back, but may stop while the machine is suspended."""

    async def sleep(self, seconds: float) -> None:
        """Wait for `seconds`."""


def utc(clock: Clock) -> datetime:
    """Return the wall-clock time as a datetime in UTC."""
    return datetime.fromtimestamp(clock.now(), UTC)

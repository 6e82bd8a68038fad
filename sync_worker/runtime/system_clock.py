"""The clock of the machine, and one that shows another time of day."""

from __future__ import annotations

import asyncio
import time


class SystemClock:
    """The clock of the machine."""

    def now(self) -> float:
        """Return the time of day in epoch seconds."""
        return time.time()

    def monotonic(self) -> float:
        """Return the machine's monotonic time."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait on the event loop."""
        await asyncio.sleep(seconds)


class ClockAt(SystemClock):
    """A clock on which it is always one moment, in epoch seconds: to see what will be then."""

    def __init__(self, moment: float) -> None:
        self._moment = moment

    def now(self) -> float:
        """Return the moment."""
        return self._moment

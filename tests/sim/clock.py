"""The clocks of the simulation: the true time, and the wall clock of the worker's machine, which may jump.

Sanity and Clerk use the true time; the worker, its database and its time windows use a clock that may be set. All count
seconds from the same moment.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime

EPOCH = datetime(2026, 5, 1, 12, tzinfo=UTC).timestamp()


@dataclass
class Clock:
    """The clock of the worker's machine. `true_time` is what it should show; `jumps` are loop times."""

    loop: asyncio.AbstractEventLoop
    skew: float = 0.0
    jumps: list[tuple[float, float]] = field(default_factory=list)

    def true_time(self) -> float:
        return EPOCH + self.loop.time()

    def now(self) -> float:
        return self.true_time() + self.skew

    def monotonic(self) -> float:
        return self.loop.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def jump(self, skew: float) -> None:
        """Set the wall clock so that it differs from the true time by `skew` seconds."""
        self.jumps.append((self.loop.time(), skew - self.skew))
        self.skew = skew

    def jumped_forth_and_back_since(self, moment: float) -> bool:
        """Return whether leases ended by a jump since a loop time, which the clock does not show any more."""
        ways = [by for at, by in self.jumps if at >= moment]
        return any(by > 0 for by in ways) and any(by < 0 for by in ways)

    def jumped_since(self, moment: float, *, forward: bool = False) -> bool:
        """Return whether the wall clock was set (forward) at or after a loop time."""
        return any(at >= moment and (by > 0 or not forward) for at, by in self.jumps)

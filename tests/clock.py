"""A clock for tests, in epoch seconds, moved by hand or by sleeping on it."""

from __future__ import annotations

import asyncio


class Clock:
    """Call it for the time."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds

    async def sleep(self, seconds: float) -> None:
        """Let the time pass at once, after everybody else had their turn."""
        self.slept.append(seconds)
        await asyncio.sleep(0)
        self.now += seconds

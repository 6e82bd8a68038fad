"""An event loop with a virtual clock: when nothing is ready, time jumps to the next timer.

The real asyncio code of the worker, with its timeouts, leases and backoffs, runs through hours within milliseconds, and
always in the same order.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

TURN = 1e-6
"""Seconds that one turn of the loop takes, so that time goes on even for somebody who is always busy."""
STUCK = 200_000
"""Turns of the loop in a row without waiting for anything: something runs in circles."""


class VirtualLoop(asyncio.BaseEventLoop):
    """Knows no sockets and no threads: only what is ready, and timers."""

    def __init__(self) -> None:
        super().__init__()
        self._selector = self
        self._now = 0.0
        self._turns = 0
        self._clock_resolution = TURN

    def time(self) -> float:
        """Return the seconds since the loop was made."""
        return self._now

    def select(self, timeout: float | None) -> list[Any]:
        """Let the time pass until the next timer, as the loop would have waited for I/O."""
        if timeout is None:
            raise RuntimeError("nothing is ready and no timer is set: everybody waits for ever")
        self._turns = 0 if timeout else self._turns + 1
        if self._turns > STUCK:
            raise RuntimeError("the loop turns and turns, and waits for nothing")
        self._now += timeout or TURN
        return []

    def run_in_executor(self, executor: object, func: Callable[..., Any], *args: Any) -> Any:  # type: ignore[override]  # noqa: ARG002 - done at once
        """Run it here and now: the SDK hands small work to threads."""
        future = self.create_future()
        future.set_result(func(*args))
        return future

    def _process_events(self, event_list: list[Any]) -> None:
        """Nothing ever comes from outside."""

    def _write_to_self(self) -> None:
        """Nobody has to be woken from another thread."""

"""The call budget: how many calls may be sent in any ten seconds, by all processes together.

The service counts our calls and the customer's own app against one limit, and answers 429 to both above it. A sliding
window, not a fixed rate, lets an idle program send its whole budget at once, which is what makes one publish fast. The
window is kept in slots, each counted until a whole slot after it has left the window, because a granted call is sent a
moment later. Lane 0 goes first and has a share reserved. The row is shared, so a 429 anywhere pauses every process.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections import deque
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sync_worker.domain.clock import Clock
    from sync_worker.domain.timings import Timings
    from sync_worker.storage.database import Database, Transaction

RESERVE = 0.025
"""The part of the limit that only lane 0 may use, rounded up: a dozen publishes at once in production. Those after them
wait until a slot leaves the window, and go first."""

READ = "SELECT slots, paused_until FROM budget WHERE name = ? {lock}"

CREATE = "INSERT INTO budget (name, slots, paused_until) VALUES (?, '{}', 0) ON CONFLICT (name) DO NOTHING"

WRITE = "UPDATE budget SET slots = ? WHERE name = ?"

# The parameters are the longest pause, the pause, and the longest one again.
PAUSE = """
UPDATE budget SET paused_until = GREATEST(
  CASE WHEN paused_until > NOW() + ? THEN 0 ELSE paused_until END, NOW() + LEAST(?, ?)
) WHERE name = ?
"""


@dataclass(frozen=True, slots=True)
class Window:
    """What was granted lately: calls by number of slot. `length` and `slot` are in seconds."""

    limit: int
    length: float
    slot: float
    slots: Mapping[int, int]

    def at(self, now: float) -> Window:
        """Return the window without what no longer counts. A clock that was set back does not lock anybody out."""
        oldest, current = (now - self.length) / self.slot - 2, int(now / self.slot)
        slots = {slot: calls for slot, calls in self.slots.items() if slot > oldest}
        ahead = sum(slots.pop(slot) for slot in [slot for slot in slots if slot > current])
        window = replace(self, slots=slots)
        return window.grant(ahead, now) if ahead else window

    def available(self, *, reserved: int = 0) -> int:
        """Return how many more calls may be sent now while `reserved` of them are left."""
        return max(0, self.limit - reserved - sum(self.slots.values()))

    def grant(self, calls: int, now: float) -> Window:
        """Return the window after `calls` more."""
        slot = int(now / self.slot)
        return replace(self, slots={**self.slots, slot: self.slots.get(slot, 0) + calls})

    def opens(self, wanted: int = 1, *, reserved: int = 0) -> float:
        """Return the moment (epoch seconds) at which so many more calls may be sent, if not now."""
        used = sum(self.slots.values())
        for slot in sorted(self.slots):
            used -= self.slots[slot]
            if used + wanted <= self.limit - reserved:
                return self._counts_until(slot)
        return 0.0

    def _counts_until(self, slot: int) -> float:
        return (slot + 2) * self.slot + self.length


class Budget:
    """`limit` calls in any `budget_window` under one name, for every process on the same database.

    Tasks of one process that wait are served by one transaction for all of them, first come, first served in a lane.
    """

    def __init__(self, db: Database, name: str, limit: int, clock: Clock, timings: Timings) -> None:
        self._db = db
        self._name = name
        self._limit = limit
        self._clock = clock
        self._timings = timings
        self._reserved = math.ceil(limit * RESERVE)
        self._direct: deque[asyncio.Future[None]] = deque()
        self._bulk: tuple[deque[asyncio.Future[None]], ...] = (deque(), deque())
        self._direct_came = asyncio.Event()
        self._server: asyncio.Task[None] | None = None

    @property
    def limit(self) -> int:
        """The calls in one window."""
        return self._limit

    async def take(self, lane: int = 0) -> None:
        """Return when one call may be sent. Raises DatabaseUnavailable."""
        queue = self._bulk[lane - 1] if lane else self._direct
        if queue is self._direct and not _waiting(queue):
            self._direct_came.set()
        turn = asyncio.get_running_loop().create_future()
        queue.append(turn)
        if self._server is None or self._server.done():
            self._server = asyncio.create_task(self._serve(), name=f"budget {self._name}")
        await turn

    async def pause(self, seconds: float) -> None:
        """Pause all calls of every process for `seconds`."""

        def work(tx: Transaction) -> None:
            tx.execute(CREATE, (self._name,))
            longest = self._timings.max_budget_pause
            tx.execute(PAUSE, (longest, seconds, longest, self._name))

        await self._db.run(work)

    async def left(self, lane: int = 0) -> int:
        """Return how many calls of a lane could be sent now."""
        window, _, pause = await self._db.read(self._look)
        return 0 if pause else window.available(reserved=self._reserved if lane else 0)

    async def wait_for(self, wanted: int, lane: int = 0) -> float:
        """Return the seconds until so many calls of a lane could be sent, if nobody else takes them."""
        window, now, pause = await self._db.read(self._look)
        return max(pause, window.opens(wanted, reserved=self._reserved if lane else 0) - now)

    def _look(self, tx: Transaction) -> tuple[Window, float, float]:
        """Return the window, the time of the database and the seconds that a pause still lasts."""
        rows = tx.execute(READ.format(lock=""), (self._name,))
        slots, paused_until = rows[0] if rows else ("{}", 0.0)
        now = tx.now
        return self._window(slots).at(now), now, self._pause(paused_until, now)

    async def _serve(self) -> None:
        """Serve waiting callers until none is left."""
        try:
            while True:
                self._direct_came.clear()
                direct, bulk = _waiting(self._direct), sum(map(_waiting, self._bulk))
                if not direct + bulk:
                    return
                direct, bulk, wait = await self._db.run(partial(self._ask, direct=direct, bulk=bulk))
                _release(direct, self._direct)
                _release(bulk, *self._bulk)
                if wait > 0:
                    await self._rest(wait)
        except Exception as error:  # noqa: BLE001 - every waiting caller must get it
            for turn in (*self._direct, *self._bulk[0], *self._bulk[1]):
                if not turn.done():
                    turn.set_exception(error)

    def _ask(self, tx: Transaction, direct: int, bulk: int) -> tuple[int, int, float]:
        """Take calls for those who wait; return how many of each, and the seconds until it is worth asking again."""
        rows = tx.execute(READ.format(lock="FOR UPDATE"), (self._name,))
        if not rows:
            tx.execute(CREATE, (self._name,))
            rows = tx.execute(READ.format(lock="FOR UPDATE"), (self._name,))
        now = tx.now
        slots, paused_until = rows[0]
        if pause := self._pause(paused_until, now):
            return 0, 0, pause
        window = self._window(slots).at(now)
        for_direct = min(direct, window.available())
        window = window.grant(for_direct, now)
        for_bulk = min(bulk, window.available(reserved=self._reserved))
        window = window.grant(for_bulk, now)
        if for_direct + for_bulk:
            tx.execute(WRITE, (json.dumps(window.slots), self._name))
        if for_direct < direct:
            return for_direct, for_bulk, window.opens() - now
        if for_bulk < bulk:
            return for_direct, for_bulk, window.opens(reserved=self._reserved) - now
        return for_direct, for_bulk, 0.0

    def _window(self, slots: str) -> Window:
        granted = {int(slot): calls for slot, calls in json.loads(slots).items()}
        return Window(self._limit, self._timings.budget_window, self._timings.budget_slot, granted)

    def _pause(self, until: float, now: float) -> float:
        """Return the seconds that a pause still lasts."""
        return until - now if now < until <= now + self._timings.max_budget_pause else 0.0

    async def _rest(self, seconds: float) -> None:
        """Sleep, but not past the arrival of a direct call when only others wait: the reserve may serve it."""
        sleep = asyncio.ensure_future(self._clock.sleep(seconds))
        arrival = asyncio.ensure_future(self._direct_came.wait())
        try:
            await asyncio.wait({sleep, arrival}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleep.cancel()
            arrival.cancel()


def _waiting(queue: deque[asyncio.Future[None]]) -> int:
    """Count those who still wait; a cancelled one does not."""
    return sum(not turn.done() for turn in queue)


def _release(calls: int, *queues: deque[asyncio.Future[None]]) -> None:
    """Let the first `calls` of those who wait go."""
    for queue in queues:
        while queue and (calls or queue[0].done()):
            turn = queue.popleft()
            if not turn.done():
                turn.set_result(None)
                calls -= 1

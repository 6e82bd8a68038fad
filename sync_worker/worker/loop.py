"""The loop: claim what is due, have it made right, and leave without losing work.

Why it exists: it owns time. It decides how many runs are under way at once, how long subjects are gathered, and when
nothing is claimed because a key is wrong. What one run does with its claims, and how it may fail, is `attempt`; what is
due is `workset`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import structlog

from sync_worker.errors import ConfigurationError, DatabaseUnavailable, SyncWorkerError
from sync_worker.transport import current_lane
from sync_worker.worker.jobs import BATCH

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from sync_worker.domain.clock import Clock
    from sync_worker.domain.timings import Timings
    from sync_worker.storage.database import Database
    from sync_worker.storage.queue import WorkQueue
    from sync_worker.worker.jobs import Jobs

AT_ONCE = {0: 4, 1: 2, 2: 1}
"""Runs at the same time, by lane; each lane has its own, so that a bulk never holds up an editor."""
RESOLVING_AT_ONCE = {0: 2, 2: 1}
"""Runs that look up whom entitlements are for, by lane; a hundred of them in one run."""
FAN_OUTS_AT_ONCE = 2
SCARCE = 20
"""With so few calls left, or a quarter of a small budget, nothing is claimed for a while."""
FEW = 2
"""Claims of so few subjects are no flood: the next one does not wait."""

log = structlog.get_logger("worker")


class Budget(Protocol):
    """What the worker asks of the call budget."""

    @property
    def limit(self) -> int:
        """Return the calls in one window."""

    async def left(self, lane: int = 0) -> int:
        """Return the calls that may be sent now for a lane."""


@dataclass(slots=True)
class Lane:
    """How one lane is doing: how many runs may begin, and how long to gather before the next claim.

    With `documents` its claims are entitlements whose people are to be looked up, not subjects.
    """

    number: int
    room: int
    documents: bool = False
    gather: float = 0.0
    not_before: float = 0.0


@dataclass(slots=True)
class Worker:
    """Runs until `stop` is called; `run` returns when the last subject in flight is done or given back.

    `check` is asked before anything is claimed, and raises ConfigurationError while nothing may be.
    """

    database: Database
    queue: WorkQueue
    attempts: Jobs
    budget: Budget
    check: Callable[[], Awaitable[None]]
    clock: Clock
    timings: Timings
    name: str = "worker"
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _nudge: asyncio.Event = field(default_factory=asyncio.Event)
    _runs: set[asyncio.Task[None]] = field(default_factory=set)

    def stop(self) -> None:
        """Claim nothing more."""
        self._stopping.set()
        self._nudge.set()

    async def run(self) -> None:
        """Work until stopped, then drain."""
        lanes = [Lane(number, room) for number, room in AT_ONCE.items()]
        lanes += [Lane(number, room, documents=True) for number, room in RESOLVING_AT_ONCE.items()]
        fan_outs = Lane(1, FAN_OUTS_AT_ONCE)
        beating = asyncio.create_task(self._heartbeat())
        try:
            await self._until_configured()
            while not self._stopping.is_set():
                self._nudge.clear()
                try:
                    wait = await self._start_runs(lanes, fan_outs)
                except DatabaseUnavailable as error:
                    log.error("database_unavailable", detail=error.detail, next_step=error.next_step())  # noqa: TRY400
                    wait = self.timings.database_retry
                await self._rest(wait)
        finally:
            beating.cancel()
            await self._drain()

    async def _until_configured(self) -> None:
        """Wait while the configuration is known to be wrong. What cannot be read now does not say so."""
        while not self._stopping.is_set():
            try:
                await self.check()
            except ConfigurationError as error:
                log.critical("work_stopped", code=error.code, detail=error.detail, next_step=error.next_step())
                await self._rest(self.timings.credentials_probe)
            except SyncWorkerError as error:
                log.warning("projection_not_checked", code=error.code, detail=error.detail)
                return
            else:
                return

    async def _start_runs(self, lanes: Sequence[Lane], fan_outs: Lane) -> float:
        """Claim for every lane that has room. Return the seconds until the next look."""
        now = self.clock.monotonic()
        if now < self.attempts.paused_until:
            return self.attempts.paused_until - now
        waits = [await self._start_batch(lane) for lane in lanes]
        wait = min(waits)
        if fan_outs.room:
            claims = await self.queue.claim(fan_outs.number, 1, self.timings.lease, documents=True)
            if claims:
                self._launch(fan_outs, self.attempts.fan_out(claims[0]))
                wait = 0.0
        scarce = self.timings.scarce_budget_wait in waits
        if scarce or not fan_outs.room or any(lane.gather or not lane.room for lane in lanes):
            return wait  # what is due now has no room, or no calls left; a run that ends looks again
        due = await self.queue.next_due()
        return wait if due is None else min(wait, max(due, self.timings.min_rest))

    async def _start_batch(self, lane: Lane) -> float:
        now, timings = self.clock.monotonic(), self.timings
        if not lane.room:
            return timings.idle_interval
        if now < lane.not_before:
            return lane.not_before - now
        left = await self.budget.left(lane.number)
        if left < min(SCARCE, self.budget.limit // 4):
            return timings.scarce_budget_wait  # a list call for each one or two subjects would eat what is left
        limit = max(1, min(BATCH, left - 2))
        claims = await self.queue.claim(lane.number, limit, timings.lease, documents=lane.documents)
        flood = FEW < len(claims) < limit
        lane.gather = min(timings.max_gather, max(timings.first_gather, lane.gather * 2)) if flood else 0.0
        lane.not_before = now + lane.gather
        if not claims:
            return timings.idle_interval
        self._launch(
            lane, self.attempts.look_up(claims) if lane.documents else self.attempts.reconcile_subjects(claims)
        )
        return lane.gather

    def _launch(self, lane: Lane, work: Awaitable[None]) -> None:
        async def run() -> None:
            current_lane.set(lane.number)
            try:
                await work
            except DatabaseUnavailable as error:
                # Nothing could be told to the work set; the lease ends and the subjects come back.
                log.error("run_not_recorded", detail=error.detail)  # noqa: TRY400
            finally:
                lane.room += 1
                self._nudge.set()

        lane.room -= 1
        task = asyncio.create_task(run())
        self._runs.add(task)
        task.add_done_callback(self._runs.discard)

    async def _rest(self, wait: float) -> None:
        """Sleep until something is marked, a run ends, the worker is stopped, or `wait` seconds are over."""
        if wait <= 0 or self._nudge.is_set():
            return
        changed = asyncio.ensure_future(self.database.changed(wait))
        nudged = asyncio.ensure_future(self._nudge.wait())
        try:
            await asyncio.wait({changed, nudged}, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
        finally:
            changed.cancel()
            nudged.cancel()

    async def _heartbeat(self) -> None:
        while True:
            try:
                await self.queue.remember("heartbeat", self.name)
                if released := await self.queue.reclaim_orphaned():
                    log.warning("taken_over", subjects=released)
            except DatabaseUnavailable:
                log.warning("heartbeat_missed")
            await self.clock.sleep(self.timings.heartbeat_interval)

    async def _drain(self) -> None:
        """Let what is in flight finish within its deadline; give back the rest."""
        if self._runs:
            log.info("draining", runs=len(self._runs))
            await asyncio.wait(self._runs, timeout=self.timings.run_deadline)
        for task in list(self._runs):
            task.cancel()
        await asyncio.gather(*self._runs, return_exceptions=True)

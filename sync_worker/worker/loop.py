"""The worker's loop: claims what is due, starts runs, and leaves without losing work.

It decides how many runs are under way at once, how long subjects are gathered into a batch, and when nothing is claimed
because a key was refused. What a run does with its claims is in `jobs`.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Protocol

import structlog

from sync_worker.errors import ConfigurationError, CredentialsRefused, DatabaseUnavailable, SyncWorkerError
from sync_worker.storage.state import STOPPED
from sync_worker.sync.document_events import DIRECT
from sync_worker.transport import current_lane
from sync_worker.worker.jobs import BATCH, Stopped

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from sync_worker.domain.clock import Clock
    from sync_worker.domain.timings import Timings
    from sync_worker.storage.database import Database
    from sync_worker.storage.queue import WorkQueue
    from sync_worker.storage.work_items import Claim
    from sync_worker.worker.jobs import Jobs

AT_ONCE = {0: 4, 1: 2, 2: 1}
"""Runs at the same time, by lane. Each lane has its own slots, so a bulk never holds up an editor."""
RESOLVING_AT_ONCE = {0: 2, 2: 1}
"""Runs at the same time that look up documents and addresses, by lane; up to a hundred in each run."""
FAN_OUTS_AT_ONCE = 2
FEW = 2
"""A claim of at most so many subjects is no flood: the next claim does not wait."""
FOR_ONE = 2
"""The calls that one subject needs: a list and a PATCH."""
SCARCE = 20
"""With fewer calls left, or than an eighth of a small budget, only what an editor did is claimed, and in a flood not
even that: a list call for a few subjects would use up the rest."""

log = structlog.get_logger("worker")


class Budget(Protocol):
    """What the worker needs of the call budget."""

    @property
    def limit(self) -> int:
        """Return the calls in one window."""

    async def left(self, lane: int = 0) -> int:
        """Return the calls that may be sent now for a lane."""

    async def wait_for(self, wanted: int, lane: int = 0) -> float:
        """Return the seconds until so many calls could be sent for a lane."""


@dataclass(slots=True)
class Lane:
    """How one lane is doing: the `slots` free for further runs, and how long to gather before the next claim.

    It claims subjects or, of `lookups`, documents and addresses. `run` runs what was claimed. It is `flooded` when more
    was due at the last claim than an editor publishes at once.
    """

    number: int
    slots: int
    run: Callable[[Sequence[Claim]], Awaitable[None]]
    lookups: bool = False
    flooded: bool = False
    gather: float = 0.0
    not_before: float = 0.0


@dataclass(slots=True)
class Worker:
    """Runs until `stop` is called; `run` returns when the last run in flight has ended or was given back.

    `check` is called before anything is claimed, and raises ConfigurationError while nothing may be.
    """

    database: Database
    queue: WorkQueue
    jobs: Jobs
    budget: Budget
    check: Callable[[], Awaitable[None]]
    clock: Clock
    timings: Timings
    name: str = "worker"
    _stopping: bool = False
    _runs: set[asyncio.Task[None]] = field(default_factory=set)

    def stop(self) -> None:
        """Claim nothing more."""
        self._stopping = True
        self.database.wake()

    async def run(self) -> None:
        """Work until stopped, then drain."""
        jobs = self.jobs
        lanes = [Lane(n, slots, jobs.reconcile_subjects) for n, slots in AT_ONCE.items()]
        lanes += [Lane(n, slots, jobs.look_up, lookups=True) for n, slots in RESOLVING_AT_ONCE.items()]
        fan_outs = Lane(1, FAN_OUTS_AT_ONCE, jobs.fan_out, lookups=True)
        beating = asyncio.create_task(self._heartbeat())
        try:
            await self._until_configured()
            while not self._stopping:
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
        """Wait while the configuration is known to be wrong. A failed read does not prove that it is."""
        while not self._stopping:
            try:
                await self.check()
            except (ConfigurationError, CredentialsRefused) as error:
                self.jobs.stopped = Stopped(error, self.clock.monotonic())
                log.critical("worker_paused", code=error.code, detail=error.detail, next_step=error.next_step())
                with suppress(DatabaseUnavailable):
                    await self._say_if_stopped()
                await self._rest(self.timings.credentials_probe)
            except SyncWorkerError as error:
                log.warning("projection_not_checked", code=error.code, detail=error.detail)
                return
            else:
                return

    async def _start_runs(self, lanes: Sequence[Lane], fan_outs: Lane) -> float:
        """Claim for every lane in which something is due. Return the seconds until the next look."""
        now = self.clock.monotonic()
        if now < self.jobs.paused_until:
            return self.jobs.paused_until - now
        dues = await self.queue.next_due_by_lane()
        waits = [await self._start_batch(lane, dues.get((lane.number, lane.lookups), inf)) for lane in lanes]
        waits.append(await self._start_fan_out(fan_outs, dues.get((fan_outs.number, fan_outs.lookups), inf)))
        return min(self.timings.idle_interval, *waits)

    async def _start_batch(self, lane: Lane, due: float) -> float:
        """Start a run of what is due in a lane. Return the seconds until the next look at it."""
        now, timings = self.clock.monotonic(), self.timings
        if not lane.slots:
            return timings.idle_interval  # a run that ends looks again
        if now < lane.not_before:
            return lane.not_before - now
        if due > 0:
            lane.flooded, lane.gather = False, 0.0
            return max(due, timings.min_rest)
        lone = lane.number == DIRECT and not lane.flooded
        enough = min(FOR_ONE if lone else SCARCE, self.budget.limit // 8)
        left = await self.budget.left(lane.number)
        if left < enough:
            wait = await self.budget.wait_for(enough, lane.number)
            lane.not_before = now + (max(wait, timings.min_rest) if lone else wait + timings.max_gather)
            return lane.not_before - now
        limit = max(1, min(BATCH, left - FOR_ONE))
        claimed = await self._launch(lane, limit)
        lane.flooded = claimed > FEW or claimed == limit
        gathers = FEW < claimed < limit
        lane.gather = min(timings.max_gather, max(timings.first_gather, lane.gather * 2)) if gathers else 0.0
        lane.not_before = now + lane.gather
        return lane.gather if claimed else timings.min_rest

    async def _start_fan_out(self, lane: Lane, due: float) -> float:
        """Start a fan-out that is due. Return the seconds until the next look."""
        if not lane.slots:
            return self.timings.idle_interval
        if due > 0:
            return max(due, self.timings.min_rest)
        return 0.0 if await self._launch(lane, 1) else self.timings.min_rest

    async def _launch(self, lane: Lane, limit: int) -> int:
        """Claim up to `limit` rows of a lane and run them. Return how many it were: others may have been faster."""
        claim = self.queue.claim_lookups if lane.lookups else self.queue.claim
        if claims := await claim(lane.number, limit, self.timings.lease):
            lane.slots -= 1
            task = asyncio.create_task(self._run(lane, claims))
            self._runs.add(task)
            task.add_done_callback(self._runs.discard)
        return len(claims)

    async def _run(self, lane: Lane, claims: Sequence[Claim]) -> None:
        current_lane.set(lane.number)
        try:
            await lane.run(claims)
        except DatabaseUnavailable as error:
            # The outcome could not be recorded: the lease ends, and the subjects are due again.
            log.error("run_not_recorded", detail=error.detail)  # noqa: TRY400
        finally:
            lane.slots += 1
            self.database.wake()

    async def _rest(self, wait: float) -> None:
        """Sleep until something is enqueued, a run ends, the worker is stopped, or `wait` seconds have passed."""
        if wait > 0:
            await self.database.changed(wait)

    async def _heartbeat(self) -> None:
        while True:
            try:
                await self.queue.remember("heartbeat", self.name)
                await self._say_if_stopped()
                if released := await self.queue.reclaim_orphaned():
                    log.warning("orphans_reclaimed", subjects=released)
            except DatabaseUnavailable:
                log.warning("heartbeat_missed")
            await self.clock.sleep(self.timings.heartbeat_interval)

    async def _say_if_stopped(self) -> None:
        """Record that this worker lives but does nothing, which only it knows."""
        stopped = self.jobs.stopped
        if stopped is not None and self.clock.monotonic() - stopped.at < 2 * self.timings.credentials_probe:
            await self.queue.remember(STOPPED, stopped.error.code)

    async def _drain(self) -> None:
        """Let runs in flight finish within their deadline; give back the rest."""
        if self._runs:
            log.info("draining", runs=len(self._runs))
            await asyncio.wait(self._runs, timeout=self.timings.run_deadline)
        for task in list(self._runs):
            task.cancel()
        await asyncio.gather(*self._runs, return_exceptions=True)

"""The loop: claim what is due, converge it, and tell the work set what became of it.

Why it exists: it owns time and failure. It decides how many subjects run at once, how long a failed one waits, when
everything has to stop because a key is wrong, and how a process leaves without losing work. Making subjects right is
`converge`; what is due is `workset`.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Protocol

import structlog

from sync_worker.catchup import CAUSE as POLLED
from sync_worker.changes import claims_size
from sync_worker.converge import Due
from sync_worker.errors import (
    ConfigurationError,
    CredentialsRefused,
    DatabaseUnavailable,
    LeaseLost,
    RefusedError,
    RetryableError,
    ServiceUnavailable,
    SyncWorkerError,
)
from sync_worker.fanout import CAUSE as FANNED_OUT
from sync_worker.fanout import fan_out
from sync_worker.http import current_lane
from sync_worker.metrics import UNANNOUNCED
from sync_worker.model import ChangeKind, Subject
from sync_worker.workset import FANOUT, Claim, Done, Failed, Released, Retry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from sync_worker.converge import Converge, Outcome
    from sync_worker.database import Database
    from sync_worker.model import Change
    from sync_worker.workset import Mark, Settlement, WorkSet

BATCH = 100
"""Subjects in one run: what one list call of Clerk takes."""
LEASE = 30.0
DEADLINE = 20.0
"""Seconds that a run may take. It is shorter than the lease, so that a live run never loses its subjects."""
MARGIN = 2.0
"""Seconds before the end of a lease in which nothing is sent any more."""
AT_ONCE = {0: 4, 1: 2, 2: 1}
"""Runs at the same time, by lane; each lane has its own, so that a bulk never holds up an editor."""
FAN_OUTS_AT_ONCE = 2
LAST_ATTEMPT = 30
"""After so many attempts, some two hours, a subject is listed as failed."""
LONGEST_BACKOFF = 300.0
PROBE_AFTER = 15.0
"""Seconds between tries while a key or the configuration is refused."""
HEARTBEAT = 10.0
SCARCE, SCARCE_WAIT = 20, 0.25
"""With so few calls left, or a quarter of a small budget, nothing is claimed for a while (seconds)."""
GATHER_FIRST, GATHER_MOST = 0.05, 0.25
"""Seconds to gather more subjects before the next run while many are coming in."""
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


def lease_check(claim: Claim, monotonic: Callable[[], float], wall: Callable[[], float]) -> Callable[[], None]:
    """Return what is asked right before a PATCH: whether the subject is still ours, by both clocks.

    The monotonic clock may stand still while a machine sleeps, the wall clock may be set.
    """
    end_monotonic, end_wall = monotonic() + LEASE - MARGIN, wall() + LEASE - MARGIN

    def check() -> None:
        if monotonic() > end_monotonic or wall() > end_wall:
            raise LeaseLost(claim.key)

    return check


@dataclass(slots=True)
class Lane:
    """How one lane is doing: runs in flight, and how long to gather before the next claim."""

    number: int
    room: int
    gather: float = 0.0
    not_before: float = 0.0


@dataclass(slots=True)
class Worker:
    """Runs until `stop` is called; `run` returns when the last subject in flight is done or given back."""

    database: Database
    workset: WorkSet
    converge: Converge
    budget: Budget
    name: str = "worker"
    random: Random = field(default_factory=Random)
    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _nudge: asyncio.Event = field(default_factory=asyncio.Event)
    _paused_until: float = 0.0
    _runs: set[asyncio.Task[None]] = field(default_factory=set)

    def stop(self) -> None:
        """Claim nothing more."""
        self._stopping.set()
        self._nudge.set()

    async def run(self) -> None:
        """Work until stopped, then drain."""
        lanes = [Lane(number, room) for number, room in AT_ONCE.items()]
        fan_outs = Lane(1, FAN_OUTS_AT_ONCE)
        beating = asyncio.create_task(self._heartbeat())
        try:
            while not self._stopping.is_set():
                self._nudge.clear()
                try:
                    wait = await self._start_runs(lanes, fan_outs)
                except DatabaseUnavailable as error:
                    log.error("database_unavailable", detail=error.detail, next_step=error.next_step())  # noqa: TRY400
                    wait = 1.0
                await self._rest(wait)
        finally:
            beating.cancel()
            await self._drain()

    async def _start_runs(self, lanes: Sequence[Lane], fan_outs: Lane) -> float:
        """Claim for every lane that has room. Return the seconds until the next look."""
        now = self.monotonic()
        if now < self._paused_until:
            return self._paused_until - now
        wait = 1.0
        for lane in lanes:
            wait = min(wait, await self._start_batch(lane))
        if fan_outs.room:
            claims = await self.workset.claim(fan_outs.number, 1, LEASE, documents=True)
            if claims:
                self._launch(fan_outs, self._run_fan_out(claims[0]))
                wait = 0.0
        if not fan_outs.room or any(lane.gather or not lane.room for lane in lanes):
            return wait  # what is due now has no room; a run that ends looks again
        due = await self.workset.next_due()
        return wait if due is None else min(wait, max(due, 0.005))

    async def _start_batch(self, lane: Lane) -> float:
        now = self.monotonic()
        if not lane.room:
            return 1.0
        if now < lane.not_before:
            return lane.not_before - now
        left = await self.budget.left(lane.number)
        if left < min(SCARCE, self.budget.limit // 4):
            return SCARCE_WAIT  # a list call for each one or two subjects would eat what is left
        limit = max(1, min(BATCH, left - 2))
        claims = await self.workset.claim(lane.number, limit, LEASE)
        flood = FEW < len(claims) < limit
        lane.gather = min(GATHER_MOST, max(GATHER_FIRST, lane.gather * 2)) if flood else 0.0
        lane.not_before = now + lane.gather
        if not claims:
            return 1.0
        self._launch(lane, self._run_batch(claims))
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

    async def _run_batch(self, claims: Sequence[Claim]) -> None:
        pending = {claim.key: claim for claim in claims}
        async with self._giving_back(pending):
            batch = [
                Due(Subject.parse(c.key), c.witnesses, c.cause, lease_check(c, self.monotonic, self.wall))
                for c in claims
            ]
            async for outcomes in self.converge.run(batch):
                await self.workset.settle([self._settlement(pending.pop(str(o.due.subject)), o) for o in outcomes])
                await self._report(outcomes)

    async def _run_fan_out(self, claim: Claim) -> None:
        document = claim.key.removeprefix(FANOUT)
        pending = {claim.key: claim}
        async with self._giving_back(pending) as deadline:

            async def mark(marks: Sequence[Mark]) -> None:
                """Mark one page. However many there are, each has its own deadline and prolongs the lease."""
                await self.workset.mark(marks)
                if not await self.workset.renew([claim], LEASE):
                    raise LeaseLost(claim.key)
                deadline.reschedule(asyncio.get_running_loop().time() + DEADLINE)

            cause = claim.cause if claim.cause.startswith(POLLED) else FANNED_OUT + document
            refusals = await fan_out(
                self.converge.source, document, claim.witnesses, mark, sleep=self.sleep, cause=cause
            )
            detail = "; ".join(str(refusal) for refusal in refusals)
            await self.workset.settle([Done(claim, code="row_refused" if refusals else "", detail=detail)])
            log.info("document_fanned_out", document=document, refused=detail or None)

    @asynccontextmanager
    async def _giving_back(self, pending: dict[str, Claim]) -> AsyncIterator[asyncio.Timeout]:
        """Settle what a run leaves in `pending`, however it ends; nothing may leave here but a cancellation."""
        try:
            async with asyncio.timeout(DEADLINE) as deadline:
                yield deadline
        except TimeoutError:
            await self._retry(pending, RetryableError(f"it took longer than {DEADLINE:.0f} s"))
        except SyncWorkerError as error:
            await self._retry(pending, error)
        except asyncio.CancelledError:
            await self.workset.settle([Released(claim) for claim in pending.values()])
            raise
        except Exception:  # a bug must cost an attempt, or its subject would run for ever
            log.exception("run_broken", keys=list(pending))
            await self._retry(pending, RetryableError("a bug in sync-worker; the log has the trace"))

    async def _retry(self, pending: dict[str, Claim], error: SyncWorkerError) -> None:
        """Give back what a failed read left open. A wrong key or configuration stops everything, loudly."""
        if isinstance(error, CredentialsRefused | ConfigurationError):
            self._pause(error)
            await self.workset.settle([Released(claim) for claim in pending.values()])
            return
        if isinstance(error, RefusedError):
            error = ServiceUnavailable(str(error))  # refused as a whole, it says nothing of any one subject
        log.warning("run_failed", code=error.code, detail=error.detail, subjects=len(pending))
        await self.workset.settle([self._failure(claim, error) for claim in pending.values()])

    def _settlement(self, claim: Claim, outcome: Outcome) -> Settlement:
        access, change = outcome.access, outcome.change
        transition = access.next_transition if access else None
        next_due = transition.timestamp() if transition else None
        wrote = change is not None and change.kind is not ChangeKind.NONE
        if outcome.error is not None:
            return self._failure(claim, outcome.error, next_due, wrote=wrote)
        refusals = access.refusals if access else ()
        return Done(
            claim,
            next_due=next_due,
            wrote=wrote,
            code="row_refused" if refusals else "",
            detail="; ".join(str(refusal) for refusal in refusals),
        )

    def _failure(
        self, claim: Claim, error: SyncWorkerError, next_due: float | None = None, *, wrote: bool = False
    ) -> Settlement:
        match error:
            case CredentialsRefused() | ConfigurationError():
                self._pause(error)
                return Released(claim)
            case LeaseLost():
                return Released(claim)
            case _ if isinstance(error, RefusedError) or claim.attempts + 1 >= LAST_ATTEMPT:
                return Failed(claim, error.code, str(error), next_due)
            case _:
                return Retry(claim, error.code, str(error), self._backoff(claim.attempts, error), wrote)

    def _backoff(self, attempts: int, error: SyncWorkerError) -> float:
        """Return the seconds to wait: doubling with jitter, and never less than the service asked for."""
        asked = (error.retry_after or 0.0) if isinstance(error, RetryableError) else 0.0
        doubled = min(LONGEST_BACKOFF, 0.5 * 2.0 ** min(attempts, 12))
        return asked + doubled * self.random.uniform(0.5, 1.0)

    def _pause(self, error: SyncWorkerError) -> None:
        self._paused_until = self.monotonic() + PROBE_AFTER
        log.critical("work_stopped", code=error.code, detail=error.detail, next_step=error.next_step())

    async def _report(self, outcomes: Sequence[Outcome]) -> None:
        silent = 0
        for outcome in outcomes:
            subject = str(outcome.due.subject)
            if outcome.error is not None:
                log.warning("subject_failed", subject=subject, code=outcome.error.code, detail=outcome.error.detail)
            elif outcome.change is not None and outcome.change.kind is not ChangeKind.NONE:
                log.info(
                    "access_changed",
                    subject=subject,
                    change=outcome.change.kind,
                    cause=outcome.due.cause,
                    documents=list(outcome.change.sources),
                )
                self._warn_of_large_claims(subject, outcome.change)
                if outcome.due.cause.startswith(POLLED):
                    silent += 1
                    log.warning(
                        "webhook_silent",
                        subject=subject,
                        cause=outcome.due.cause,
                        next_step="a publish was found by the poll that no webhook told of: is the webhook enabled?",
                    )
            for refusal in outcome.access.refusals if outcome.access else ():
                log.warning("row_refused", subject=subject, document=refusal.document, field=refusal.field)
        if silent:
            await self.workset.count(UNANNOUNCED, silent)

    def _warn_of_large_claims(self, subject: str, change: Change) -> None:
        layout = self.converge.layout
        size = claims_size(change.after, layout)
        if size > layout.claims_budget:
            log.warning("claims_large", subject=subject, bytes=size, budget=layout.claims_budget)

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
                await self.workset.remember("heartbeat", self.name)
            except DatabaseUnavailable:
                log.warning("heartbeat_missed")
            await self.sleep(HEARTBEAT)

    async def _drain(self) -> None:
        """Let what is in flight finish within its deadline; give back the rest."""
        if self._runs:
            log.info("draining", runs=len(self._runs))
            await asyncio.wait(self._runs, timeout=DEADLINE)
        for task in list(self._runs):
            task.cancel()
        await asyncio.gather(*self._runs, return_exceptions=True)

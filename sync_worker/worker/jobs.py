"""Runs of claimed rows: reconcile subjects, look keys up, or fan a document out, and complete every claim.

However a run ends, its claims are completed here: by its result, or by the retry policy. A refused key pauses all work.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from random import Random
from typing import TYPE_CHECKING

import structlog

from sync_worker.domain.lease import Lease
from sync_worker.domain.subjects import Subject
from sync_worker.domain.work import COUNTED_TOGETHER, Cause, CauseKind, WorkKind
from sync_worker.errors import (
    ConfigurationError,
    CredentialsRefused,
    LeaseLost,
    RefusedError,
    RetryableError,
    ServiceUnavailable,
    SyncWorkerError,
)
from sync_worker.storage.counters import MISSED_WEBHOOKS
from sync_worker.storage.work_items import FANOUT, Claim, Completed, Released, WorkItem
from sync_worker.sync.address_resolution import AMBIGUOUS_ADDRESS, AMBIGUOUS_REASON
from sync_worker.sync.notes import note_of, remarks
from sync_worker.sync.outcome import Due
from sync_worker.sync.reconciler import requeue_document
from sync_worker.worker.event_log import is_missed_webhook, log_context, log_outcome, log_resolution
from sync_worker.worker.fanout import fan_out
from sync_worker.worker.lookups import Lookups, completed_document, items_for
from sync_worker.worker.retry import decide

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

    from sync_worker.domain.clock import Clock
    from sync_worker.domain.timings import Timings
    from sync_worker.storage.queue import WorkQueue
    from sync_worker.storage.work_items import Completion
    from sync_worker.sync.outcome import Outcome
    from sync_worker.sync.reconciler import Reconciler

BATCH = 100
"""Subjects in one run: what one list call of Clerk takes."""

log = structlog.get_logger("worker")


def lease_of(claim: Claim, clock: Clock, timings: Timings) -> Lease:
    """Return the lease of a claim that was just made. It ends a margin before the claim does."""
    return Lease.begin(claim.key, claim.lease_token, clock, timings.lease - timings.lease_margin)


def due_of(claim: Claim, lease: Lease) -> Due:
    """Return what a claim requires of a run. Raises InvalidSubject when its key is not a subject's."""
    return Due(
        subject=Subject.parse(claim.key),
        lease=lease,
        expected_revisions=claim.expected_revisions,
        cause=claim.cause,
        since=claim.enqueued_at,
        delivery=claim.delivery,
        transition=claim.transition_at,
        lane=claim.lane,
    )


def done(claim: Claim, outcome: Outcome) -> Completed:
    """Complete a subject that is in sync; what is wrong with its rows stays visible as a note."""
    error_code, error_detail = note_of(remarks(outcome.access))
    return Completed(
        claim,
        next_due=outcome.next_due,
        wrote=outcome.writes,
        error_code=error_code,
        error_detail=error_detail,
        transition_at=outcome.transition_at,
    )


@dataclass(frozen=True, slots=True)
class Run:
    """Claims under way, each `pending` until it is completed, and their leases."""

    pending: dict[str, Claim]
    leases: Mapping[str, Lease]
    deadline: asyncio.Timeout


@dataclass(frozen=True, slots=True)
class Stopped:
    """The error that stopped all work, and when it last did, by the monotonic clock."""

    error: SyncWorkerError
    at: float


@dataclass(slots=True)
class Jobs:
    """Runs claims. Until `paused_until` (of the monotonic clock) nothing should be claimed: a key was refused."""

    queue: WorkQueue
    reconciler: Reconciler
    clock: Clock
    timings: Timings
    random: Random = field(default_factory=Random)
    paused_until: float = 0.0
    stopped: Stopped | None = None

    async def reconcile_subjects(self, claims: Sequence[Claim]) -> None:
        """Reconcile claimed subjects."""
        async with self._run(claims) as run:
            batch = [due_of(claim, run.leases[claim.key]) for claim in claims]
            async for outcomes in self.reconciler.run(batch):
                ended = [(run.pending.pop(str(outcome.due.subject)), outcome) for outcome in outcomes]
                await self._follow_up(ended)
                self._pause_if_refused(outcome.error for outcome in outcomes)
                await self.queue.complete([self._completion(claim, outcome) for claim, outcome in ended])
                await self._report(outcomes)

    async def look_up(self, claims: Sequence[Claim]) -> None:
        """Find out which subjects claimed entitlements, addresses and changed users are about, and enqueue them."""
        reconciler = self.reconciler
        lookups = Lookups(reconciler.source, reconciler.target, reconciler.access, self.clock, self.timings)
        async with self._run(claims) as run:
            found = await lookups.run(claims)
            await self.queue.enqueue([item for one in found for item in one.items])
            completions: list[Completion] = [completed for one in found for completed in one.completed]
            completions += [self._failure(c, error, run.leases[c.key]) for one in found for c, error in one.failed]
            await self.queue.complete(completions)
            run.pending.clear()
            for resolution, claim in (pair for one in found for pair in one.resolutions):
                log_resolution(resolution, claim)

    async def fan_out(self, claims: Sequence[Claim]) -> None:
        """Enqueue everybody whose access leads to the one claimed document."""
        (claim,) = claims
        document = claim.key.removeprefix(FANOUT)
        async with self._run([claim]) as run:

            async def enqueue(items: Sequence[WorkItem]) -> None:
                """Enqueue one page. However many pages there are, each has its own deadline and renews the lease."""
                await self.queue.enqueue(
                    [replace(one, delivery=claim.delivery, enqueued_at=claim.enqueued_at) for one in items]
                )
                if not await self.queue.renew([claim], self.timings.lease):
                    raise LeaseLost(claim.key)
                run.deadline.reschedule(asyncio.get_running_loop().time() + self.timings.run_deadline)

            former = (await self.reconciler.access.subjects_of([document])).get(document, ())
            await enqueue([*items_for(claim, map(Subject.parse, former))])
            resolutions = await fan_out(
                self.reconciler.source,
                self.reconciler.target.find,
                document,
                claim.expected_revisions,
                enqueue,
                clock=self.clock,
                timings=self.timings,
                cause=_fan_out_cause(claim.cause, document),
            )
            await self.queue.complete([completed_document(claim, resolutions, self.clock.now(), self.timings)])
            log.info("document_fanned_out", document=document, **log_context(claim))
            for one in resolutions:
                log_resolution(one, claim)

    @asynccontextmanager
    async def _run(self, claims: Sequence[Claim]) -> AsyncIterator[Run]:
        """Complete what a run leaves pending, however it ends. Raises nothing but a cancellation."""
        leases = {claim.key: lease_of(claim, self.clock, self.timings) for claim in claims}
        run = Run({claim.key: claim for claim in claims}, leases, asyncio.timeout(self.timings.run_deadline))
        try:
            async with run.deadline:
                yield run
        except TimeoutError:
            await self._fail(run, RetryableError(f"it took longer than {self.timings.run_deadline:.0f} s"))
        except SyncWorkerError as error:
            await self._fail(run, error)
        except asyncio.CancelledError:
            await self.queue.complete([Released(claim) for claim in run.pending.values()])
            raise
        except Exception:  # a bug must cost an attempt, or its subject would run for ever
            log.exception("run_crashed", keys=[c.key for c in run.pending.values() if c.kind is not WorkKind.ADDRESS])
            await self._fail(run, RetryableError("a bug in sync-worker; the log has the trace"))

    async def _fail(self, run: Run, error: SyncWorkerError) -> None:
        """Complete what a failed run left pending."""
        if isinstance(error, RefusedError):
            error = ServiceUnavailable(str(error))  # refused as a whole, it says nothing about any one subject
        if not self._pause_if_refused([error]):
            log.warning("run_failed", code=error.code, detail=error.detail, subjects=len(run.pending))
        await self.queue.complete([self._failure(claim, error, run.leases[key]) for key, claim in run.pending.items()])

    def _completion(self, claim: Claim, outcome: Outcome) -> Completion:
        if outcome.error is None:
            return done(claim, outcome)
        lease = outcome.due.lease
        return decide(
            claim,
            outcome.error,
            now=self.clock.now(),
            jitter=self.random.random(),
            timings=self.timings,
            retry_after=lease.retry_after,
            next_due=outcome.next_due,
            transition_at=outcome.transition_at,
            wrote=outcome.writes,
            removes=outcome.removes,
        )

    def _failure(self, claim: Claim, error: SyncWorkerError, lease: Lease) -> Completion:
        return decide(
            claim,
            error,
            now=self.clock.now(),
            jitter=self.random.random(),
            timings=self.timings,
            retry_after=lease.retry_after,
        )

    def _pause_if_refused(self, errors: Iterable[SyncWorkerError | None]) -> bool:
        """Pause claiming if a key or the configuration was refused. Returns whether one was."""
        error = next((e for e in errors if isinstance(e, CredentialsRefused | ConfigurationError)), None)
        if error is None:
            return False
        self.paused_until = self.clock.monotonic() + self.timings.credentials_probe
        self.stopped = Stopped(error, self.clock.monotonic())
        log.critical("worker_paused", code=error.code, detail=error.detail, next_step=error.next_step())
        return True

    async def _follow_up(self, ended: Sequence[tuple[Claim, Outcome]]) -> None:
        """Look documents up again whose address turned out to be ambiguous: it concerns its other owners too.

        It comes before the claims are completed: from then on their note hides that the ambiguity is new. A run that
        failed finds the same the next time.
        """
        in_sync = [(claim, outcome) for claim, outcome in ended if outcome.error is None]
        newly = [
            (document, o) for claim, o in in_sync if claim.error_code != AMBIGUOUS_ADDRESS for document in _ambiguous(o)
        ]
        await self.queue.enqueue([requeue_document(document, outcome) for document, outcome in newly])

    async def _report(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            log_outcome(outcome, self.reconciler.layout)
        if missed := sum(map(is_missed_webhook, outcomes)):
            await self.queue.count({MISSED_WEBHOOKS: missed})


def _fan_out_cause(cause: Cause, document: str) -> Cause:
    """Return the cause of what a document leads to: what was found with many others stays one cause with them."""
    return cause if cause.kind in COUNTED_TOGETHER else Cause(CauseKind.FAN_OUT, document, cause.by)


def _ambiguous(outcome: Outcome) -> tuple[str, ...]:
    """Return the documents that do not count because several people have the address."""
    refusals = outcome.access.refusals if outcome.access is not None else ()
    return tuple(refusal.document for refusal in refusals if refusal.reason == AMBIGUOUS_REASON)

"""The full reconcile: compares every entitlement with everybody in Clerk, and repairs the differences.

Webhooks get lost. A nightly run finds what was missed, what is left over and what was edited by hand, and repairs it by
the path of the webhooks. It cannot take everybody's access away: too many losses are held, and a failed read ends
the run before anything is written.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import islice
from random import Random
from typing import TYPE_CHECKING

import structlog

from sync_worker.domain.changeset import verdict
from sync_worker.domain.entitlements import ChangeKind
from sync_worker.domain.ownership import NO_ADOPTION
from sync_worker.domain.subjects import Subject
from sync_worker.domain.work import Cause, CauseKind
from sync_worker.errors import (
    RefusedError,
    SyncWorkerError,
)
from sync_worker.storage.reconcile_runs import LastSuccess
from sync_worker.storage.work_items import FANOUT, Released, WorkItem
from sync_worker.sync.address_resolution import PENDING
from sync_worker.sync.notes import note_of
from sync_worker.transport import current_lane
from sync_worker.worker.comparison import Comparison, refuse_common_loss
from sync_worker.worker.jobs import BATCH, done, due_of, lease_of
from sync_worker.worker.retry import decide

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from sync_worker.domain.changeset import LossLimit
    from sync_worker.domain.clock import Clock
    from sync_worker.domain.ownership import Adoption
    from sync_worker.domain.timings import Timings
    from sync_worker.storage.queue import WorkQueue
    from sync_worker.storage.reconcile_runs import ReconcileRuns
    from sync_worker.storage.work_items import Claim, Completion
    from sync_worker.sync.outcome import Due, Outcome
    from sync_worker.sync.reconciler import Reconciler
    from sync_worker.worker.desired_state import Findings
    from sync_worker.worker.packed import Moments, Packed

LANE = 2
INDEXED = 500
"""Subjects whose documents are indexed in one transaction."""
SCHEDULED = 1000
"""Subjects that are enqueued for a later time in one transaction."""
log = structlog.get_logger("reconcile")


def new_cause() -> Cause:
    """Return the cause of one run, so that its losses are counted together, and apart from any other run's."""
    return Cause(CauseKind.RECONCILE, secrets.token_hex(4))


@dataclass(slots=True)
class Result:
    """The result of a run. `failed` were not written, by an error; `held` wait for approval, by the id of their list.

    `refused` are rows and subjects for which nothing could be written; `left_over` were left to the worker. `finished`
    counts the subjects whose run has ended, in whatever way.
    """

    kinds: Counter[ChangeKind] = field(default_factory=Counter)
    refused: int = 0
    taken_over: int = 0
    failed: dict[str, SyncWorkerError] = field(default_factory=dict)
    held: Counter[str] = field(default_factory=Counter)
    left_over: int = 0
    finished: int = 0
    noted: Collection[str] = ()
    """The subjects that the comparison has refused, which do not count again."""

    @property
    def is_good(self) -> bool:
        """Whether everything was written."""
        return not (self.failed or self.held or self.left_over)


@dataclass(frozen=True, slots=True)
class FullReconcile:
    """A full reconcile: `find` only reads, `apply` writes."""

    reconciler: Reconciler
    queue: WorkQueue
    runs: ReconcileRuns
    clock: Clock
    timings: Timings
    adoption: Adoption = NO_ADOPTION
    accept_fewer: bool = False
    approved: str = ""
    """The id of the list that an operator approved."""
    cause: Cause = field(default_factory=new_cause)
    progress: Callable[[str, int, int], None] = lambda _what, _done, _of: None
    random: Random = field(default_factory=Random)

    async def find(self) -> Findings:
        """Compare everybody. Raises whatever prevents it from reading everything, and then concludes nothing."""
        comparison = Comparison(
            self.reconciler,
            self.runs,
            self.clock,
            self.cause,
            self.adoption,
            self.progress,
            accept_fewer=self.accept_fewer,
        )
        began = await self.queue.now()
        return replace(await comparison.find(), began=began)

    async def apply(self, findings: Findings) -> Result:
        """Repair the differences, except losses that the guard holds, and schedule what changes later.

        Raises EveryoneLoses when a whole key would be taken from everybody who stays entitled.
        """
        result = Result(refused=len(findings.refused), noted=findings.remarks.keys())
        if not self.accept_fewer:
            refuse_common_loss(findings, self.reconciler.layout)
        await self._index(findings.index_changes)
        guard = replace(self.reconciler.guard, managed=findings.managed)
        # Counted at once, so that the guard knows how many they are from the first batch on.
        await guard.expect(self.cause, [str(change.subject) for change in findings.losing])
        run = replace(self, reconciler=replace(self.reconciler, guard=guard))
        differing = [difference.change.subject for difference in findings.differences]
        # Subjects on a list that do not differ any more are run too, so that their list is withdrawn.
        listed = {Subject.parse(key) for key in await guard.approvals.listed()}
        await run.repair([*differing, *sorted(listed.difference(differing), key=str)], result)
        await self._schedule(findings.transitions)
        pending = {FANOUT + document: (PENDING, reason) for document, reason in findings.pending.items()}
        refused = {key: note_of(list(dict.fromkeys(found))) for key, found in findings.remarks.items()}
        await self.queue.replace_notes(pending | refused, findings.began)
        if result.is_good:
            managed = findings.managed + result.kinds[ChangeKind.GRANT] - result.kinds[ChangeKind.REVOKE]
            sizes = findings.sizes
            good = LastSuccess(findings.rows, managed, sizes.budget, sizes.over, sizes.largest)
            await self.runs.remember_good(good)
        await self.runs.remember_end(well=result.is_good)
        return result

    async def repair(self, subjects: Sequence[Subject], result: Result) -> None:
        """Reconcile these subjects by the path of the webhooks, a hundred at a time, in the repair lane."""
        current_lane.set(LANE)
        waiting = list(subjects)
        self.progress("repaired", 0, len(subjects))
        deadline = self.clock.monotonic() + self.timings.reconcile_patience
        while waiting:
            batch, rest = waiting[:BATCH], waiting[BATCH:]
            claims = await self.queue.enqueue_and_claim(
                [WorkItem(str(s), LANE, cause=self.cause) for s in batch], self.timings.lease
            )
            if claims:
                await self._run(claims, result, len(subjects))
                deadline = self.clock.monotonic() + self.timings.reconcile_patience
            claimed = {claim.key for claim in claims}
            waiting = rest + [s for s in batch if str(s) not in claimed]
            if not claims:
                if self.clock.monotonic() > deadline:
                    log.warning("deferred_to_worker", subjects=len(waiting))
                    result.left_over = len(waiting)
                    return
                await self.clock.sleep(self.timings.reconcile_poll)

    async def _run(self, claims: Sequence[Claim], result: Result, total: int) -> None:
        pending = {claim.key: claim for claim in claims}
        try:
            batch = [self._due(claim) for claim in claims]
            async for outcomes in self.reconciler.run(batch):
                await self.queue.complete([self._completion(pending.pop(str(o.due.subject)), o) for o in outcomes])
                for outcome in outcomes:
                    _count(outcome, result)
                self.progress("repaired", result.finished, total)
        finally:
            # After Ctrl-C or a failed read the rest is given back, for the worker or the next run.
            await asyncio.shield(self.queue.complete([Released(claim) for claim in pending.values()]))

    def _due(self, claim: Claim) -> Due:
        due = due_of(claim, lease_of(claim, self.clock, self.timings))
        return replace(due, adoption=self.adoption, approved=self.approved, accepts_empty=self.accept_fewer)

    def _completion(self, claim: Claim, outcome: Outcome) -> Completion:
        if outcome.error is None:
            return done(claim, outcome)
        return decide(
            claim,
            outcome.error,
            now=self.clock.now(),
            jitter=self.random.random(),
            timings=self.timings,
            retry_after=outcome.due.lease.retry_after,
            next_due=outcome.next_due,
            transition_at=outcome.transition_at,
            wrote=outcome.writes,
            removes=outcome.removes,
        )

    async def _index(self, changes: Packed) -> None:
        """Bring the access index up to date, in small transactions."""
        for start in range(0, len(changes), INDEXED):
            some = dict(changes[number] for number in range(start, min(start + INDEXED, len(changes))))
            before, after = ({key: sides[side] for key, sides in some.items()} for side in (0, 1))
            await self.reconciler.access.replace(before, after)

    async def _schedule(self, transitions: Moments) -> None:
        """Enqueue each subject for the next time at which its access changes."""
        cause = Cause(CauseKind.WINDOW)
        items = (WorkItem(key, 1, visible_at=at, cause=cause, transition_at=at) for key, at in transitions)
        while some := list(islice(items, SCHEDULED)):
            await self.queue.enqueue(some)


def _count(outcome: Outcome, result: Result) -> None:
    result.finished += 1
    if outcome.held:
        result.held[outcome.held] += 1
    elif isinstance(outcome.error, RefusedError) and not outcome.writes:
        result.refused += str(outcome.due.subject) not in result.noted
    elif outcome.error is not None:
        result.failed[str(outcome.due.subject)] = outcome.error
    if outcome.written is not None and outcome.change is not None:
        result.kinds[outcome.change.kind] += 1
        result.taken_over += bool(outcome.change.taken_over)


def report(
    findings: Findings, result: Result | None, calls: Mapping[str, int], seconds: float, limit: LossLimit
) -> dict[str, object]:
    """Return the object of `reconcile --json`. Without a result (a dry run) it says what would be done."""
    planned = Counter(d.change.kind for d in findings.differences)
    kinds = planned if result is None else result.kinds
    _, would_hold = verdict(findings.losing, limit, findings.managed)
    return {
        "checked": findings.checked,
        "granted": kinds[ChangeKind.GRANT],
        "updated": kinds[ChangeKind.UPDATE],
        "revoked": kinds[ChangeKind.REVOKE],
        "unchanged": findings.checked - len(findings.differences),
        "refused": len(findings.refused) if result is None else result.refused,
        "held": (len(findings.losing) if would_hold else 0) if result is None else result.held.total(),
        "taken_over": findings.taken_over if result is None else result.taken_over,
        "writes": calls.get("writes", 0),
        "clerk_calls": calls.get("Clerk", 0),
        "sanity_calls": calls.get("Sanity", 0),
        "seconds": round(seconds, 2),
    }

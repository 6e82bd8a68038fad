"""The full reconcile: compares every entitlement with everybody in Clerk, and repairs the differences.

Webhooks get lost. A nightly run finds what was missed, what is left over and what was edited by hand, and repairs it by
the path of the webhooks. It cannot take everybody's access away: too many revocations are held, and a failed read ends
the run before anything is written.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

import structlog

from sync_worker.domain import diff as changes
from sync_worker.domain import merge as policy
from sync_worker.domain.changeset import classify
from sync_worker.domain.clock import utc
from sync_worker.domain.entitlements import ChangeKind, Entitlement, Refusal
from sync_worker.domain.work import Cause, CauseKind
from sync_worker.errors import (
    AccessTooLarge,
    DatasetEmpty,
    RefusedError,
    SourceShrank,
    SyncWorkerError,
    UnreadableAnswer,
)
from sync_worker.sanity.row_checks import refuse_wrong_shape
from sync_worker.sanity.rows import read_row
from sync_worker.storage.queue import FANOUT, Released, WorkItem
from sync_worker.storage.reconcile_runs import LastSuccess
from sync_worker.sync.address_resolution import FIELDS, PENDING, PENDING_REASON, owners, rows_for_owner
from sync_worker.sync.guard import Guard, Revocations
from sync_worker.transport import current_lane
from sync_worker.worker.desired_state import Desired, Directory, Findings
from sync_worker.worker.jobs import BATCH, done, due_of, lease_of
from sync_worker.worker.retry import decide

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from sync_worker.domain.clock import Clock
    from sync_worker.domain.entitlements import Access, Layout, Observed
    from sync_worker.domain.subjects import Subject
    from sync_worker.domain.timings import Timings
    from sync_worker.storage.queue import Claim, Completion, WorkQueue
    from sync_worker.storage.reconcile_runs import Runs
    from sync_worker.sync.outcome import Outcome
    from sync_worker.sync.reconciler import Reconciler

LANE = 2
CAUSE = Cause(CauseKind.RECONCILE)
log = structlog.get_logger("reconcile")


@dataclass(slots=True)
class Result:
    """The result of a run. `held` is the id of a changeset that waits for approval."""

    kinds: Counter[ChangeKind] = field(default_factory=Counter)
    refused: int = 0
    failed: dict[str, SyncWorkerError] = field(default_factory=dict)
    held: str = ""


@dataclass(frozen=True, slots=True)
class FullReconcile:
    """A full reconcile: `find` only reads, `apply` writes."""

    reconciler: Reconciler
    queue: WorkQueue
    runs: Runs
    guard: Guard
    clock: Clock
    timings: Timings
    adopt: bool = False
    accept_fewer: bool = False
    progress: Callable[[str, int, int], None] = lambda _what, _done, _of: None
    random: Random = field(default_factory=Random)

    async def find(self) -> Findings:
        """Compare everybody. Raises whatever prevents it from reading everything, and then concludes nothing."""
        desired = await self._desired()
        await self._refuse_shrinking(desired.rows)
        directory = Directory(desired.addresses())
        while True:
            shared = directory.shared()
            findings = await self._compare_everybody(desired, directory)
            if directory.shared() == shared:
                return findings
            # Who was compared before the second owner of an address was seen got too much: compare once more.

    async def _compare_everybody(self, desired: Desired, directory: Directory) -> Findings:
        findings = Findings(desired.rows, refused=[*desired.unaddressed])
        now = utc(self.clock)
        seen: set[Subject] = set()
        async for page in self.reconciler.target.sweep():
            for observed in page:
                directory.add(observed)
                self._compare(observed, desired, directory, findings, now)
                seen.add(observed.subject)
            self.progress("compared with Clerk", len(seen), 0)
        for subject, rows in desired.named.items():
            self._account(subject, [row for row in rows if isinstance(row, Entitlement)], directory, seen, findings)
        return findings

    def _account(
        self,
        subject: Subject,
        rows: Sequence[Entitlement],
        directory: Directory,
        seen: set[Subject],
        findings: Findings,
    ) -> None:
        """Record why rows gave nobody access: their subject is not in Clerk, or they wait for a sign-up."""
        owned_by = owners(subject, directory.holders) if subject.is_address else (subject,)
        if not owned_by:
            findings.pending |= {row.id: f"{row.id}: {FIELDS[subject.kind]}: {PENDING_REASON}" for row in rows}
        elif seen.isdisjoint(owned_by):
            findings.refused += [Refusal(row.id, "subject", f"{owned_by[0]} is not in Clerk") for row in rows]

    async def apply(self, findings: Findings) -> Result:
        """Repair the differences, except revocations that the guard holds, and schedule what changes later."""
        result = Result(refused=len(findings.refused))
        revocations = findings.revocations
        todo = findings.differences
        losing = [str(d.change.subject) for d in revocations]
        result.held = await self.guard.review(Revocations(losing, losing, len(losing), findings.managed))
        if result.held:
            todo = [d for d in todo if d.change.kind is not ChangeKind.REVOKE]
        await self.repair([d.change.subject for d in todo], result)
        await self._schedule(findings.transitions)
        await self.queue.replace_notes(PENDING, {FANOUT + d: reason for d, reason in findings.pending.items()})
        if not result.failed:
            await self.runs.remember_good(LastSuccess(findings.rows, findings.managed))
        await self.runs.remember_end(well=not result.failed)
        return result

    async def repair(self, subjects: Sequence[Subject], result: Result) -> None:
        """Reconcile these subjects by the path of the webhooks, a hundred at a time, in the repair lane."""
        current_lane.set(LANE)
        waiting = list(subjects)
        deadline = self.clock.monotonic() + self.timings.reconcile_patience
        while waiting:
            done = len(subjects) - len(waiting)
            self.progress("repaired", done, len(subjects))
            batch, rest = waiting[:BATCH], waiting[BATCH:]
            claims = await self.queue.enqueue_and_claim(
                [WorkItem(str(s), LANE, cause=CAUSE) for s in batch], self.timings.lease
            )
            if claims:
                await self._run(claims, result)
                deadline = self.clock.monotonic() + self.timings.reconcile_patience
            claimed = {claim.key for claim in claims}
            waiting = rest + [s for s in batch if str(s) not in claimed]
            if not claims:
                if self.clock.monotonic() > deadline:
                    log.warning("deferred_to_worker", subjects=len(waiting))
                    return
                await self.clock.sleep(self.timings.reconcile_poll)
        self.progress("repaired", len(subjects), len(subjects))

    async def _run(self, claims: Sequence[Claim], result: Result) -> None:
        pending = {claim.key: claim for claim in claims}
        try:
            batch = [due_of(claim, lease_of(claim, self.clock, self.timings), adopt=self.adopt) for claim in claims]
            async for outcomes in self.reconciler.run(batch):
                await self.queue.complete([self._completion(pending.pop(str(o.due.subject)), o) for o in outcomes])
                for outcome in outcomes:
                    _count(outcome, result)
        finally:
            # After Ctrl-C or a failed read the rest is given back, for the worker or the next run.
            await asyncio.shield(self.queue.complete([Released(claim) for claim in pending.values()]))

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
            wrote=outcome.writes,
        )

    async def _desired(self) -> Desired:
        fields = self.reconciler.layout.fields
        named: dict[Subject, list[Entitlement | Refusal]] = defaultdict(list)
        unaddressed: list[Refusal] = []
        after, rows = "", 0
        while True:
            page = await self.reconciler.source.everything(after)
            if not rows:
                refuse_wrong_shape(page.rows, fields)
            for raw in page.rows:
                subject, read = read_row(raw, fields)
                if subject is not None:
                    named[subject].append(read)
                elif isinstance(read, Refusal):
                    unaddressed.append(read)
            rows += len(page.rows)
            self.progress("read from Sanity", rows, 0)
            if page.last:
                return Desired(named, unaddressed, rows)
            if page.cursor <= after:
                raise UnreadableAnswer("a page did not go on from the one before")
            after = page.cursor

    async def _refuse_shrinking(self, rows: int) -> None:
        if not rows:
            raise DatasetEmpty
        good = await self.runs.last_good()
        if good and rows * 2 < good.entitlements and not self.accept_fewer:
            raise SourceShrank(f"{rows} now, {good.entitlements} in the last good run")

    def _compare(
        self, observed: Observed, desired: Desired, directory: Directory, findings: Findings, now: datetime
    ) -> None:
        subject, layout = observed.subject, self.reconciler.layout
        rows = [
            row
            for name in directory.names_of(subject)
            for read in desired.named.get(name, ())
            for owner, row in rows_for_owner(name, read, directory.holders)
            if owner == subject
        ]
        entitlements = [row for row in rows if isinstance(row, Entitlement)]
        refusals = [row for row in rows if isinstance(row, Refusal)]
        access = policy.merge(entitlements, layout.fields, now, refusals)
        findings.checked += 1
        findings.managed += observed.marker is not None
        findings.refused += access.refusals
        _tally(findings, observed, access, layout)
        if access.next_transition is not None:
            findings.transitions[subject] = access.next_transition
        try:
            change = changes.diff(
                access, observed, layout, at=now.isoformat(timespec="seconds"), cause=str(CAUSE), witnessed=self.adopt
            )
        except AccessTooLarge as error:
            findings.refused.append(Refusal(", ".join(access.sources[:3]), "size", error.detail))
            return
        if change.kind is not ChangeKind.NONE:
            findings.differences.append(classify(change, observed, layout))

    async def _schedule(self, transitions: Mapping[Subject, datetime]) -> None:
        """Enqueue each subject for the next time at which its access changes."""
        moments = {str(subject): moment.timestamp() for subject, moment in transitions.items()}
        items = [
            WorkItem(key, 1, visible_at=at, cause=Cause(CauseKind.WINDOW), transition_at=at)
            for key, at in moments.items()
        ]
        for start in range(0, len(items), 1000):
            await self.queue.enqueue(items[start : start + 1000])


def _tally(findings: Findings, observed: Observed, access: Access, layout: Layout) -> None:
    """Count what a subject should have and what it has in Clerk, unless it is neither entitled nor managed."""
    if not access.sources and observed.marker is None:
        return
    plan = layout.fields[0].name
    desired = {name: list(value) if isinstance(value, tuple) else value for name, value in access.values.items()}
    live = changes.managed_values(observed, layout)
    findings.published.add(observed.subject, desired.get(plan), desired)
    findings.held_in_clerk.add(observed.subject, live.get(plan), live)


def _count(outcome: Outcome, result: Result) -> None:
    if isinstance(outcome.error, RefusedError):
        result.refused += 1
    elif outcome.error is not None:
        result.failed[str(outcome.due.subject)] = outcome.error
    elif outcome.change is not None:
        result.kinds[outcome.change.kind] += 1


def report(findings: Findings, result: Result | None, calls: Mapping[str, int], seconds: float) -> dict[str, object]:
    """Return the object of `reconcile --json`. Without a result (a dry run) it says what would be done."""
    planned = Counter(d.change.kind for d in findings.differences)
    kinds = planned if result is None else result.kinds
    held = len(findings.revocations) if result is not None and result.held else 0
    return {
        "checked": findings.checked,
        "granted": kinds[ChangeKind.GRANT],
        "updated": kinds[ChangeKind.UPDATE],
        "revoked": kinds[ChangeKind.REVOKE],
        "unchanged": findings.checked - len(findings.differences),
        "refused": len(findings.refused) if result is None else result.refused,
        "held": held,
        "writes": calls.get("writes", 0),
        "clerk_calls": calls.get("Clerk", 0),
        "sanity_calls": calls.get("Sanity", 0),
        "seconds": round(seconds, 2),
    }

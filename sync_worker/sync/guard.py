"""The guard: no single cause may take much away from many people unseen.

A plan, a course, a wrong query or a reconcile may affect thousands of subjects. The losses of each cause are counted
over an hour, in the shared database; beyond MAX_REVOCATIONS they are held for approval, on a list with one row a
subject. What takes nothing is written all the same. While a subject is on a list, its loss is written only when its own
entitlement ends or an operator says so: by a command, or by approving that very list.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from sync_worker.domain.loss import losses
from sync_worker.domain.work import PUBLISHED, Cause, CauseKind
from sync_worker.errors import ManagedElsewhere, NoSuchSubject
from sync_worker.storage.approvals import HeldChange

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sync_worker.domain.changeset import LossLimit
    from sync_worker.domain.clock import Clock
    from sync_worker.domain.entitlements import Change, Field
    from sync_worker.storage.approvals import Approvals
    from sync_worker.storage.reconcile_runs import ReconcileRuns
    from sync_worker.sync.outcome import Due, Outcome

log = structlog.get_logger("guard")


@dataclass(frozen=True, slots=True)
class Guard:
    """Reviews losses before they are written. Errors: DatabaseUnavailable.

    `managed` is how many subjects there are with managed keys; None: as many as the last good reconcile saw.
    """

    approvals: Approvals
    runs: ReconcileRuns
    limit: LossLimit
    fields: Sequence[Field]
    clock: Clock
    managed: int | None = None

    async def review(self, outcomes: list[Outcome]) -> list[Outcome]:
        """Return the outcomes of a batch; of those whose loss is held only the part remains that takes nothing."""
        losing = [
            o
            for o in outcomes
            if o.change is not None and o.change.losses and o.due.cause.kind is not CauseKind.OPERATOR
        ]
        if not losing:
            return outcomes
        listed = await self.approvals.held_of([str(o.due.subject) for o in losing])
        by_cause: dict[Cause, list[Outcome]] = defaultdict(list)
        held: dict[str, str] = {}
        for outcome in losing:
            before = listed.get(str(outcome.due.subject))
            if self._ended(outcome) or (before is not None and self._is_approved(outcome, before)):
                continue
            if before is not None:
                held |= await self._hold(outcome.due.cause, [outcome], "")
            elif not _is_own(outcome):
                by_cause[outcome.due.cause].append(outcome)
            elif _is_invalid(outcome):
                # Perhaps not what the entitlement says, but what it refers to: an import may publish both at once.
                by_cause[Cause(CauseKind.INVALID)].append(outcome)
        for cause, some in by_cause.items():
            if reason := await self.verdict(cause, [str(o.due.subject) for o in some]):
                held |= await self._hold(cause, some, reason)
        return [_harmless(o, held[key]) if (key := str(o.due.subject)) in held else o for o in outcomes]

    async def expect(self, cause: Cause, subjects: Sequence[str]) -> None:
        """Count the losses of a run before its first batch is reviewed. What is on a list does not count again."""
        listed = await self.approvals.lists_of(subjects)
        await self.approvals.count_losses(str(cause), [subject for subject in subjects if subject not in listed])

    async def verdict(self, cause: Cause, subjects: Sequence[str]) -> str:
        """Count losses by a cause. Return why they must be held; empty when they are allowed."""
        total = await self.approvals.count_losses(str(cause), subjects)
        allowed = self.limit.allowed(await self._managed())
        if total <= allowed:
            return ""
        return f"{total} would lose access by {cause}; {allowed} may within an hour (MAX_REVOCATIONS={self.limit.text})"

    async def _managed(self) -> int:
        if self.managed is not None:
            return self.managed
        good = await self.runs.last_good()
        return good.managed if good else 0

    async def withdraw(self, outcomes: Sequence[Outcome]) -> None:
        """Take subjects off their lists that have nothing left that we would take: in sync, gone, or another's."""
        settled = [str(o.due.subject) for o in outcomes if not o.held and _takes_nothing(o)]
        listed = await self.approvals.lists_of(settled) if settled else {}
        for id_ in await self.approvals.release(listed) if listed else ():
            log.info("changeset_withdrawn", changeset=id_)

    def _is_approved(self, outcome: Outcome, held: HeldChange) -> bool:
        """Return whether an operator approved this very list, and nothing is lost beyond what it shows."""
        due, change = outcome.due, outcome.change
        approved = due.approved == held.changeset or due.cause == Cause(CauseKind.APPROVE, held.changeset)
        return approved and change is not None and not losses(held.after, change.after, self.fields)

    def _ended(self, outcome: Outcome) -> bool:
        """Return whether the subject's own entitlement ended: deleted, cancelled, moved, or by its window."""
        due, change = outcome.due, outcome.change
        gone = set(change.former_documents) - set(change.sources) - _refused(outcome) if change is not None else set()
        if due.transition is not None and due.transition <= self.clock.now():
            # A window that has only begun ends nothing, nor does a row that the read does not show any more.
            in_time = {document for document, ended in outcome.lapsed.items() if ended >= due.transition}
            if not gone.isdisjoint(in_time):
                return True
        return _is_own(outcome) and not gone.isdisjoint(_reported(due))

    async def _hold(self, cause: Cause, outcomes: Sequence[Outcome], reason: str) -> Mapping[str, str]:
        changes = [_held_change(o.change) for o in outcomes if o.change is not None]
        lists = await self.approvals.hold(str(cause), changes, reason)
        if reason:
            for id_ in sorted(set(lists.values())):
                log.warning("losses_held", changeset=id_, reason=reason, next_step=f"sync-worker approve {id_}")
        return lists


def _takes_nothing(outcome: Outcome) -> bool:
    return outcome.error is None or isinstance(outcome.error, ManagedElsewhere | NoSuchSubject)


def _is_own(outcome: Outcome) -> bool:
    """Return whether an event about an entitlement of this subject alone is the cause."""
    due, change = outcome.due, outcome.change
    if due.cause.kind is CauseKind.FAN_OUT:
        return change is not None and due.cause.id in (*change.former_documents, *change.sources)
    return due.cause.kind in PUBLISHED


def _refused(outcome: Outcome) -> set[str]:
    """Return the entitlements that count for nothing because of a wrong value, which may be that of a plan."""
    return {one.document for one in outcome.access.refusals} if outcome.access is not None else set()


def _is_invalid(outcome: Outcome) -> bool:
    return bool(_refused(outcome)) or (outcome.access is not None and bool(outcome.access.unresolved))


def _reported(due: Due) -> set[str]:
    """Return the documents that events reported."""
    return {due.cause.id, *(expected.document for expected in due.reported)}


def _held_change(change: Change) -> HeldChange:
    return HeldChange(str(change.subject), change.before, change.after)


def _harmless(outcome: Outcome, id_: str) -> Outcome:
    """Return the outcome with the loss left out. The documents that gave it still count for the subject."""
    giving = outcome.change.giving if outcome.change is not None else None
    return replace(outcome, change=giving, held=id_, removed_sources=())

"""The guard: no single cause may take the access of many people away unseen.

A plan, a course or a wrong query may affect thousands of subjects, and Clerk's events enqueue people without any
publish. Revocations by one such cause are counted over an hour, in the shared database; a full reconcile counts its
own. Beyond MAX_REVOCATIONS they are held as a changeset. What a webhook says about one entitlement is never held, nor
is the end of a window, whatever else enqueues the subject meanwhile.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from sync_worker.domain.changeset import changeset_id
from sync_worker.domain.entitlements import ChangeKind
from sync_worker.domain.revisions import reports_delete
from sync_worker.domain.work import Cause, CauseKind
from sync_worker.errors import RevocationHeld

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sync_worker.domain.changeset import RevocationLimit
    from sync_worker.domain.clock import Clock
    from sync_worker.storage.reconcile_runs import Runs
    from sync_worker.sync.outcome import Due, Outcome

COUNTED = frozenset({CauseKind.FAN_OUT, CauseKind.POLL, CauseKind.CLERK})
"""The causes that nobody published for one person."""

log = structlog.get_logger("guard")


@dataclass(frozen=True, slots=True)
class Revocations:
    """Subjects that lose their access by one cause.

    `name` identifies the changeset. `total` counts them with those before by the same `cause`; `managed` is how many
    subjects there are with our marker.
    """

    name: Sequence[str]
    subjects: Sequence[str]
    total: int
    managed: int
    cause: str = ""


@dataclass(frozen=True, slots=True)
class Guard:
    """Reviews revocations before they are written. Errors: DatabaseUnavailable."""

    runs: Runs
    limit: RevocationLimit
    clock: Clock

    async def review(self, revocations: Revocations) -> str:
        """Hold these revocations if they are too many. Returns the id of their changeset; empty when allowed."""
        allowed = self.limit.allowed(revocations.managed)
        if revocations.total <= allowed:
            return ""
        id_ = changeset_id(revocations.name)
        by_cause = f" by {revocations.cause} in an hour" if revocations.cause else ""
        reason = f"{revocations.total} revocations{by_cause}, {allowed} are allowed (MAX_REVOCATIONS={self.limit.text})"
        await self.runs.hold(id_, revocations.subjects, reason)
        log.warning("revocations_held", changeset=id_, reason=reason, next_step=f"sync-worker approve {id_}")
        return id_

    async def review_batch(self, outcomes: list[Outcome]) -> list[Outcome]:
        """Return the outcomes of a batch, with the revocations that are held turned into errors."""
        by_cause: dict[Cause, list[str]] = defaultdict(list)
        for outcome in outcomes:
            revokes = outcome.change is not None and outcome.change.kind is ChangeKind.REVOKE
            if revokes and outcome.due.cause.kind in COUNTED and not self._is_meant(outcome.due):
                by_cause[outcome.due.cause].append(str(outcome.due.subject))
        held: dict[str, str] = {}
        for cause, subjects in by_cause.items():
            held |= await self._review_cause(str(cause), subjects)
        return [_hold(o, held[key]) if (key := str(o.due.subject)) in held else o for o in outcomes]

    def _is_meant(self, due: Due) -> bool:
        """Tell whether an entitlement was deleted, or a window has come, beside the cause that is counted."""
        deleted = any(
            reports_delete(e) and Cause(CauseKind.FAN_OUT, e.document) != due.cause for e in due.expected_revisions
        )
        return deleted or (due.transition is not None and due.transition <= self.clock.now())

    async def _review_cause(self, cause: str, subjects: Sequence[str]) -> dict[str, str]:
        """Return the changesets of those subjects that are held, now or already, by subject."""
        total = await self.runs.count_revocations(cause, subjects)
        good = await self.runs.last_good()
        id_ = await self.review(Revocations([cause], subjects, total, good.managed if good else 0, cause))
        if id_:
            return dict.fromkeys(subjects, id_)
        already = {subject: one.id for one in await self.runs.held() for subject in one.subjects}
        return {subject: already[subject] for subject in subjects if subject in already}


def _hold(outcome: Outcome, id_: str) -> Outcome:
    return replace(outcome, change=None, error=RevocationHeld(f"changeset {id_}"))

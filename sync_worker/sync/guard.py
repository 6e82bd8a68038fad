"""The brake: what nobody published for a person must not take the access of many people away unseen.

Why it exists: a plan, a course or a wrong query may stand behind thousands of subjects, and people who use Clerk have
it compared without any publish. Revocations that follow from one document, or from one kind of Clerk's events, are
counted over an hour, in the shared database; beyond what MAX_REVOCATIONS allows they are held as a changeset, like
those of a reconcile. What a webhook says of one entitlement is never held, nor is the end of a window, whatever else
marks the subject meanwhile.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from sync_worker.domain.changeset import changeset_id
from sync_worker.domain.entitlements import ChangeKind
from sync_worker.domain.work import CLERK, FAN_OUT, POLL
from sync_worker.errors import RevocationHeld

if TYPE_CHECKING:
    from sync_worker.domain.changeset import RevocationLimit
    from sync_worker.domain.clock import Clock
    from sync_worker.storage.reconcile_runs import Runs
    from sync_worker.sync.outcome import Due, Outcome

COUNTED = (FAN_OUT, POLL, CLERK)
"""The prefixes of causes that nobody published for one person."""

log = structlog.get_logger("brake")


@dataclass(frozen=True, slots=True)
class Guard:
    """Looks at what is about to be written."""

    runs: Runs
    brake: RevocationLimit
    clock: Clock

    async def review(self, outcomes: list[Outcome]) -> list[Outcome]:
        """Return the outcomes, with those revocations turned into errors that have to be approved."""
        by_cause: dict[str, list[Outcome]] = defaultdict(list)
        for outcome in outcomes:
            revokes = outcome.change is not None and outcome.change.kind is ChangeKind.REVOKE
            if revokes and outcome.due.cause.startswith(COUNTED) and not self._is_meant(outcome.due):
                by_cause[outcome.due.cause].append(outcome)
        held = {str(o.due.subject): id_ for cause, some in by_cause.items() for o, id_ in await self._held(cause, some)}
        return [_hold(o, held[str(o.due.subject)]) if str(o.due.subject) in held else o for o in outcomes]

    def _is_meant(self, due: Due) -> bool:
        """Tell whether an entitlement was deleted, or the moment of a window has come, beside what is counted."""
        deleted = any(w.ends and FAN_OUT + w.document != due.cause for w in due.expected_revisions)
        return deleted or (due.transition is not None and due.transition <= self.clock.now())

    async def _held(self, cause: str, revoking: list[Outcome]) -> list[tuple[Outcome, str]]:
        total = await self.runs.count_revocations(cause, [str(o.due.subject) for o in revoking])
        good = await self.runs.last_good()
        allowed = self.brake.allowed(good.managed if good else 0)
        if total <= allowed:
            waiting = {subject: one.id for one in await self.runs.held() for subject in one.subjects}
            return [(o, waiting[str(o.due.subject)]) for o in revoking if str(o.due.subject) in waiting]
        id_ = changeset_id([cause])
        reason = f"{total} revocations by {cause} in an hour, {allowed} are allowed (MAX_REVOCATIONS={self.brake.text})"
        await self.runs.hold(id_, [str(o.due.subject) for o in revoking], reason)
        log.warning("revocations_held", changeset=id_, reason=reason, next_step=f"sync-worker approve {id_}")
        return [(outcome, id_) for outcome in revoking]


def _hold(outcome: Outcome, id_: str) -> Outcome:
    return replace(outcome, change=None, error=RevocationHeld(f"changeset {id_}"))

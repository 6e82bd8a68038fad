"""The status of the whole installation, as JSON for the status page and for scripts.

It reads only the database, so that it works while Sanity or Clerk is down.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sync_worker.diagnostics.health import stopped_by
from sync_worker.diagnostics.issues import HELD_CODE, IssueKind, collect_issues, issue_json, kind_of, next_step
from sync_worker.diagnostics.serialize import entry_json, without_addresses
from sync_worker.errors import SyncWorkerError, error_named
from sync_worker.formatting import ago, rfc3339
from sync_worker.storage.counters import MISSED_WEBHOOKS
from sync_worker.storage.liveness import note_of
from sync_worker.storage.reconcile_runs import GOOD

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sync_worker.domain.timings import Timings
    from sync_worker.storage.approvals import Approvals, HeldChange, HeldChangeset
    from sync_worker.storage.ledger import Ledger
    from sync_worker.storage.queue import WorkQueue

LISTED = 50
"""Issues on the page; `sync-worker failed` lists all."""
RECENT = 10


@dataclass(frozen=True, slots=True)
class LastSeen:
    """When each part was last active, in epoch seconds; None means never."""

    worker: float | None
    sanity: float | None
    clerk: float | None
    reconcile: float | None


@dataclass(frozen=True, slots=True)
class StatusReader:
    """Reads the status from the database."""

    queue: WorkQueue
    ledger: Ledger
    approvals: Approvals
    timings: Timings

    async def status(self) -> dict[str, object]:
        """Return the status as JSON, with masked e-mail addresses. Raises DatabaseUnavailable."""
        now, held, tally = await self.queue.now(), await self.approvals.changesets(), await self.queue.tally()
        rows = [*await self.queue.failed(LISTED), *await self.queue.noted(LISTED)]
        issues = collect_issues(rows, held)[:LISTED]
        lists = [held_json(one, await self.approvals.changes(one.id, limit=LISTED)) for one in held[:LISTED]]
        depth, last_seen = await self.queue.depth(), await self._last_seen()
        held_back = (await self.queue.failed_by_code()).get(HELD_CODE, 0)
        counts = Counter({IssueKind.FAILED: depth.failed - held_back})
        for (code, retrying), number in (await self.queue.noted_by_code()).items():
            counts[kind_of(code, retrying=retrying)] += number
        counts[IssueKind.HELD] = sum(one.size for one in held)
        missed = await self.queue.recall(MISSED_WEBHOOKS)
        stopped = await stopped_by(self.queue, self.timings)
        payload = {
            "headline": self._headline(counts, last_seen, stopped, tally.oldest, now),
            "counts": {"synced": tally.synced, **{kind.value: counts[kind] for kind in IssueKind}},
            "work": {
                "due": sum(lane.due for lane in depth.lanes),
                "running": sum(lane.running for lane in depth.lanes),
                "scheduled": sum(lane.scheduled for lane in depth.lanes),
                "oldest": rfc3339(tally.oldest),
            },
            "worker": {
                "alive": self._alive(last_seen, now),
                "seen": rfc3339(last_seen.worker),
                "stopped": stopped or None,
                "nextStep": next_step(stopped) if stopped else "",
            },
            "lastWebhook": {"sanity": rfc3339(last_seen.sanity), "clerk": rfc3339(last_seen.clerk)},
            "lastReconcile": rfc3339(last_seen.reconcile),
            "missed_webhooks": int(missed[0]) if missed else 0,
            "held": lists,
            "troubles": [issue_json(one) for one in issues if one.kind is not IssueKind.HELD],
            "changes": [entry_json(entry) for entry in await self.ledger.history(limit=RECENT)],
        }
        return {key: without_addresses(value) for key, value in payload.items()}

    async def _last_seen(self) -> LastSeen:
        names = ("heartbeat", note_of("sanity"), note_of("clerk"), GOOD)
        found = [await self.queue.recall(name) for name in names]
        return LastSeen(*(one[1] if one else None for one in found))

    def _alive(self, last_seen: LastSeen, now: float) -> bool:
        return last_seen.worker is not None and now - last_seen.worker < self.timings.worker_gone_after

    def _headline(
        self, counts: Counter[IssueKind], last_seen: LastSeen, stopped: str, oldest: float | None, now: float
    ) -> str:
        """Return in one sentence the most urgent thing to know."""
        if trouble := self._trouble_of_worker(last_seen, stopped, now):
            return trouble
        if counts[IssueKind.HELD]:
            return f"{_subjects(counts[IssueKind.HELD])} would lose access; this is held for approval."
        if needing := counts[IssueKind.FAILED] + counts[IssueKind.REFUSED]:
            return f"{_items(needing)} attention; everything else is in sync."
        if oldest is not None and now - oldest > self.timings.late_after:
            return f"A change has been waiting for {ago(now - oldest)}."
        return "Everything published is in Clerk."

    def _trouble_of_worker(self, last_seen: LastSeen, stopped: str, now: float) -> str:
        if last_seen.worker is None:
            return "No worker has run yet, so nothing reaches Clerk."
        if not self._alive(last_seen, now):
            return f"No worker has run for {ago(now - last_seen.worker)}, so nothing reaches Clerk."
        return f"All work is stopped. {(error_named(stopped) or SyncWorkerError).headline()}" if stopped else ""


def held_json(held: HeldChangeset, changes: Iterable[HeldChange]) -> dict[str, object]:
    """Return one held changeset with the changes on it, or with some of them."""
    changes = list(changes)
    return {
        "id": held.id,
        "at": rfc3339(held.at),
        "expires": rfc3339(held.expires),
        "reason": held.reason,
        "size": held.size,
        "subjects": [change.subject for change in changes],
        "changes": [{"subject": c.subject, "before": c.before, "after": c.after} for c in changes],
    }


def _subjects(number: int) -> str:
    return "1 subject" if number == 1 else f"{number} subjects"


def _items(number: int) -> str:
    return "1 item needs" if number == 1 else f"{number} items need"

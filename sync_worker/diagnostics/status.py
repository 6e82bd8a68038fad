"""How everything is at a glance: how many are right, wait, failed or are held, and whether anybody is at work.

Why it exists: an operator opens one page first. What it shows comes from the database alone, so that it is there when
Sanity or Clerk is not. Showing it is `pages`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sync_worker.diagnostics.issues import Sort, gathered, sort_of
from sync_worker.diagnostics.issues import as_json as trouble_json
from sync_worker.diagnostics.serialize import entry_json, without_addresses
from sync_worker.formatting import ago, rfc3339
from sync_worker.storage.counters import MISSED_WEBHOOKS
from sync_worker.storage.liveness import note_of
from sync_worker.storage.reconcile_runs import GOOD

if TYPE_CHECKING:
    from sync_worker.domain.timings import Timings
    from sync_worker.storage.ledger import Ledger
    from sync_worker.storage.queue import WorkQueue
    from sync_worker.storage.reconcile_runs import Held, Runs

LISTED = 50
"""Troubles on the page; the verb `failed` lists all."""
RECENT = 10


@dataclass(frozen=True, slots=True)
class Beats:
    """Signs of life, in epoch seconds; None: never."""

    worker: float | None
    sanity: float | None
    clerk: float | None
    reconcile: float | None


@dataclass(frozen=True, slots=True)
class StatusReader:
    """Reads the status. Errors: DatabaseUnavailable."""

    queue: WorkQueue
    ledger: Ledger
    runs: Runs
    timings: Timings

    async def status(self) -> dict[str, object]:
        """Return it as JSON, without e-mail addresses."""
        now, held, tally = await self.queue.now(), await self.runs.held(), await self.queue.tally()
        rows = [*await self.queue.failed(LISTED), *await self.queue.noted(LISTED)]
        troubles, depth, beats = gathered(rows, held)[:LISTED], await self.queue.depth(), await self._beats()
        counts = Counter({Sort.FAILED: depth.failed})
        for code, number in (await self.queue.noted_by_code()).items():
            counts[sort_of(code)] += number
        counts[Sort.HELD] = sum(len(one.subjects) for one in held)
        missed = await self.queue.recall(MISSED_WEBHOOKS)
        told = {
            "headline": self._headline(counts, beats, tally.oldest, now),
            "counts": {"synced": tally.synced, **{sort.value: counts[sort] for sort in Sort}},
            "work": {
                "due": sum(lane.due for lane in depth.lanes),
                "running": sum(lane.running for lane in depth.lanes),
                "scheduled": sum(lane.scheduled for lane in depth.lanes),
                "oldest": rfc3339(tally.oldest),
            },
            "worker": {"alive": self._alive(beats, now), "seen": rfc3339(beats.worker)},
            "lastWebhook": {"sanity": rfc3339(beats.sanity), "clerk": rfc3339(beats.clerk)},
            "lastReconcile": rfc3339(beats.reconcile),
            "missed_webhooks": int(missed[0]) if missed else 0,
            "held": [held_json(one) for one in held],
            "troubles": [trouble_json(one) for one in troubles if one.sort is not Sort.HELD],
            "changes": [entry_json(entry) for entry in await self.ledger.history(limit=RECENT)],
        }
        return {key: without_addresses(value) for key, value in told.items()}

    async def _beats(self) -> Beats:
        names = ("heartbeat", note_of("sanity"), note_of("clerk"), GOOD)
        found = [await self.queue.recall(name) for name in names]
        return Beats(*(one[1] if one else None for one in found))

    def _alive(self, beats: Beats, now: float) -> bool:
        return beats.worker is not None and now - beats.worker < self.timings.worker_gone_after

    def _headline(self, counts: Counter[Sort], beats: Beats, oldest: float | None, now: float) -> str:
        """Say in one sentence whether somebody has to do something, the most urgent first."""
        if not self._alive(beats, now):
            since = "" if beats.worker is None else f" for {ago(now - beats.worker)}"
            return f"No worker has been running{since}, so nothing reaches Clerk."
        if counts[Sort.HELD]:
            return f"{_people(counts[Sort.HELD])} would lose access; that is held until somebody approves it."
        if needing := counts[Sort.FAILED] + counts[Sort.REFUSED]:
            return f"{_things(needing)} somebody; everything else is in step."
        if oldest is not None and now - oldest > self.timings.late_after:
            return f"A change has been waiting for {ago(now - oldest)}."
        return "Everything that is published is in Clerk."


def held_json(held: Held) -> dict[str, object]:
    """Return one held changeset."""
    return {
        "id": held.id,
        "at": rfc3339(held.at),
        "expires": rfc3339(held.expires),
        "reason": held.reason,
        "subjects": list(held.subjects),
    }


def _people(number: int) -> str:
    return "One subject" if number == 1 else f"{number} subjects"


def _things(number: int) -> str:
    return "One thing needs" if number == 1 else f"{number} things need"

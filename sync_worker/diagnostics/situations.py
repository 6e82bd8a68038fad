"""Reads from the database what operators should be notified of: each situation with its size and what to do."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sync_worker.errors import error_named
from sync_worker.formatting import ago, masked, rfc3339
from sync_worker.redaction import redact
from sync_worker.storage.counters import MISSED_WEBHOOKS
from sync_worker.storage.notices import Situation
from sync_worker.storage.reconcile_runs import BADLY, ENDED, GOOD
from sync_worker.storage.state import PAGES_URL, STOPPED

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sync_worker.domain.timings import Timings
    from sync_worker.storage.approvals import Approvals
    from sync_worker.storage.queue import WorkQueue

LOSSES_HELD, WORK_STOPPED, MISSED, GIVEN_UP = "losses_held", "work_stopped", "webhooks_missed", "subject_given_up"
RECONCILE_FAILED, RECONCILE_OVERDUE = "reconcile_failed", "reconcile_overdue"
EVENTS = (LOSSES_HELD, WORK_STOPPED, MISSED, GIVEN_UP, RECONCILE_FAILED, RECONCILE_OVERDUE)


@dataclass(frozen=True, slots=True)
class SituationReader:
    """Reads the situations. `installation` names it in every text: project and dataset."""

    queue: WorkQueue
    approvals: Approvals
    timings: Timings
    installation: str

    async def read(self) -> list[Situation]:
        """Return everything there is to know now. Raises DatabaseUnavailable."""
        found = [*await self._held(), *await self._stopped(), *await self._missed(), *await self._given_up()]
        found += [*await self._reconcile_failed(), *await self._reconcile_overdue()]
        base = await self.queue.recall(PAGES_URL)
        return [linked(one, base[0]) for one in found] if base else found

    def _situation(self, event: str, cause: str, size: int, text: str, **facts: object) -> Situation:
        facts = {"installation": self.installation, **facts}
        return Situation(event, cause, masked(redact(f"Sync of {self.installation}: {text}")), size, facts)

    async def _held(self) -> Iterable[Situation]:
        return [
            self._situation(
                LOSSES_HELD,
                held.id,
                held.size,
                f"{_subjects(held.size)} would lose access; held for approval until {rfc3339(held.expires)}. "
                f"{held.reason}. Run `sync-worker approve` to see them and `sync-worker approve {held.id}` to apply "
                "the list, or publish what is missing.",
                changeset=held.id,
                subjects=held.size,
                expires=rfc3339(held.expires),
            )
            for held in await self.approvals.changesets()
        ]

    async def _stopped(self) -> Iterable[Situation]:
        stopped, age = await self.queue.recall(STOPPED), await self.queue.age(STOPPED)
        if stopped is None or age is None or age > self.stopped_within:
            return []
        code = stopped[0]
        text = f"all work is stopped, and nothing is lost. {_meaning(code)} `sync-worker doctor` names what to correct."
        return [self._situation(WORK_STOPPED, code, 1, text, code=code)]

    async def _missed(self) -> Iterable[Situation]:
        found = await self.queue.recall(MISSED_WEBHOOKS)
        total = int(found[0]) if found else 0
        if not total:
            return []
        text = (
            f"{total} changes so far were found without a webhook. Run `sync-worker doctor` to see whether the webhook "
            "exists and is enabled."
        )
        return [self._situation(MISSED, "poll", total, text, total=total)]

    async def _given_up(self) -> Iterable[Situation]:
        return [
            self._situation(
                GIVEN_UP,
                code,
                number,
                f"{_subjects(number)} could not be synced. {_meaning(code)} `sync-worker failed` lists them.",
                code=code,
                subjects=number,
            )
            for code, number in sorted((await self.queue.failed_by_code()).items())
        ]

    async def _reconcile_failed(self) -> Iterable[Situation]:
        ended = await self.queue.recall(ENDED)
        if ended is None or ended[0] != BADLY:
            return []
        text = (
            f"the reconcile that ended at {rfc3339(ended[1])} was not good: it failed, or left something held or "
            "unwritten. Run `sync-worker reconcile --dry-run` and read its output."
        )
        return [self._situation(RECONCILE_FAILED, "reconcile", int(ended[1]), text, ended=rfc3339(ended[1]))]

    async def _reconcile_overdue(self) -> Iterable[Situation]:
        age = await self.queue.age(GOOD)
        if age is None:
            age = await self.queue.age("installed")
        if age is None or age < self.timings.reconcile_stale_after:
            return []
        text = (
            f"no reconcile has succeeded for {ago(age)}. Run `sync-worker reconcile`, and see that it runs every night."
        )
        return [self._situation(RECONCILE_OVERDUE, "reconcile", int(age // 86_400), text, hours=int(age // 3600))]

    @property
    def stopped_within(self) -> float:
        """For how many seconds a worker's word that it is stopped counts."""
        return 2 * self.timings.credentials_probe + 2 * self.timings.notify_interval


def linked(one: Situation, base: str) -> Situation:
    """Return the situation with a link to its page, in the text and in the facts."""
    link = f"{base}/held/{one.cause}" if one.event == LOSSES_HELD else f"{base}/status"
    return replace(one, text=f"{one.text} {link}", facts={**one.facts, "link": link})


def _meaning(code: str) -> str:
    """Return what an error means and what to do."""
    error = error_named(code)
    return f"{error.headline()} {error.next_step()}" if error else f"The reason is {code}."


def _subjects(number: int) -> str:
    return "1 subject" if number == 1 else f"{number} subjects"

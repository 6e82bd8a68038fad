"""Recovers from reads in which no entitlement is visible.

A token that lost a permission, or a wrong type name, looks like an empty dataset, without any error. The reconciler
takes nothing away on such a read. But a window that opened meanwhile, or a sign-up, has no second event: so these reads
are recorded, and whatever ran since is enqueued again once an entitlement is visible.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from sync_worker.domain.work import Cause, CauseKind
from sync_worker.errors import DatasetEmpty
from sync_worker.storage.work_items import FANOUT, WorkItem

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from sync_worker.domain.freshness import Stored
    from sync_worker.domain.subjects import Subject
    from sync_worker.domain.timings import Timings
    from sync_worker.sanity.source import Page, Snapshot, Source
    from sync_worker.storage.queue import WorkQueue

STATE = "dataset_empty"
"""The name under which the time of the first empty read is kept, in epoch seconds."""
CAUSE = Cause(CauseKind.DATASET_VISIBLE_AGAIN)
LANE, FANOUT_LANE = 2, 1
PAGE = 1000

log = structlog.get_logger("worker")


@dataclass(frozen=True, slots=True)
class RecordingSource:
    """A Source that records each read in which no entitlement is visible, before the read returns.

    So the record is durable before a run can finish on such a read. Also raises DatabaseUnavailable.
    """

    source: Source
    queue: WorkQueue
    timings: Timings

    async def by_subject(self, subjects: Collection[Subject], documents: Collection[str]) -> Snapshot:
        """See Source."""
        snapshot = await self.source.by_subject(subjects, documents)
        await self._record(snapshot.visible)
        return snapshot

    async def by_address(self, addresses: Collection[Subject]) -> frozenset[str]:
        """See Source."""
        return await self.source.by_address(addresses)

    async def affected(self, documents: Collection[str], after: str, expected_revisions: Collection[str]) -> Page:
        """See Source."""
        page = await self.source.affected(documents, after, expected_revisions)
        await self._record(page.visible)
        return page

    async def everything(self, after: str) -> Page:
        """See Source."""
        page = await self.source.everything(after)
        await self._record(page.visible)
        return page

    async def changed(self, since: str, after: str, before: str) -> tuple[Mapping[str, Any], ...]:
        """See Source."""
        return await self.source.changed(since, after, before)

    async def deleted(self, since: str, until: str) -> Mapping[str, str]:
        """See Source."""
        return await self.source.deleted(since, until)

    async def stored(self, ids: Collection[str]) -> Stored:
        """See Source."""
        return await self.source.stored(ids)

    async def _record(self, visible: int | None) -> None:
        if visible == 0:
            await report_empty_read(self.queue, self.timings)


async def report_empty_read(queue: WorkQueue, timings: Timings) -> None:
    """Record that a read saw no entitlement. The first one is logged."""
    known = await queue.recall(STATE)
    since = known[0] if known else str(await queue.now() - timings.empty_dataset_overlap)
    await queue.remember(STATE, since)
    if known is None:
        log.warning("dataset_empty", next_step=DatasetEmpty().next_step())


async def requeue_after_empty_read(source: Source, queue: WorkQueue) -> int:
    """Enqueue what ran since the first empty read, if an entitlement is visible again. Returns the number of rows.

    The record is dropped only if no other read was empty meanwhile, and after the items are durable.
    """
    known = await queue.recall(STATE)
    if known is None or not (await source.by_subject((), ())).visible:
        return 0
    since, last = known
    keys = await queue.settled_since(float(since))
    for start in range(0, len(keys), PAGE):
        await queue.enqueue([_item(key) for key in keys[start : start + PAGE]])
    await queue.forget(STATE, last)
    log.info("dataset_visible_again", subjects=len(keys))
    return len(keys)


def _item(key: str) -> WorkItem:
    """Return the item of a row. A document is fanned out: it may be a plan, not an entitlement to look up."""
    return WorkItem(key, FANOUT_LANE if key.startswith(FANOUT) else LANE, cause=CAUSE)

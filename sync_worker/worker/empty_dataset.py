"""Runs that saw not one entitlement, done again as soon as one is visible.

Why it exists: a token that lost a permission, or a wrong type name, looks like an empty dataset, without any error. On
such a read nothing is taken away, which is `converge`'s part; but what should have begun meanwhile would be missed for
good, because no event tells of it again: a window that opened, a sign-up, a value that somebody changed by hand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from sync_worker.errors import DatasetEmpty
from sync_worker.storage.queue import FANOUT, WorkItem

if TYPE_CHECKING:
    from sync_worker.domain.timings import Timings
    from sync_worker.sanity.client import Source
    from sync_worker.storage.queue import WorkQueue

STATE = "dataset_empty"
"""Where it is remembered since when (epoch seconds) runs see nothing."""
CAUSE = "dataset_visible_again"
LANE, FANOUT_LANE = 2, 1
PAGE = 1000

log = structlog.get_logger("worker")


async def report_empty_read(queue: WorkQueue, timings: Timings) -> None:
    """Remember that a run is about to end which saw no entitlement."""
    known = await queue.recall(STATE)
    since = known[0] if known else str(await queue.now() - timings.empty_dataset_overlap)
    await queue.remember(STATE, since)
    if known is None:
        log.warning("dataset_empty", next_step=DatasetEmpty().next_step())


async def requeue_after_empty_read(source: Source, queue: WorkQueue) -> int:
    """Mark what ran since then, when an entitlement is visible again; return how many rows it were.

    It is forgotten only if no other run saw nothing meanwhile, and after the marks are durable.
    """
    known = await queue.recall(STATE)
    if known is None or not (await source.by_subject((), ())).visible:
        return 0
    since, last = known
    keys = await queue.settled_since(float(since))
    for start in range(0, len(keys), PAGE):
        await queue.enqueue([_mark(key) for key in keys[start : start + PAGE]])
    await queue.forget(STATE, last)
    log.info("dataset_visible_again", subjects=len(keys))
    return len(keys)


def _mark(key: str) -> WorkItem:
    """Return the mark of a row. A document is walked: it may be a plan, and not an entitlement to look up."""
    return WorkItem(key, FANOUT_LANE if key.startswith(FANOUT) else LANE, cause=CAUSE)

"""Turns a changed document into work items: every subject whose access leads to it is enqueued, page by page.

A plan, a course or a cohort has no subject of its own, and may have a hundred thousand. The walk may be killed and run
again at any point, because enqueueing twice is enqueueing once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sync_worker.domain.work import REFERENCE_DEPTH
from sync_worker.errors import StaleRead, UnreadableAnswer
from sync_worker.storage.work_items import WorkItem
from sync_worker.sync.address_resolution import fresh_page, resolve

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from sync_worker.domain.clock import Clock
    from sync_worker.domain.revisions import ExpectedRevision
    from sync_worker.domain.timings import Timings
    from sync_worker.domain.work import Cause
    from sync_worker.sanity.source import Source
    from sync_worker.sync.address_resolution import Find, Resolution

LANE = 1


async def fan_out(
    source: Source,
    find: Find,
    document: str,
    expected_revisions: Sequence[ExpectedRevision],
    enqueue: Callable[[Sequence[WorkItem]], Awaitable[None]],
    *,
    clock: Clock,
    timings: Timings,
    cause: Cause,
) -> list[Resolution]:
    """Enqueue all that `document` decides about. Returns whom it names itself, where that is worth a note.

    Raises StaleRead while the index does not reflect the expected revisions, and what `Source` raises.
    """
    resolutions: list[Resolution] = []
    expected = next((known for known in expected_revisions if not known.served), None)
    level, seen = {document}, {document}
    for _ in range(REFERENCE_DEPTH):
        between: set[str] = set()
        after = ""
        while True:
            page, stale = await fresh_page(
                source,
                level,
                after,
                expected_revisions,
                clock=clock,
                timings=timings,
            )
            if stale:
                raise StaleRead(", ".join(sorted(stale)))
            between.update(page.between)
            named = await resolve(page.rows, find)
            items = [WorkItem(str(s), lane=LANE, expected=expected, cause=cause) for one in named for s in one.subjects]
            await enqueue(items)  # an empty page too: it keeps the walk alive
            resolutions += [one for one in named if one.document == document and one.code]
            if page.last:
                break
            if page.cursor <= after:
                raise UnreadableAnswer("a page did not go on from the one before")
            after = page.cursor
        level = between - seen
        seen |= level
        if not level:
            break
    return resolutions

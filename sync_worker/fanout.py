"""A changed document becomes marks: every subject whose access leads to it is marked, page by page.

Why it exists: a plan, a course or a cohort has no subject of its own, and may have a hundred thousand. The webhook only
marks the document; this walk runs in the background, and may be killed and run again at any point, because marking
twice is marking once. What the subjects then get is `converge`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sync_worker.errors import StaleRead, UnreadableAnswer
from sync_worker.freshness import STALE_WAITS, agrees, shows
from sync_worker.model import Refusal
from sync_worker.rows import read_row
from sync_worker.workset import Mark

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence

    from sync_worker.model import Witness
    from sync_worker.sanity import Page, Source

DEEPEST = 3
"""Levels of references: course → plan or cohort → entitlement is two; one more is room for another model."""
LANE = 1
CAUSE = "document:"


async def fan_out(
    source: Source,
    document: str,
    witnesses: Sequence[Witness],
    mark: Callable[[Sequence[Mark]], Awaitable[None]],
    *,
    sleep: Callable[[float], Awaitable[None]],
    cause: str,
) -> list[Refusal]:
    """Mark all that `document` decides about. Return why the document itself counts for nobody, if that is so.

    Raises StaleRead while the index does not show the document as the event told, and what `Source` raises.
    """
    refusals: list[Refusal] = []
    level, seen = {document}, {document}
    for _ in range(DEEPEST):
        between: set[str] = set()
        after = ""
        while True:
            page = await _fresh_page(source, level, after, witnesses, sleep)
            between.update(page.between)
            refusals += await _mark_page(page, document, witnesses, mark, cause)
            if page.last:
                break
            if page.cursor <= after:
                raise UnreadableAnswer("a page did not go on from the one before")
            after = page.cursor
        level = between - seen
        seen |= level
        if not level:
            break
    return refusals


async def _mark_page(
    page: Page,
    document: str,
    witnesses: Sequence[Witness],
    mark: Callable[[Sequence[Mark]], Awaitable[None]],
    cause: str,
) -> list[Refusal]:
    """Mark the subjects of one page. Only the refusal of the document itself is told: others told their own."""
    marks, refusals = [], []
    witness = witnesses[0] if witnesses else None
    for raw in page.rows:
        subject, read = read_row(raw, ())
        if subject is not None:
            marks.append(Mark(str(subject), lane=LANE, witness=witness, cause=cause))
        elif isinstance(read, Refusal) and read.document == document:
            refusals.append(read)
    if marks:
        await mark(marks)
    return refusals


async def _fresh_page(
    source: Source,
    documents: Collection[str],
    after: str,
    witnesses: Sequence[Witness],
    sleep: Callable[[float], Awaitable[None]],
) -> Page:
    ids = {w.document for w in witnesses}
    for wait in (*STALE_WAITS, None):
        page = await source.affected(documents, after, ids)
        if all(shows(page.sightings or {}, w) for w in witnesses):
            return page
        if wait is not None:
            await sleep(wait)
    stored = await source.stored(ids)
    if all(agrees(page.sightings or {}, stored, document) for document in ids):
        return page
    raise StaleRead(", ".join(sorted(ids)))

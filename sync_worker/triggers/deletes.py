"""Finds deletes without a webhook: by Sanity's transaction log, or by comparing all ids.

Nothing in the content says that a document was there. The log does, for the time that Sanity keeps it; where it cannot
be read, and every FULL_CHECK_SECONDS, the ids of all entitlements are compared with those that the access index knows.
Nothing is enqueued that the document store does not confirm.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog

from sync_worker.domain.revisions import Ambiguous, Deletion
from sync_worker.errors import DatabaseUnavailable, SyncWorkerError, UnreadableAnswer
from sync_worker.storage.work_items import FANOUT, WorkItem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping

    from sync_worker.domain.clock import Clock
    from sync_worker.domain.timings import Timings
    from sync_worker.domain.work import Cause
    from sync_worker.sanity.source import Source
    from sync_worker.storage.access_index import AccessIndex
    from sync_worker.storage.queue import WorkQueue

CURSOR = "deletes"
LANE = 2
PAGE = 1000
SAMPLE = 5
"""Present documents that are read beside missing ones, to learn the types of entitlements."""

log = structlog.get_logger("poll")


@dataclass(frozen=True, slots=True)
class Deletes:
    """Finds deleted documents. `full_check` is the number of seconds after which all ids are compared."""

    source: Source
    queue: WorkQueue
    access: AccessIndex
    clock: Clock
    timings: Timings
    full_check: float

    async def find(self, until: str, cause: Cause, reached: str) -> int:
        """Enqueue entitlements that were deleted until then (RFC 3339). Returns their number.

        The next call begins at `reached`, which is before `until` where the end of the log may not be complete. Raises
        what reads of the content raise. A log that cannot be read is only logged: then all ids are compared.
        """
        known = await self.queue.recall(CURSOR)
        since, checked = json.loads(known[0]) if known else ("", 0.0)
        now = self.clock.now()
        deleted = await self._logged(since, until) if since else None
        if deleted is None or now - checked >= self.full_check:
            found, checked = await self._absent(), now
        else:
            former = await self.access.subjects_of(deleted)
            found = await self._confirmed(former.keys(), ())
        by = deleted or {}
        items = [
            WorkItem(
                FANOUT + id_,
                LANE,
                expected=Ambiguous(id_, None, Deletion.REPORTED),
                cause=replace(cause, by=by.get(id_, "")),
            )
            for id_ in sorted(found)
        ]
        for start in range(0, len(items), PAGE):
            await self.queue.enqueue(items[start : start + PAGE])
        await self.queue.remember(CURSOR, json.dumps([max(since, reached), checked]))
        return len(items)

    async def _logged(self, since: str, until: str) -> Mapping[str, str] | None:
        """Return what the log says was deleted, by whom; None when it does not reach back so far, or cannot be read."""
        begin = datetime.fromisoformat(since).astimezone(UTC)
        if self.clock.now() - begin.timestamp() > self.timings.log_retention:
            return None
        try:
            return await self.source.deleted(since, until)
        except DatabaseUnavailable:
            raise
        except SyncWorkerError as error:
            log.warning("transaction_log_unavailable", code=error.code, detail=error.detail)
            return None

    async def _absent(self) -> set[str]:
        """Return the documents that the index knows, and that are no published entitlements any more."""
        found: set[str] = set()
        present: list[str] = []
        published = self._published()
        visible = await anext(published, None)
        async for known in self._known():
            while visible is not None and visible < known:
                present = [visible, *present][:SAMPLE]
                visible = await anext(published, None)
            if visible != known:
                found.add(known)
        if visible is not None:
            present = [visible, *present][:SAMPLE]
        return await self._confirmed(found, present)

    async def _confirmed(self, documents: Collection[str], present: Collection[str]) -> set[str]:
        """Return the documents that the store proves to be missing, or of another type than those that are present."""
        if not documents:
            return set()
        stored = await self.source.stored({*documents, *present})
        types = {stored.documents[id_].type for id_ in present if id_ in stored.documents}
        retyped = {
            id_ for id_ in documents if types and id_ in stored.documents and stored.documents[id_].type not in types
        }
        return {*stored.missing.intersection(documents), *retyped}

    async def _known(self) -> AsyncIterator[str]:
        last = ""
        while page := await self.access.documents_after(last, PAGE):
            for document in page:
                yield document
            last = page[-1]

    async def _published(self) -> AsyncIterator[str]:
        """Yield the ids of all published entitlements in order."""
        after = ""
        while True:
            page = await self.source.everything(after)
            for row in page.rows:
                yield str(row["_id"])
            if page.last:
                return
            if page.cursor <= after:
                raise UnreadableAnswer("a page did not go on from the one before")
            after = page.cursor

"""Finds deletes without a webhook: by Sanity's transaction log, and by comparing all ids.

Nothing in the content says that a document was there. The log does, for the time that Sanity keeps it, also of what
entitlements refer to. Where it cannot be read, and every FULL_CHECK_SECONDS, the ids of all entitlements are compared
with those that the access index knows, and those with unresolved references are run again. No delete is enqueued that
the document store does not confirm.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import structlog

from sync_worker.domain.clock import utc
from sync_worker.domain.entitlements import UNRESOLVED_FIELD, Refusal
from sync_worker.domain.merge import is_active
from sync_worker.domain.revisions import Ambiguous, Deletion
from sync_worker.errors import DatabaseUnavailable, SyncWorkerError, UnreadableAnswer
from sync_worker.sanity.rows import read_row
from sync_worker.storage.work_items import FANOUT, WorkItem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence

    from sync_worker.domain.clock import Clock
    from sync_worker.domain.entitlements import Field
    from sync_worker.domain.timings import Timings
    from sync_worker.domain.work import Cause
    from sync_worker.sanity.source import Source
    from sync_worker.storage.access_index import AccessIndex
    from sync_worker.storage.queue import WorkQueue

CURSOR = "deletes"
LANE = 2
"""Where entitlements are looked up together."""
FANOUT_LANE = 1
"""Where a document is walked to all that refer to it."""
PAGE = 1000
SAMPLE = 5
"""Present documents that are read beside missing ones, to learn the types of entitlements."""
REFERRED_AT_ONCE = 100
"""Deleted documents of which one query learns whether anything refers to one of them."""

log = structlog.get_logger("poll")


@dataclass(frozen=True, slots=True)
class Deletes:
    """Finds deleted documents. `full_check` is the number of seconds after which all ids are compared."""

    source: Source
    queue: WorkQueue
    access: AccessIndex
    fields: Sequence[Field]
    clock: Clock
    timings: Timings
    full_check: float

    async def find(self, until: str, cause: Cause, reached: str) -> int:
        """Enqueue what was deleted until then (RFC 3339) and gave access. Returns the number of documents.

        The next call begins at `reached`, which is before `until` where the end of the log may not be complete. Raises
        what reads of the content raise. A log that cannot be read is only logged: then all ids are compared, and the
        next call begins where this one did.
        """
        known = await self.queue.recall(CURSOR)
        since, checked = json.loads(known[0]) if known else ("", 0.0)
        now = self.clock.now()
        is_kept = bool(since) and self._is_kept(since)
        deleted = await self._logged(since, until) if is_kept else None
        concerning = await self._concerning(deleted) if deleted else {}
        lanes = {id_: concerning[id_] for id_ in await self._confirmed(concerning.keys(), ())}
        incomplete: set[str] = set()
        if deleted is None or now - checked >= self.full_check:
            gone, incomplete = await self._compare()
            lanes |= dict.fromkeys(gone, LANE)
            checked = now
        by = deleted or {}
        items = [
            WorkItem(
                FANOUT + id_,
                lane,
                expected=Ambiguous(id_, None, Deletion.REPORTED),
                cause=replace(cause, by=by.get(id_, "")),
            )
            for id_, lane in sorted(lanes.items())
        ]
        items += [WorkItem(FANOUT + id_, LANE, cause=cause) for id_ in sorted(incomplete)]
        for start in range(0, len(items), PAGE):
            await self.queue.enqueue(items[start : start + PAGE])
        is_unread = is_kept and deleted is None
        await self.queue.remember(CURSOR, json.dumps([since if is_unread else max(since, reached), checked]))
        return len(lanes)

    def _is_kept(self, since: str) -> bool:
        """Return whether the log reaches back so far."""
        begin = datetime.fromisoformat(since).astimezone(UTC)
        return self.clock.now() - begin.timestamp() <= self.timings.log_retention

    async def _logged(self, since: str, until: str) -> Mapping[str, str] | None:
        """Return what the log says was deleted, by whom; None when it cannot be read."""
        try:
            return await self.source.deleted(since, until)
        except DatabaseUnavailable:
            raise
        except SyncWorkerError as error:
            log.warning("transaction_log_unavailable", code=error.code, detail=error.detail)
            return None

    async def _concerning(self, deleted: Collection[str]) -> dict[str, int]:
        """Return those by which somebody has access, or that entitlements still refer to, weakly, with their lanes."""
        lanes = dict.fromkeys(await self.access.subjects_of(deleted), LANE)
        others = sorted({*deleted} - lanes.keys())
        for start in range(0, len(others), REFERRED_AT_ONCE):
            batch = others[start : start + REFERRED_AT_ONCE]
            if await self._are_referred_to(batch):
                lanes |= {one: FANOUT_LANE for one in batch if await self._are_referred_to([one])}
        return lanes

    async def _are_referred_to(self, documents: Collection[str]) -> bool:
        page = await self.source.affected(documents, "", ())
        return bool(page.rows or page.between)

    async def _compare(self) -> tuple[set[str], set[str]]:
        """Return the documents that the index knows, and that are no published entitlements any more, or incomplete.

        Something that an incomplete one refers to was deleted, and no run has noted that.
        """
        absent: set[str] = set()
        incomplete: set[str] = set()
        noted = await self._noted()
        present: list[str] = []
        published = self._published()
        visible = await anext(published, None)
        async for known in self._known():
            while visible is not None and visible["_id"] < known:
                present = [visible["_id"], *present][:SAMPLE]
                visible = await anext(published, None)
            if visible is None or visible["_id"] != known:
                absent.add(known)
            elif visible.get(UNRESOLVED_FIELD) and not noted.issuperset(self._remarks(visible)):
                incomplete.add(known)
        if visible is not None:
            present = [visible["_id"], *present][:SAMPLE]
        return await self._confirmed(absent, present), incomplete

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

    def _remarks(self, row: Mapping[str, Any]) -> Iterator[str]:
        """Yield what a run notes of the unresolved references of a row that is active."""
        _, read = read_row(row, self.fields)
        if not isinstance(read, Refusal) and read.unresolved is not None and is_active(read, utc(self.clock)):
            yield str(read.unresolved.remark)

    async def _noted(self) -> set[str]:
        """Return all that runs have noted."""
        found: set[str] = set()
        last = ""
        while rows := await self.queue.noted(PAGE, last):
            found.update(line for row in rows for line in row.error_detail.splitlines())
            last = rows[-1].key
        return found

    async def _known(self) -> AsyncIterator[str]:
        last = ""
        while page := await self.access.documents_after(last, PAGE):
            for document in page:
                yield document
            last = page[-1]

    async def _published(self) -> AsyncIterator[Mapping[str, Any]]:
        """Yield the rows of all published entitlements in the order of their ids."""
        after = ""
        while True:
            page = await self.source.everything(after)
            for row in page.rows:
                yield row
            if page.last:
                return
            if page.cursor <= after:
                raise UnreadableAnswer("a page did not go on from the one before")
            after = page.cursor

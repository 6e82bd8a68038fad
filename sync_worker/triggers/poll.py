"""The poll: finds what was published and deleted a while ago, in case its webhook was lost.

A webhook that was switched off or answered 4xx loses events for good; with a poll that costs minutes, not a night. When
a run that it caused writes something, the worker reports a missed webhook.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from pydantic import ValidationError

from sync_worker.domain.clock import utc
from sync_worker.domain.revisions import expected_revision, microseconds
from sync_worker.domain.work import Cause, CauseKind
from sync_worker.errors import InvalidSubject, UnreadableAnswer
from sync_worker.sanity.rows import SubjectFields
from sync_worker.storage.work_items import FANOUT, WorkItem
from sync_worker.triggers.deletes import FANOUT_LANE, LANE, Deletes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from datetime import datetime
    from typing import Any

    from sync_worker.domain.clock import Clock
    from sync_worker.domain.entitlements import Field
    from sync_worker.domain.timings import Timings
    from sync_worker.sanity.source import Source
    from sync_worker.storage.access_index import AccessIndex
    from sync_worker.storage.queue import WorkQueue

CURSOR = "poll"


@dataclass(frozen=True, slots=True)
class Poll:
    """One poll at a time. `full_check` is the number of seconds after which all ids are compared."""

    source: Source
    queue: WorkQueue
    access: AccessIndex
    fields: Sequence[Field]
    clock: Clock
    timings: Timings
    full_check: float

    async def run(self) -> tuple[int, int]:
        """Enqueue what was published and deleted since the last poll. Returns the number of documents of each."""
        until = horizon(self.clock, self.timings)
        changed = await find_published(self.source, self.queue, until)
        return changed, await self._deletes().find(until, cause_of(until), until)

    async def catch_up(self) -> None:
        """Enqueue what happened since the last poll, up to now.

        What is newest may not be in the index or the log yet, so the next poll looks at it once more.
        """
        until = _text(utc(self.clock) + timedelta(seconds=1))
        known = await self.queue.recall(CURSOR)
        if known is None:
            await find_published(self.source, self.queue, horizon(self.clock, self.timings))
        else:
            since, after = json.loads(known[0])
            async for rows in _pages(self.source, since, after, until):
                await self.queue.enqueue([_item(row, cause_of(until)) for row in rows])
        await self._deletes().find(until, cause_of(until), horizon(self.clock, self.timings))

    def _deletes(self) -> Deletes:
        return Deletes(self.source, self.queue, self.access, self.fields, self.clock, self.timings, self.full_check)


async def find_published(source: Source, queue: WorkQueue, until: str) -> int:
    """Enqueue what was published since the last poll, page by page. Returns the number of documents.

    The first poll only records where to begin: what is older is left to the reconcile. The cursor moves after the items
    are durable, so the next poll makes up for one that was killed.
    """
    known = await queue.recall(CURSOR)
    if known is None:
        await queue.remember(CURSOR, json.dumps([until, ""]))
        return 0
    found = 0
    since, after = json.loads(known[0])
    async for rows in _pages(source, since, after, until):
        await queue.enqueue([_item(row, cause_of(until)) for row in rows])
        await queue.remember(CURSOR, json.dumps(_place(rows[-1])))
        found += len(rows)
    return found


async def _pages(source: Source, since: str, after: str, until: str) -> AsyncIterator[Sequence[Mapping[str, Any]]]:
    """Yield the pages of what was published from behind a place in the order of publishes."""
    while rows := await source.changed(since, after, until):
        last = _place(rows[-1])
        if not (since, after) < last < (until, ""):
            # A cursor outside this span would never find anything again.
            raise UnreadableAnswer("a page of changes did not go on from the one before")
        yield rows
        since, after = last


def _place(row: Mapping[str, Any]) -> tuple[str, str]:
    return str(row.get("_updatedAt")), str(row["_id"])


def horizon(clock: Clock, timings: Timings) -> str:
    """Return until when a poll looks (RFC 3339): what is newer has its webhook still on the way."""
    return _text(utc(clock) - timedelta(seconds=timings.poll_grace))


def cause_of(until: str) -> Cause:
    """Return the cause of all that one poll finds, so that the guard counts it together."""
    return Cause(CauseKind.POLL, until)


def _item(row: Mapping[str, Any], cause: Cause) -> WorkItem:
    document = str(row["_id"])
    expected = expected_revision(document, str(row.get("_rev") or ""), microseconds(str(row.get("_updatedAt"))))
    if row.get("_type") != "entitlement":
        return WorkItem(FANOUT + document, FANOUT_LANE, None, expected, cause)
    try:
        subject = SubjectFields.model_validate(row).subject()
    except (ValidationError, InvalidSubject):
        subject = None
    key = FANOUT + document if subject is None or subject.is_address else str(subject)
    return WorkItem(key, LANE, None, expected, cause)


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")

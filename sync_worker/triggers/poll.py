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
from sync_worker.storage.queue import FANOUT, WorkItem
from sync_worker.triggers.deletes import Deletes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from typing import Any

    from sync_worker.domain.clock import Clock
    from sync_worker.domain.timings import Timings
    from sync_worker.sanity.client import Source
    from sync_worker.storage.access_index import AccessIndex
    from sync_worker.storage.queue import WorkQueue

CURSOR = "poll"
LANE, FANOUT_LANE = 2, 1


@dataclass(frozen=True, slots=True)
class Poll:
    """One poll at a time. `full_check` is the number of seconds after which all ids are compared."""

    source: Source
    queue: WorkQueue
    access: AccessIndex
    clock: Clock
    timings: Timings
    full_check: float

    async def run(self) -> tuple[int, int]:
        """Enqueue what was published and deleted since the last poll. Returns the number of documents of each.

        All that one poll finds has one cause, so that the guard counts it together.
        """
        until = rfc3339(utc(self.clock) - timedelta(seconds=self.timings.poll_grace))
        cause = Cause(CauseKind.POLL, until)
        changed = await self._changed(until, cause)
        deletes = Deletes(self.source, self.queue, self.access, self.clock, self.timings, self.full_check)
        return changed, await deletes.find(until, cause)

    async def _changed(self, until: str, cause: Cause) -> int:
        """Enqueue what was published, page by page.

        The first poll only records where to begin: what is older is left to the reconcile. The cursor moves after the
        items are durable, so the next poll makes up for one that was killed.
        """
        known = await self.queue.recall(CURSOR)
        if known is None:
            await self.queue.remember(CURSOR, json.dumps([until, ""]))
            return 0
        since, after = json.loads(known[0])
        found = 0
        while rows := await self.source.changed(since, after, until):
            await self.queue.enqueue([_item(row, cause) for row in rows])
            last = str(rows[-1].get("_updatedAt")), str(rows[-1]["_id"])
            if not (since, after) < last < (until, ""):
                # A cursor outside this span would never find anything again.
                raise UnreadableAnswer("a page of changes did not go on from the one before")
            since, after = last
            await self.queue.remember(CURSOR, json.dumps([since, after]))
            found += len(rows)
        return found


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


def rfc3339(moment: datetime) -> str:
    """Return a time as Sanity writes it."""
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")

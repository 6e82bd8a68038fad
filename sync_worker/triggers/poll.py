"""The poll: enqueues what was published a while ago once more, in case its webhook was lost.

A webhook that was switched off or answered 4xx loses events for good; with a poll that costs minutes, not a night. When
a run that it caused writes something, the worker reports a missed webhook. It cannot see deletes; the full reconcile
finds them.
"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING

from pydantic import ValidationError

from sync_worker.domain.clock import utc
from sync_worker.domain.revisions import expected_revision, microseconds
from sync_worker.domain.work import Cause, CauseKind
from sync_worker.errors import InvalidSubject, UnreadableAnswer
from sync_worker.sanity.rows import SubjectFields
from sync_worker.storage.queue import FANOUT, WorkItem

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from typing import Any

    from sync_worker.domain.clock import Clock
    from sync_worker.domain.timings import Timings
    from sync_worker.sanity.client import Source
    from sync_worker.storage.queue import WorkQueue

CURSOR = "poll"
LANE, FANOUT_LANE = 2, 1


async def catch_up(source: Source, queue: WorkQueue, clock: Clock, timings: Timings) -> int:
    """Enqueue what was published since the last poll, page by page. Returns the number of documents.

    All that one poll finds has one cause, so that the guard counts it together. The first poll only records where to
    begin: what is older is left to the reconcile. The cursor moves after the items are durable, so the next poll makes
    up for one that was killed.
    """
    before = _rfc3339(utc(clock) - timedelta(seconds=timings.poll_grace))
    known = await queue.recall(CURSOR)
    if known is None:
        await queue.remember(CURSOR, json.dumps([before, ""]))
        return 0
    since, after = json.loads(known[0])
    found = 0
    cause = Cause(CauseKind.POLL, before)
    while rows := await source.changed(since, after, before):
        await queue.enqueue([_item(row, cause) for row in rows])
        last = str(rows[-1].get("_updatedAt")), str(rows[-1]["_id"])
        if not (since, after) < last < (before, ""):
            # A cursor outside this span would never find anything again.
            raise UnreadableAnswer("a page of changes did not go on from the one before")
        since, after = last
        await queue.remember(CURSOR, json.dumps([since, after]))
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


def _rfc3339(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")

"""The poll: what was published a while ago is marked once more, in case its webhook was lost.

Why it exists: a hook that was switched off or answered 4xx loses events for good; with a poll every few minutes that
costs minutes, not a night. A run that it causes and that finds something to write means that no webhook came, which
the worker tells. Deletes are invisible to it; they are found by `reconcile`.
"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING

from pydantic import ValidationError

from sync_worker.domain.clock import utc
from sync_worker.domain.entitlements import ExpectedRevision
from sync_worker.domain.work import POLL
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
    """Mark what was published since the last poll, a page after the other. Return how many documents it were.

    The first poll only notes where to begin: what is older is the reconcile's. The cursor moves after the marks are
    durable, so that a poll that is killed is made up for by the next.
    """
    before = _rfc3339(utc(clock) - timedelta(seconds=timings.poll_grace))
    known = await queue.recall(CURSOR)
    if known is None:
        await queue.remember(CURSOR, json.dumps([before, ""]))
        return 0
    since, after = json.loads(known[0])
    marked = 0
    while rows := await source.changed(since, after, before):
        await queue.enqueue([_mark(row) for row in rows])
        last = str(rows[-1].get("_updatedAt")), str(rows[-1]["_id"])
        if not (since, after) < last < (before, ""):
            # A cursor that is no moment of this span would never find anything again.
            raise UnreadableAnswer("a page of changes did not go on from the one before")
        since, after = last
        await queue.remember(CURSOR, json.dumps([since, after]))
        marked += len(rows)
    return marked


def _mark(row: Mapping[str, Any]) -> WorkItem:
    document = str(row["_id"])
    expected = ExpectedRevision(document, str(row.get("_rev") or ""), str(row.get("_updatedAt") or ""))
    if row.get("_type") != "entitlement":
        return WorkItem(FANOUT + document, FANOUT_LANE, None, expected, POLL + document)
    try:
        subject = SubjectFields.model_validate(row).subject()
    except (ValidationError, InvalidSubject):
        subject = None
    key = FANOUT + document if subject is None or subject.is_address else str(subject)
    return WorkItem(key, LANE, None, expected, POLL + document)


def _rfc3339(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")

"""The checks of /readyz: whether incoming work will be done.

They read only the database, so that every process answers the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sync_worker.errors import DatabaseUnavailable
from sync_worker.storage.database import patience
from sync_worker.storage.reconcile_runs import GOOD
from sync_worker.storage.state import STOPPED

if TYPE_CHECKING:
    from sync_worker.domain.timings import Timings
    from sync_worker.storage.queue import WorkQueue


async def readiness(queue: WorkQueue, timings: Timings) -> dict[str, dict[str, object]]:
    """Return each check by name: whether it passes, and the age in seconds of what it looked at."""
    try:
        async with patience(timings.database_patience):
            await queue.check_writable()
            await queue.next_due()  # the work table may be locked while the others are not
            beat = await queue.age("heartbeat")
            stopped = await stopped_by(queue, timings)
            reconciled = await queue.age(GOOD)
    except DatabaseUnavailable as error:
        return {"database": {"ok": False, "reason": error.code}}
    worker = _within(beat, timings.worker_gone_after)
    if stopped:
        worker |= {"ok": False, "reason": stopped}
    return {
        "database": {"ok": True},
        "worker": worker,
        "reconcile": _within(reconciled, timings.reconcile_stale_after),
    }


async def stopped_by(queue: WorkQueue, timings: Timings) -> str:
    """Return the code of what keeps a worker from working; empty if nothing does. Raises DatabaseUnavailable."""
    stopped, age = await queue.recall(STOPPED), await queue.age(STOPPED)
    return stopped[0] if stopped is not None and (age or 0.0) < 3 * timings.credentials_probe else ""


def _within(age: float | None, most: float) -> dict[str, object]:
    return {"ok": age is not None and age < most, "age": None if age is None else round(age, 1)}

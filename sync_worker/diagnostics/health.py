"""Whether work that comes in will be done: the checks of /readyz.

Why it exists: an orchestrator and an alert act on these; they are told from the database alone, so that every process
says the same. What operators see of it is `status`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sync_worker.errors import DatabaseUnavailable
from sync_worker.storage.reconcile_runs import GOOD

if TYPE_CHECKING:
    from sync_worker.domain.timings import Timings
    from sync_worker.storage.queue import WorkQueue


async def readiness(queue: WorkQueue, timings: Timings) -> dict[str, dict[str, object]]:
    """Return each check of /readyz: whether it is good, and the age in seconds of what it looked at."""
    try:
        await queue.remember("readyz", "written")
        await queue.next_due()  # the table of the work itself may be locked alone
        beat = await queue.age("heartbeat")
        reconciled = await queue.age(GOOD)
        if reconciled is None:
            reconciled = await queue.age("installed")
    except DatabaseUnavailable as error:
        return {"database": {"ok": False, "reason": error.code}}
    return {
        "database": {"ok": True},
        "worker": _within(beat, timings.worker_gone_after),
        "reconcile": _within(reconciled, timings.reconcile_stale_after),
    }


def _within(age: float | None, most: float) -> dict[str, object]:
    return {"ok": age is not None and age < most, "age": None if age is None else round(age, 1)}

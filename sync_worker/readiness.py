"""Whether work that comes in will be done: the checks of /readyz.

Why it exists: an orchestrator and an alert act on these; they are told from the database alone, so that every process
says the same. What operators see of it is `status`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sync_worker.errors import DatabaseUnavailable
from sync_worker.runs import GOOD
from sync_worker.worker import HEARTBEAT

if TYPE_CHECKING:
    from sync_worker.workset import WorkSet

HEARTBEAT_STALE = 3 * HEARTBEAT
RECONCILE_STALE = 26 * 3600.0
"""Seconds since the last good reconcile; a fresh installation has as long for its first."""


async def readiness(workset: WorkSet) -> dict[str, dict[str, object]]:
    """Return each check of /readyz: whether it is good, and the age in seconds of what it looked at."""
    try:
        await workset.remember("readyz", "written")
        await workset.next_due()  # the table of the work itself may be locked alone
        beat = await workset.age("heartbeat")
        reconciled = await workset.age(GOOD)
        if reconciled is None:
            reconciled = await workset.age("installed")
    except DatabaseUnavailable as error:
        return {"database": {"ok": False, "reason": error.code}}
    return {
        "database": {"ok": True},
        "worker": _within(beat, HEARTBEAT_STALE),
        "reconcile": _within(reconciled, RECONCILE_STALE),
    }


def _within(age: float | None, most: float) -> dict[str, object]:
    return {"ok": age is not None and age < most, "age": None if age is None else round(age, 1)}

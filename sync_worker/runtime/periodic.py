"""Work by the clock: every so many seconds, or once a day.

A timer survives what it starts: an error is logged, and the next time comes. Missed times are not made up for.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from sync_worker.domain.clock import utc
from sync_worker.errors import SyncWorkerError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime

    from sync_worker.domain.clock import Clock

log = structlog.get_logger("timers")


async def every(seconds: float, name: str, work: Callable[[], Awaitable[None]], clock: Clock) -> None:
    """Do `work` at once and then every `seconds`; never with 0."""
    while seconds:
        await _attempt(name, work)
        await clock.sleep(seconds)


async def daily(at: str, name: str, work: Callable[[], Awaitable[None]], clock: Clock) -> None:
    """Do `work` every day at `at`, HH:MM in UTC; never with an empty text."""
    while at:
        await clock.sleep(until(at, utc(clock)))
        await _attempt(name, work)


def until(at: str, now: datetime) -> float:
    """Return the seconds from `now` until it is `at` next; a whole day when it is just now."""
    hour, minute = (int(part) for part in at.split(":"))
    moment = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
    return ((moment if moment > now else moment + timedelta(days=1)) - now).total_seconds()


async def _attempt(name: str, work: Callable[[], Awaitable[None]]) -> None:
    try:
        await work()
    except SyncWorkerError as error:
        log.error("timer_failed", timer=name, code=error.code, detail=error.detail, next_step=error.next_step())  # noqa: TRY400
    except Exception:
        log.exception("timer_broken", timer=name)

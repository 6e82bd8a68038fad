"""Runs scheduled tasks: every so many seconds, or once a day.

An error is logged, and the task runs again at its next time. Missed times are not caught up.
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
    """Run `work` now and then every `seconds`; 0 means never."""
    while seconds:
        await attempt(name, work)
        await clock.sleep(seconds)


async def daily(at: str, name: str, work: Callable[[], Awaitable[None]], clock: Clock) -> None:
    """Run `work` every day at `at`, HH:MM in UTC; an empty string means never."""
    while at:
        await clock.sleep(until(at, utc(clock)))
        await attempt(name, work)


def until(at: str, now: datetime) -> float:
    """Return the seconds from `now` to the next `at`; a whole day if that is now."""
    hour, minute = (int(part) for part in at.split(":"))
    moment = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
    return ((moment if moment > now else moment + timedelta(days=1)) - now).total_seconds()


async def attempt(name: str, work: Callable[[], Awaitable[None]]) -> None:
    """Run `work`; log what it raises."""
    try:
        await work()
    except SyncWorkerError as error:
        log.error("timer_failed", timer=name, code=error.code, detail=error.detail, next_step=error.next_step())  # noqa: TRY400
    except Exception:
        log.exception("timer_broken", timer=name)

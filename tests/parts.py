"""The real parts in this process, put together as `app` does, for tests that look inside or steer the clock."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sync_worker.cli.processes import settings_for
from sync_worker.runtime.service import running_worker
from sync_worker.runtime.wiring import Runtime, Services, Store, open_services, open_store
from sync_worker.settings import Settings
from sync_worker.triggers.poll import Poll
from tests.clock import CLOCK, TIMINGS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sync_worker.domain.clock import Clock
    from sync_worker.domain.timings import Timings
    from sync_worker.sandbox.server import Sandbox

RUNTIME = Runtime(CLOCK, TIMINGS)


@dataclass(frozen=True)
class Parts:
    """One process's parts."""

    settings: Settings
    store: Store
    services: Services


def settings_of(box: Sandbox, database_url: str, **given: Any) -> Settings:
    """Return the settings that point at the sandbox, without polls and nightly runs unless given."""
    environment = {name.lower(): value for name, value in settings_for(box, database_url).items()}
    return Settings(_env_file=None, **{"clerk_budget": 100_000, "poll_seconds": 0, **environment, **given})


def poll_of(parts: Parts, clock: Clock, full_check: float = 36_000.0) -> Poll:
    """Return the poll of an installation, by another clock. All ids are compared every `full_check` seconds."""
    return Poll(
        parts.services.source,
        parts.store.queue,
        parts.store.access,
        parts.settings.layout.fields,
        clock,
        TIMINGS,
        full_check,
    )


@asynccontextmanager
async def opened(
    box: Sandbox, database_url: str, *, clock: Clock = CLOCK, timings: Timings = TIMINGS, **given: Any
) -> AsyncIterator[Parts]:
    """Open store and services; no worker runs."""
    settings = settings_of(box, database_url, **given)
    async with open_store(settings, Runtime(clock, timings)) as store, open_services(settings, store) as services:
        yield Parts(settings, store, services)


@asynccontextmanager
async def working(box: Sandbox, database_url: str, **given: Any) -> AsyncIterator[Parts]:
    """Open store and services, and run a worker; `given` is what `opened` takes."""
    async with opened(box, database_url, **given) as parts, running_worker(parts.settings, parts.store):
        yield parts

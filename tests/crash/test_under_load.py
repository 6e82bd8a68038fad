"""Killed at random moments while editors publish: nobody is wrong in the end, and nothing that was accepted is lost.

`CRASH_WEBHOOKS=10000 CRASH_KILLS=100 CRASH_LEASE=30 pytest -s -m full tests/crash/test_under_load.py` is the run that
docs/reliability.md describes; `-s` shows its figures. `CRASH_SEED` is another sequence of edits and kills.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

import pytest

from tests.crash.load import Account, Editors
from tests.oracle import GUARD, wrong
from tests.trouble import Trouble

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from sync_worker.runtime.wiring import Store
    from tests.crash.site import Site
    from tests.nursery import Child

pytestmark = pytest.mark.anyio
WEBHOOKS = int(os.environ.get("CRASH_WEBHOOKS", "400"))
KILLS = int(os.environ.get("CRASH_KILLS", "8"))
LEASE = float(os.environ.get("CRASH_LEASE", "6"))
"""Its deadline is to be longer than the waits for an index that lags, which edits within one second bring about."""
SEED = int(os.environ.get("CRASH_SEED", "5"))
REPLAY = (
    "CRASH_SEED={} CRASH_WEBHOOKS={} CRASH_KILLS={} CRASH_LEASE={:g} pytest -s -k many tests/crash/test_under_load.py"
)
MANY = pytest.mark.full("hundreds of webhooks, on both databases")


@dataclass
class Immortal:
    """A process that is started again whenever it was killed."""

    start: Callable[[], AbstractAsyncContextManager[Child]]
    current: Child | None = None
    starts: int = 0
    _life: asyncio.Task[None] = field(init=False)

    def __post_init__(self) -> None:
        self._life = asyncio.create_task(self._live())

    async def _live(self) -> None:
        while True:
            async with self.start() as self.current:
                self.starts += 1
                await self.current.wait()

    def kill(self) -> None:
        if self.current is not None:
            self.current.kill()

    async def end(self) -> None:
        self._life.cancel()
        with suppress(asyncio.CancelledError):
            await self._life


@pytest.mark.parametrize(
    ("database_url", "webhooks", "kills", "lease"),
    [
        pytest.param("sqlite_url", 30, 2, 2.0, id="few"),
        pytest.param("sqlite_url", WEBHOOKS, KILLS, LEASE, id="many-sqlite", marks=MANY),
        pytest.param("postgres_url", WEBHOOKS, KILLS, LEASE, id="many-postgres", marks=MANY),
    ],
    indirect=["database_url"],
)
async def test_killed_at_random_nobody_is_wrong_and_nothing_is_lost(
    site: Site, webhooks: int, kills: int, lease: float
) -> None:
    box, random, started = site.box, Random(SEED), time.monotonic()
    replay = REPLAY.format(SEED, webhooks, kills, lease)
    editors, account = await Editors.begin(box, max(60, webhooks // 20)), Account(box)
    editors.random = Random(SEED + 6)
    box.clerk.faults.latency = box.lake.faults.latency = 0.02
    trouble = Trouble(lease=lease)
    async with site.store() as store:  # the tables are there before the processes race for them
        box.lake.webhooks.deliveries.faults.at_once = 4
        site.install_hook()
        receiver = Immortal(lambda: site.receiver(trouble=trouble))
        workers = [Immortal(lambda: site.worker(trouble)) for _ in range(2)]
        moments = Counter(random.randrange(webhooks // 20, webhooks) for _ in range(kills))
        try:
            for number in range(webhooks):
                await editors.edit()
                for _ in range(moments[number]):
                    await edit_until_something_is_in_flight(editors, store)
                    await asyncio.sleep(random.uniform(0, 0.02))
                    random.choice([receiver, *workers, *workers]).kill()
            await box.lake.hooks_idle()
            await site.until_in_sync(lease + GUARD)
            lost = await account.lost(store)
        except (AssertionError, TimeoutError) as error:
            error.add_note(f"replay: {replay}")
            raise
        finally:
            for immortal in (receiver, *workers):
                await immortal.end()
    starts = receiver.starts + sum(worker.starts for worker in workers)
    seconds = time.monotonic() - started
    print(
        f"\n{editors.made} webhooks, {kills} kills, {starts} starts, answers {dict(account.by_status())}, "
        f"{seconds:.0f} s, wrong {len(wrong(box))}, lost {lost}"
    )
    assert (len(wrong(box)), lost) == (0, 0), replay
    assert account.accepted >= editors.made, replay


async def edit_until_something_is_in_flight(editors: Editors, store: Store) -> None:
    """Return when a subject is claimed: a kill proves little where nobody works."""
    async with asyncio.timeout(GUARD):
        while not any(lane.running for lane in (await store.queue.depth()).lanes):
            await editors.edit()
            await asyncio.sleep(0.05)

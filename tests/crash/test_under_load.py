"""Killed at random moments while editors publish: nobody is wrong in the end, and nothing that was accepted is lost.

`CRASH_WEBHOOKS=10000 CRASH_KILLS=100 CRASH_LEASE=30` is the run that the README tells of; `-s` shows its figures.
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
from tests.oracle import wrong
from tests.trouble import Trouble

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from tests.crash.site import Site
    from tests.nursery import Child

pytestmark = pytest.mark.anyio
WEBHOOKS = int(os.environ.get("CRASH_WEBHOOKS", "400"))
KILLS = int(os.environ.get("CRASH_KILLS", "8"))
LEASE = float(os.environ.get("CRASH_LEASE", "6"))
"""Its deadline is to be longer than the waits for an index that lags, which edits within one second bring about."""
USERS = max(60, WEBHOOKS // 20)


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


async def test_killed_at_random_nobody_is_wrong_and_nothing_is_lost(site: Site) -> None:
    box, random, started = site.box, Random(5), time.monotonic()
    editors, account = await Editors.begin(box, USERS), Account(box)
    box.clerk.faults.latency = box.lake.faults.latency = 0.02
    trouble = Trouble(lease=LEASE)
    async with site.store():  # the tables are there before the processes race for them
        pass
    box.lake.webhooks.deliveries.mischief.at_once = 4
    site.install_hook()
    receiver = Immortal(lambda: site.receiver(trouble=trouble))
    workers = [Immortal(lambda: site.worker(trouble)) for _ in range(2)]
    moments = Counter(random.randrange(WEBHOOKS // 20, WEBHOOKS) for _ in range(KILLS))
    cut_short = 0
    try:
        for number in range(WEBHOOKS):
            await editors.edit()
            for _ in range(moments[number]):
                await asyncio.sleep(random.uniform(0, 0.3))
                random.choice([receiver, *workers, *workers]).kill()
                cut_short += await in_flight(site)
        await box.lake.hooks_idle()
        await site.comes_right(LEASE + 120)
        async with site.store() as store:
            lost = await account.lost(store)
    finally:
        for immortal in (receiver, *workers):
            await immortal.end()
    starts = receiver.starts + sum(worker.starts for worker in workers)
    seconds = time.monotonic() - started
    print(
        f"\n{WEBHOOKS} webhooks, {KILLS} kills, {starts} starts, answers {dict(account.by_status())}, "
        f"subjects in flight at kills {cut_short}, {seconds:.0f} s, wrong {len(wrong(box))}, lost {lost}"
    )
    assert (len(wrong(box)), lost) == (0, 0)
    assert account.accepted >= WEBHOOKS
    assert cut_short > 0, "nothing was in flight when processes were killed, so this proves nothing"


async def in_flight(site: Site) -> int:
    async with site.store() as store:
        return sum(lane.running for lane in (await store.workset.depth()).lanes)

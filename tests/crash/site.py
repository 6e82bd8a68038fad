"""One installation: both stand-ins, a database, and processes that are started, killed and started again."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from sync_worker.cli.processes import free_port, install_hook, settings_for
from sync_worker.runtime.wiring import open_store
from tests.nursery import NOTHING_WRONG, end_of, process, until_up
from tests.oracle import GUARD, until, wrong
from tests.parts import RUNTIME, settings_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from sync_worker.runtime.wiring import Store
    from sync_worker.sandbox.server import Sandbox
    from sync_worker.sandbox.webhooks import Hook
    from sync_worker.storage.database import Row, Transaction
    from tests.nursery import Child
    from tests.trouble import Trouble

UNFINISHED = "SELECT key FROM work WHERE generation <> completed_generation OR lease_token IS NOT NULL OR dead = 1"
IN_DOUBT = "SELECT subject FROM ledger WHERE state IN ('intended', 'unknown')"


@dataclass
class Site:
    """`environment` is what the next process gets. The receiver keeps its port, so the webhook finds the next one."""

    box: Sandbox
    database_url: str
    folder: Path
    environment: dict[str, str] = field(init=False)
    log: Path = field(init=False)
    port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        quiet = {"CLERK_BUDGET": "100000", "POLL_SECONDS": "0"}
        self.log = self.folder / "log"
        self.environment = {**settings_for(self.box, self.database_url), **quiet}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def install_hook(self, *, repeats: int = 1000, every: float = 0.2) -> Hook:
        """Configure the webhook; Sanity repeats what was not answered so many times, so many seconds apart."""
        deliveries = self.box.lake.webhooks.deliveries
        deliveries.policy = replace(deliveries.policy, retry_delays=(every,) * repeats)
        return install_hook(self.box, self.url)

    @asynccontextmanager
    async def worker(self, trouble: Trouble = NOTHING_WRONG) -> AsyncIterator[Child]:
        async with process("worker", self.environment, self.log, trouble=trouble) as running:
            yield running

    @asynccontextmanager
    async def receiver(self, verb: str = "web", trouble: Trouble = NOTHING_WRONG) -> AsyncIterator[Child]:
        """Run `web` or `serve` on the port of the site; it answers when this yields."""
        arguments = ("--port", str(self.port))
        async with process(verb, self.environment, self.log, *arguments, trouble=trouble) as running:
            await until_up(self.url, running, self.log)
            yield running

    async def ends(self, verb: str, trouble: Trouble = NOTHING_WRONG) -> int:
        """Run a verb to its end, and return its exit code."""
        async with process(verb, self.environment, self.log, trouble=trouble) as running:
            return await asyncio.wait_for(running.wait(), GUARD)

    @asynccontextmanager
    async def store(self) -> AsyncIterator[Store]:
        """Open the database in this process, to look into it or to enqueue."""
        async with open_store(settings_of(self.box, self.database_url), RUNTIME) as store:
            yield store

    async def dies(self, trouble: Trouble) -> None:
        """Run a worker until the trouble kills it."""
        async with self.worker(trouble) as running:
            assert await asyncio.wait_for(running.wait(), GUARD) == -signal.SIGKILL, self.reported()

    async def until_in_sync(self, seconds: float = GUARD) -> None:
        """Wait until all is right; no two writes of a subject were under way at the same time."""
        await self.comes_to_rest(seconds)
        assert not self.box.clerk.requests.overlaps(), self.reported()

    async def comes_to_rest(self, seconds: float = GUARD) -> None:
        """Wait until everybody has the access that is published; then nothing is left to do, or in doubt."""
        await until(lambda: not wrong(self.box), seconds)
        async with self.store() as store:
            deadline = time.monotonic() + seconds
            for left in (UNFINISHED, IN_DOUBT):
                while unfinished := await store.database.read(partial(_rows, left)):
                    assert time.monotonic() < deadline, (unfinished, self.reported())
                    await asyncio.sleep(0.05)
        assert not wrong(self.box)

    def is_logged(self, event: str) -> bool:
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return any(line["event"] == event for line in lines)

    def reported(self) -> str:
        """Return the end of the log, to explain a failure."""
        return end_of(self.log)


def _rows(sql: str, tx: Transaction) -> list[Row]:
    return tx.execute(sql)

"""One installation: both stand-ins, a database, and processes that are started, killed and started again."""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import httpx

from sync_worker.app import open_store
from sync_worker.cli.local import SYNC_WORKER, free_port, install_hook, process, settings_for
from tests.oracle import until, wrong
from tests.parts import settings_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from sync_worker.app import Store
    from sync_worker.sandbox.server import Sandbox
    from sync_worker.sandbox.webhooks import Hook
    from tests.crash.launcher import Trouble

UP_SECONDS = 20.0
UNFINISHED = "SELECT key FROM work WHERE wanted <> done OR owner IS NOT NULL OR dead = 1"
IN_DOUBT = "SELECT subject FROM ledger WHERE state IN ('intended', 'unknown')"


@dataclass
class Site:
    """`environment` is what the next process gets. The receiver keeps its port, so the webhook finds the next one."""

    box: Sandbox
    database_url: str
    folder: Path
    environment: dict[str, str] = field(init=False)
    port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        quiet = {"CLERK_BUDGET": "100000", "POLL_SECONDS": "0"}
        self.environment = {**settings_for(self.box, self.database_url), **quiet}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def install_hook(self, *, repeats: int = 1000, every: float = 0.2) -> Hook:
        """Configure the webhook; Sanity repeats what was not answered so many times, so many seconds apart."""
        deliveries = self.box.lake.webhooks.deliveries
        deliveries.policy = replace(deliveries.policy, retry_delays=(every,) * repeats)
        return install_hook(self.box, self.url)

    @asynccontextmanager
    async def worker(self, trouble: Trouble | None = None) -> AsyncIterator[asyncio.subprocess.Process]:
        program = SYNC_WORKER if trouble is None else trouble.command()
        async with process("worker", self.environment, self.log, program=program) as running:
            yield running

    @asynccontextmanager
    async def receiver(
        self, verb: str = "web", trouble: Trouble | None = None
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        """Run `web` or `serve` on the port of the site; it answers when this yields."""
        program = SYNC_WORKER if trouble is None else trouble.command()
        arguments = ("--port", str(self.port))
        async with process(verb, self.environment, self.log, *arguments, program=program) as running:
            await self._until_up(running)
            yield running

    @asynccontextmanager
    async def store(self) -> AsyncIterator[Store]:
        """Open the database in this process, to look into it or to mark."""
        async with open_store(settings_of(self.box, self.database_url)) as store:
            yield store

    async def dies(self, trouble: Trouble) -> None:
        """Run a worker until the trouble kills it."""
        async with self.worker(trouble) as running:
            assert await asyncio.wait_for(running.wait(), 20) == -signal.SIGKILL, self.log.read_text()

    async def comes_right(self, seconds: float = 30.0) -> None:
        """Wait until everybody has the access that is published; then nothing is left to do, or in doubt."""
        await until(lambda: not wrong(self.box), seconds)
        async with self.store() as store:
            deadline = time.monotonic() + seconds
            while await store.workset.next_due() is not None:
                assert time.monotonic() < deadline, self.log.read_text()[-5000:]
                await asyncio.sleep(0.05)
            assert await store.database.read(lambda tx: tx.execute(UNFINISHED)) == []
            assert await store.database.read(lambda tx: tx.execute(IN_DOUBT)) == []
        assert not wrong(self.box)
        assert not self.box.clerk.requests.overlaps()

    async def _until_up(self, running: asyncio.subprocess.Process) -> None:
        deadline = time.monotonic() + UP_SECONDS
        async with httpx.AsyncClient() as client:
            while running.returncode is None:
                assert time.monotonic() < deadline, self.log.read_text()
                try:
                    if (await client.get(f"{self.url}/healthz")).is_success:
                        return
                except httpx.TransportError:
                    await asyncio.sleep(0.02)
        raise AssertionError(self.log.read_text())

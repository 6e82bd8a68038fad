"""The stage for a measurement: the sandbox, and a process under measurement with what it costs."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from sync_worker.cli.processes import free_port, install_hook, settings_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from sync_worker.sandbox.server import Sandbox

NAIVE = (str(Path(__file__).with_name("naive.py")),)
SERVE = ("-m", "sync_worker", "serve")
WEB = ("-m", "sync_worker", "web")
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Program:
    """A process under measurement."""

    url: str
    pid: int

    @property
    def cpu(self) -> float:
        """CPU seconds so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    @property
    def peak_mb(self) -> float:
        """The most memory that it had at once, in MB."""
        return self._memory("VmHWM")

    @property
    def memory_mb(self) -> float:
        """The memory that it has now, in MB."""
        return self._memory("VmRSS")

    def _memory(self, name: str) -> float:
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith(name)).split()[1]) / 1024


@asynccontextmanager
async def running(box: Sandbox, command: tuple[str, ...] = SERVE, **settings: str) -> AsyncIterator[Program]:
    """Run a program that listens, on an empty SQLite file, with the sandbox's webhook pointed at it unless it
    listens to Sanity itself.

    `settings` are environment variables in lower case.
    """
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        environment = {
            "PATH": os.environ["PATH"],
            "LOG_FORMAT": "json",
            **settings_for(box, f"sqlite:///{folder}/bench.db"),
            "CLERK_BUDGET": "100000",
            "PORT": str(port),
            **{name.upper(): value for name, value in settings.items()},
        }
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, *command), env=environment, cwd=folder, stderr=asyncio.subprocess.DEVNULL
        )
        try:
            url = f"http://127.0.0.1:{port}"
            await _until_up(url)
            if environment.get("EVENTS") != "listen":
                install_hook(box, url)
            yield Program(url, process.pid)
        finally:
            process.terminate()
            await process.wait()


async def until(condition: Callable[[], bool], patience: float = 600.0, pause: float = 0.0005) -> None:
    """Wait until `condition` holds. Raises TimeoutError."""
    async with asyncio.timeout(patience):
        while not condition():
            await asyncio.sleep(pause)


def calls(box: Sandbox) -> int:
    """Return how many calls both services have answered."""
    return int(box.clerk.requests.count() + box.lake.requests.count())


def reference(document: str) -> dict[str, Any]:
    return {"_type": "reference", "_ref": document, "_key": document}


async def _until_up(url: str) -> None:
    deadline = time.monotonic() + 30
    async with httpx.AsyncClient() as client:
        while time.monotonic() < deadline:
            try:
                if (await client.get(f"{url}/healthz")).is_success:
                    return
            except httpx.TransportError:
                await asyncio.sleep(0.01)
    raise TimeoutError(url)

"""Small: what an idle process costs, and how long starting takes."""

from __future__ import annotations

import asyncio
import statistics
import sys
import time

from bench.figures import Figure
from bench.stage import SERVE, running
from sync_worker.sandbox.server import Sandbox

IDLE_SECONDS = 20


async def idle() -> list[Figure]:
    """A process that has worked, and has nothing to do now."""
    async with Sandbox() as box:
        started = time.perf_counter()
        async with running(box, SERVE) as program:
            ready = time.perf_counter() - started
            box.clerk.add_user("user_1")
            await box.lake.mutate(
                [{"create": {"_id": "e1", "_type": "entitlement", "clerkUserId": "user_1", "plan": "pro"}}]
            )
            await asyncio.sleep(5)
            before = program.cpu
            await asyncio.sleep(IDLE_SECONDS)
            used = (program.cpu - before) / IDLE_SECONDS * 100
            memory = program.memory_mb
    return [
        Figure("idle process: memory", memory, "MB", 160),
        Figure("… CPU", used, "%", 1),
        Figure("start until /healthz answers", ready, "s"),
    ]


async def command(*arguments: str) -> float:
    """Return the median seconds of five runs of a Python command."""
    taken = []
    for _ in range(5):
        started = time.perf_counter()
        process = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
        )
        await process.wait()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


async def measure() -> list[Figure]:
    """Measure all."""
    return [
        *await idle(),
        Figure("sync-worker --help", await command("-m", "sync_worker", "--help"), "s", 0.3),
        Figure("import sync_worker.web.app", await command("-c", "import sync_worker.web.app"), "s"),
        Figure("python -c pass, for comparison", await command("-c", "pass"), "s"),
    ]

"""Small: what an idle process costs, and how long starting takes."""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from bench.figures import Figure
from bench.stage import SERVE, running
from sync_worker.cli.processes import settings_for
from sync_worker.sandbox.server import Sandbox

if TYPE_CHECKING:
    from collections.abc import Mapping

IDLE_SECONDS = 20
LINES, COURSES = 10_000, 200


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


async def imports() -> list[Figure]:
    """A spreadsheet of people becomes entitlements."""
    slugs = [f"course-{number}" for number in range(COURSES)]
    people = (f"p{n}@example.org,pro,{slugs[n % COURSES]};{slugs[-1]},2099-01-01" for n in range(LINES))
    async with Sandbox() as box:
        await box.lake.mutate(
            [{"create": {"_id": slug, "_type": "course", "slug": {"current": slug}}} for slug in slugs]
        )
        with TemporaryDirectory() as folder:
            file = Path(folder) / "people.csv"
            file.write_text("\n".join(["userEmail,plan,courses,endsAt", *people]))
            environment = {**os.environ, **settings_for(box, f"sqlite:///{folder}/unused.db")}
            taken = await command("-m", "sync_worker", "import", str(file), environment=environment)
    return [Figure(f"import of {LINES:,} lines", taken, "s", 5)]


async def command(*arguments: str, environment: Mapping[str, str] | None = None) -> float:
    """Return the median seconds of five runs of a Python command."""
    taken = []
    for _ in range(5):
        started = time.perf_counter()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *arguments,
            env=environment,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        await process.wait()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


async def measure() -> list[Figure]:
    """Measure all."""
    return [
        *await idle(),
        *await imports(),
        Figure("sync-worker --help", await command("-m", "sync_worker", "--help"), "s", 0.3),
        Figure("import sync_worker.web.app", await command("-c", "import sync_worker.web.app"), "s"),
        Figure("python -c pass, for comparison", await command("-c", "pass"), "s"),
    ]

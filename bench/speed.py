"""The machine: how fast it is in this hour, to compare figures of different hours and machines."""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time
from tempfile import TemporaryFile

from bench.figures import Figure

ROUNDS, FLUSHES = 10_000_000, 50
LOOP = f"x = 0\nfor i in range({ROUNDS}): x += i * i % 7"


async def measure() -> list[Figure]:
    """Measure a fixed loop on all cores at once, and a flush of the disk."""
    cores = os.cpu_count() or 1
    return [
        Figure(f"the machine: a loop of {ROUNDS:,} rounds, on {cores} cores at once", await _loops(cores), "s"),
        Figure("… 4 KB flushed to the disk, p50", _flush() * 1000, "ms"),
    ]


async def _loops(count: int) -> float:
    """Return the seconds until that many processes have each run the loop."""
    started = time.perf_counter()
    running = [await asyncio.create_subprocess_exec(sys.executable, "-c", LOOP) for _ in range(count)]
    for process in running:
        await process.wait()
    return time.perf_counter() - started


def _flush() -> float:
    """Return the median seconds that a small write and its flush take."""
    taken = []
    with TemporaryFile() as file:
        for _ in range(FLUSHES):
            started = time.perf_counter()
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
            taken.append(time.perf_counter() - started)
    return statistics.median(taken)

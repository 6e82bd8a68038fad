"""Publish → Clerk where no webhook reports it: by the stream that `EVENTS=listen` keeps open."""

from __future__ import annotations

from bench.figures import Figure
from bench.publish import ONE_BY_ONE, one_by_one
from bench.stage import running
from sync_worker.sandbox.server import Sandbox


async def measure() -> list[Figure]:
    """Measure publishes, one after the other."""
    async with Sandbox() as box, running(box, events="listen", sanity_webhook_secret="") as program:
        await box.lake.listeners.wait_connected(1)
        await one_by_one(box, 5)
        cpu = program.cpu
        taken = await one_by_one(box, ONE_BY_ONE)
        cpu = program.cpu - cpu
        return [
            Figure(
                f"publish → Clerk by listening, p50 of {ONE_BY_ONE}", taken, "ms", 50, cpu=cpu, peak_mb=program.peak_mb
            )
        ]

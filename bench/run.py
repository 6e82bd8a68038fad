"""`make bench`: what the spine does on this machine, on the sandbox: accepted webhooks a second, publish → Clerk.

Each figure is the median of several runs, printed beside its goal. Nothing here asserts; the tests count calls.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path

import httpx

from sync_worker.cli.local import SECRET, install_hook, listening, settings_for
from sync_worker.cli.output import print_table
from sync_worker.sandbox.server import Sandbox
from sync_worker.signatures import SANITY_HEADER, sign_sanity

RUNS = 3


async def accept(url: str, project: str, count: int = 3000, clients: int = 50) -> float:
    """Return signed, durable accepts per second with `clients` at once."""

    def request(number: int) -> tuple[bytes, dict[str, str]]:
        body = json.dumps(
            {
                "operation": "update",
                "projectId": project,
                "dataset": "production",
                "id": f"ent-{number}",
                "type": "entitlement",
                "rev": f"r{number}",
                "updatedAt": "2026-05-01T12:00:00Z",
                "before": None,
                "after": {"clerkUserId": f"user_{number % 1000}"},
            }
        ).encode()
        return body, {SANITY_HEADER: sign_sanity(body, SECRET, int(time.time() * 1000))}

    prepared = iter([request(number) for number in range(count)])

    async def client(session: httpx.AsyncClient) -> None:
        for body, headers in prepared:
            response = await session.post(f"{url}/webhooks/sanity", content=body, headers=headers)
            response.raise_for_status()

    async with httpx.AsyncClient(limits=httpx.Limits(max_connections=clients)) as session:
        started = time.perf_counter()
        await asyncio.gather(*(client(session) for _ in range(clients)))
        return count / (time.perf_counter() - started)


async def publish(box: Sandbox, count: int = 60) -> list[float]:
    """Return the milliseconds from each of `count` publishes until Clerk holds them, one after the other."""
    user = box.clerk.add_user()
    await box.lake.mutate([{"create": {"_id": f"ent-{user}", "_type": "entitlement", "clerkUserId": user}}])
    taken = []
    for number in range(count):
        started = time.perf_counter()
        await box.lake.mutate([{"patch": {"id": f"ent-{user}", "set": {"plan": f"plan-{number}"}}}])
        while box.clerk.users[user]["public_metadata"].get("plan") != f"plan-{number}":  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.0005)
        taken.append((time.perf_counter() - started) * 1000)
        await asyncio.sleep(2.1 if number % 4 == 3 else 0.01)  # stay within Clerk's ten writes per subject and 10 s
    return taken


async def main() -> None:
    """Run every part and print one table."""
    accepts, latencies = [], []
    for _ in range(RUNS):
        async with Sandbox() as box:
            with tempfile.TemporaryDirectory() as folder:
                settings = settings_for(box, f"sqlite:///{folder}/bench.db")
                async with listening("web", settings, Path(folder) / "log") as url:
                    accepts.append(await accept(url, box.lake.project_id))
            with tempfile.TemporaryDirectory() as folder:
                settings = settings_for(box, f"sqlite:///{folder}/bench.db")
                async with listening("serve", settings, Path(folder) / "log") as url:
                    install_hook(box, url)
                    latencies.append(statistics.median(await publish(box, 20)))
    print_table(
        ("figure", "median", "goal"),
        [
            (
                "accepts per second, one process, SQLite (client on the same machine)",
                f"{statistics.median(accepts):.0f}",
                "3000",
            ),
            ("publish → Clerk, p50, ms", f"{statistics.median(latencies):.1f}", "20"),
        ],
    )


if __name__ == "__main__":
    asyncio.run(main())

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

from sync_worker.cli.local import SECRET, install_hook, listening, settings_for
from sync_worker.cli.output import print_table
from sync_worker.sandbox.server import Sandbox
from sync_worker.signatures import SANITY_HEADER, sign_sanity

RUNS = 3


def signed_requests(project: str, count: int) -> list[bytes]:
    """Return whole HTTP requests, signed as Sanity signs them."""
    now = int(time.time() * 1000)
    requests = []
    for number in range(count):
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
        head = (
            "POST /webhooks/sanity HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n{SANITY_HEADER}: {sign_sanity(body, SECRET, now)}\r\n\r\n"
        )
        requests.append(head.encode() + body)
    return requests


async def accept(url: str, project: str, count: int = 10_000, clients: int = 50) -> float:
    """Return signed, durable accepts per second with `clients` connections at once.

    The client writes bytes to sockets: an HTTP library would need more of the two cores than the server.
    """
    port = int(url.rpartition(":")[2])
    prepared = iter(signed_requests(project, count))

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for request in prepared:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 202"):
                raise RuntimeError(head.decode())
            await reader.readexactly(len(b'{"ok":true}'))
        writer.close()

    started = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return count / (time.perf_counter() - started)


async def publish(box: Sandbox, count: int = 100) -> list[float]:
    """Return the milliseconds from each of `count` publishes until Clerk holds them, one after the other."""
    taken = []
    for _ in range(count):
        user = box.clerk.add_user()
        row = {"_id": f"ent-{user}", "_type": "entitlement", "clerkUserId": user, "plan": "pro"}
        started = time.perf_counter()
        await box.lake.mutate([{"create": row}])
        while "plan" not in box.clerk.users[user]["public_metadata"]:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.0005)
        taken.append((time.perf_counter() - started) * 1000)
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
                settings = {**settings_for(box, f"sqlite:///{folder}/bench.db"), "CLERK_BUDGET": "100000"}
                async with listening("serve", settings, Path(folder) / "log") as url:
                    install_hook(box, url)
                    latencies.append(statistics.median(await publish(box)))
    print_table(
        ("figure", "median", "goal"),
        [
            (
                "accepts per second, one process, SQLite",
                f"{statistics.median(accepts):.0f}",
                "3000",
            ),
            ("publish → Clerk, p50, ms", f"{statistics.median(latencies):.1f}", "20"),
        ],
    )


if __name__ == "__main__":
    asyncio.run(main())

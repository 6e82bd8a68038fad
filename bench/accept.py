"""Accept: signed deliveries, each enqueued durably before the response."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

from bench.figures import Figure, percentile
from bench.stage import WEB, running
from sync_worker.cli.processes import SECRET
from sync_worker.sandbox.server import Sandbox
from sync_worker.webhooks.signatures import SANITY_HEADER, sign_sanity
from tests.postgres_server import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bench.stage import Program

COUNT, CLIENTS = 10_000, 50
STEADY_RATE, STEADY_SECONDS = 200, 10


def requests(project: str, count: int) -> Iterator[bytes]:
    """Yield whole HTTP requests, signed as Sanity signs them, for a thousand people."""
    for number in range(count):
        document = {"_id": f"ent-{number}", "_rev": f"r{number}", "_updatedAt": "2026-05-01T12:00:00Z"}
        yield delivery(project, {**document, "clerkUserId": f"user_{number % 1000}"})


def delivery(project: str, document: Mapping[str, Any]) -> bytes:
    """Return the HTTP request of a webhook about an entitlement."""
    reported = {
        "operation": "update",
        "projectId": project,
        "dataset": "production",
        "id": document["_id"],
        "type": "entitlement",
        "rev": document["_rev"],
        "updatedAt": document["_updatedAt"],
        "before": None,
        "after": {"clerkUserId": document["clerkUserId"]},
    }
    body = json.dumps(reported).encode()
    head = (
        "POST /webhooks/sanity HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nIdempotency-Key: {document['_id']}-{document['_rev']}\r\n"
        f"{SANITY_HEADER}: {sign_sanity(body, SECRET, int(time.time() * 1000))}\r\n\r\n"
    )
    return head.encode() + body


class Client:
    """One connection. It writes bytes: an HTTP library would need more of the two cores than the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def to(cls, program: Program) -> Client:
        return cls(*await asyncio.open_connection("127.0.0.1", int(program.url.rpartition(":")[2])))

    async def post(self, request: bytes) -> None:
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 202"):
            raise RuntimeError(head.decode())
        await self._reader.readexactly(len(b'{"ok":true}'))

    def close(self) -> None:
        self._writer.close()


async def throughput(program: Program, project: str) -> float:
    """Return accepts per second with many connections at once."""
    return COUNT / await post_all(program, list(requests(project, COUNT)))


async def post_all(program: Program, prepared: Sequence[bytes]) -> float:
    """Send requests over many connections at once; return the seconds."""
    left = iter(prepared)

    async def client() -> None:
        connection = await Client.to(program)
        for request in left:
            await connection.post(request)
        connection.close()

    started = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return time.perf_counter() - started


async def steady(program: Program, project: str) -> list[float]:
    """Return the milliseconds of each answer at a steady rate, whatever the answers before took."""
    taken: list[float] = []
    idle = [await Client.to(program) for _ in range(20)]
    started = time.perf_counter()

    async def one(number: int, request: bytes) -> None:
        due = started + number / STEADY_RATE
        await asyncio.sleep(due - time.perf_counter())
        connection = idle.pop(0) if idle else await Client.to(program)
        await connection.post(request)
        taken.append((time.perf_counter() - due) * 1000)
        idle.append(connection)

    prepared = list(requests(project, STEADY_RATE * STEADY_SECONDS))
    await asyncio.gather(*(one(number, request) for number, request in enumerate(prepared)))
    for connection in idle:
        connection.close()
    return taken


async def measure() -> list[Figure]:
    """Measure on a SQLite file, and on PostgreSQL, whose server here does not wait for the disk."""
    figures = await measured("SQLite", 3000)
    server = PostgresServer()
    server.start()
    try:
        return [*figures, *await measured("PostgreSQL without fsync", database_url=server.url)]
    finally:
        server.remove()


async def measured(where: str, goal: float | None = None, **settings: str) -> list[Figure]:
    async with Sandbox() as box, running(box, WEB, **settings) as program:
        rate = await throughput(program, box.lake.project_id)
        cpu = program.cpu
        late = percentile(await steady(program, box.lake.project_id), 99)
        peak = program.peak_mb
    return [
        Figure(f"accepted, one process, {where}", rate, "/s", goal, more_is_better=True, cpu=cpu, peak_mb=peak),
        Figure(f"answered at 200/s, {where}, p99", late, "ms", 10),
    ]

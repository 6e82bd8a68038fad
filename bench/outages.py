"""Outages of PostgreSQL while webhooks arrive: a held lock, a slow disk, and a server that dies and comes back.

Each delivery is repeated until it is accepted, as Sanity repeats it. What counts is that none is lost, and for how long
the sender has to wait.
"""

from __future__ import annotations

import asyncio
import signal
import time
from typing import TYPE_CHECKING

import psycopg

from bench.accept import Client, requests
from bench.figures import Figure, percentile
from bench.stage import WEB, running
from sync_worker.sandbox.server import Sandbox
from tests.postgres_server import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from bench.stage import Program

RATE, SECONDS = 50, 12
TROUBLE_AFTER = 3.0
TROUBLE_LASTS = 4.0
REPEAT = 1.0
SLOW_DISK = ("-c", "fsync=on", "-c", "commit_delay=100000", "-c", "commit_siblings=0")
"""Each commit takes a tenth of a second longer."""


async def hold_lock(server: PostgresServer) -> None:
    """Lock the work queue against everybody for some seconds, as a careless migration would."""
    async with await psycopg.AsyncConnection.connect(server.url) as other:
        await other.execute("LOCK TABLE work IN ACCESS EXCLUSIVE MODE")
        await asyncio.sleep(TROUBLE_LASTS)


async def die_and_return(server: PostgresServer) -> None:
    """Stop the server without goodbye, and start it some seconds later, as a failover does."""
    await asyncio.to_thread(server.stop, signal.SIGQUIT)
    await asyncio.sleep(TROUBLE_LASTS)
    await asyncio.to_thread(server.start)


async def slow_down(server: PostgresServer) -> None:
    """Do nothing more: the server has been slow from its start."""


async def measured(name: str, trouble: Callable[[PostgresServer], Awaitable[None]], *options: str) -> list[Figure]:
    """Deliver webhooks at a steady rate, with this trouble in the middle."""
    server = PostgresServer()
    server.start(*options)
    try:
        async with Sandbox() as box, running(box, WEB, database_url=server.url) as program:
            prepared = list(requests(box.lake.project_id, RATE * SECONDS))
            begun = time.perf_counter()

            async def start_trouble() -> None:
                await asyncio.sleep(TROUBLE_AFTER)
                await trouble(server)

            async with asyncio.TaskGroup() as group:
                group.create_task(start_trouble())
                sent = [
                    group.create_task(_delivered(program, request, begun + number / RATE))
                    for number, request in enumerate(prepared)
                ]
            taken, refused = zip(*(one.result() for one in sent), strict=True)
            with psycopg.connect(server.url) as connection:
                row = connection.execute("SELECT COUNT(*) FROM work").fetchone()
        assert row is not None
    finally:
        server.remove()
    return [
        Figure(f"{len(prepared)} webhooks, {name}: lost", len(prepared) - row[0], "", 0),
        Figure("… answered 503, and repeated", sum(refused), ""),
        Figure("… until accepted, p50", percentile(taken, 50), "s"),
        Figure("… until accepted, the longest", max(taken), "s"),
    ]


async def _delivered(program: Program, request: bytes, due: float) -> tuple[float, int]:
    """Send one delivery until it is accepted. Return the seconds that took, and how often it was refused."""
    refused = 0
    await asyncio.sleep(due - time.perf_counter())
    while not await _accepted(program, request):
        refused += 1
        await asyncio.sleep(REPEAT)
    return time.perf_counter() - due, refused


async def _accepted(program: Program, request: bytes) -> bool:
    client = await Client.to(program)
    try:
        await client.post(request)
    except RuntimeError:  # any other answer than 202
        return False
    else:
        return True
    finally:
        client.close()


async def measure() -> list[Figure]:
    """Measure all."""
    return [
        *await measured(f"the work queue locked for {TROUBLE_LASTS:.0f} s", hold_lock),
        *await measured(f"PostgreSQL killed, and back {TROUBLE_LASTS:.0f} s later", die_and_return),
        *await measured("a disk that needs 100 ms for each commit", slow_down, *SLOW_DISK),
    ]

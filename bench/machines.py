"""Several machines on one PostgreSQL: workers that share a first sync, and web processes that accept webhooks.

The processes run on one machine here, and its PostgreSQL does not wait for the disk.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import AsyncExitStack, contextmanager
from typing import TYPE_CHECKING

from bench.accept import COUNT, post_all, requests
from bench.figures import Figure
from bench.stage import WEB, WORKER, reference, running, started, until
from sync_worker.sandbox.limits import Limits
from sync_worker.sandbox.server import Sandbox
from tests.postgres_server import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sync_worker.sandbox.traffic import Request

PEOPLE_IN_ALL = 20_000
BUDGET = 1000
ACCEPTED = 200
WORKERS = (1, 2, 4)
WEBS = (1, 2, 4)


async def shared(workers: int, server: PostgresServer, people: int = PEOPLE_IN_ALL) -> list[Figure]:
    """Let so many workers grant one course to many people, at Clerk's limit for all of them together."""
    async with Sandbox(clerk_limits=Limits(instance=BUDGET, subject=10)) as box, AsyncExitStack() as stack:
        settings = {"database_url": server.url, "clerk_budget": str(BUDGET)}
        await stack.enter_async_context(running(box, WEB, **settings))
        programs = [await stack.enter_async_context(started(box, WORKER, **settings)) for _ in range(workers)]
        users = [box.clerk.add_user() for _ in range(people)]
        await box.lake.load([{"_id": "course", "_type": "course", "slug": {"current": "old"}}])
        rows = [
            {"_id": f"ent-{u}", "_type": "entitlement", "clerkUserId": u, "courses": [reference("course")]}
            for u in users
        ]
        await box.lake.load(rows)
        begun = time.perf_counter()
        await box.lake.mutate([{"patch": {"id": "course", "set": {"slug.current": "new"}}}])
        await until(lambda: len(_accepted(box)) >= people, patience=3600.0, pause=0.05)
        seconds = time.perf_counter() - begun
        written = Counter(request.written for request in _accepted(box))
        refused = sum(request.status == 429 for request in box.clerk.requests.select())
        cpu = sum(program.cpu for program in programs)
        name = f"first sync of {people:,} by {workers} worker{'s' * (workers > 1)} at {BUDGET:,} calls per 10 s"
        return [
            Figure(name, seconds, "s", calls=box.clerk.requests.count(), cpu=cpu),
            Figure("… written", len(written), "", people, more_is_better=True),
            Figure("… written more than once", sum(times > 1 for times in written.values()), "", 0),
            Figure("… refused with 429", refused, "", 0),
        ]


def _accepted(box: Sandbox) -> list[Request]:
    """Return the writes that Clerk accepted."""
    return [request for request in box.clerk.requests.select("PATCH") if request.status == ACCEPTED]


async def accepting(webs: int, server: PostgresServer) -> Figure:
    """Send webhooks to so many web processes at once."""
    async with Sandbox() as box, AsyncExitStack() as stack:
        programs = [await stack.enter_async_context(running(box, WEB, database_url=server.url)) for _ in range(webs)]
        prepared = list(requests(box.lake.project_id, COUNT))
        parts = [prepared[number::webs] for number in range(webs)]
        before = sum(program.cpu for program in programs)
        begun = time.perf_counter()
        await asyncio.gather(*(post_all(*pair) for pair in zip(programs, parts, strict=True)))
        rate = COUNT / (time.perf_counter() - begun)
        cpu = sum(program.cpu for program in programs) - before
    return Figure(f"accepted by {webs} web process{'es' * (webs > 1)}, PostgreSQL", rate, "/s", cpu=cpu)


async def measure() -> list[Figure]:
    """Measure all numbers of processes, each on a server of its own."""
    figures: list[Figure] = []
    for number in WORKERS:
        with _server() as server:
            figures += await shared(number, server)
    for number in WEBS:
        with _server() as server:
            figures.append(await accepting(number, server))
    return figures


@contextmanager
def _server() -> Iterator[PostgresServer]:
    server = PostgresServer()
    server.start()
    try:
        yield server
    finally:
        server.remove()

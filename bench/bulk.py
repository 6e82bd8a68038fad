"""Bulk: many webhooks for few people, one document for many people, and first grants at Clerk's limits."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from bench.accept import delivery, post_all
from bench.figures import Figure
from bench.reconciles import row
from bench.stage import NAIVE, SERVE, calls, reference, running, until
from sync_worker.sandbox.limits import Limits
from sync_worker.sandbox.server import Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable

REFUSED = "429"


async def coalesced() -> list[Figure]:
    """Deliver ten webhooks each for 100 people, as fast as they are taken."""
    async with Sandbox() as box, running(box) as program:
        users = [box.clerk.add_user() for _ in range(100)]
        await box.lake.load([row(user) for user in users])
        reported = [delivery(box.lake.project_id, box.lake.documents[f"ent-{user}"]) for user in users]
        started = time.perf_counter()
        await post_all(program, reported * 10)
        await until(lambda: all(u["public_metadata"].get("plan") == "pro" for u in box.clerk.users.values()))
        seconds = time.perf_counter() - started
        await until(_quiet(box))
        return [
            Figure("1,000 webhooks for 100 subjects: writes", box.clerk.requests.count("PATCH"), "", 100),
            Figure("… queries", box.lake.requests.count(), "", 10),
            Figure("… until in sync", seconds, "s", calls=calls(box), cpu=program.cpu, peak_mb=program.peak_mb),
        ]


async def renamed() -> list[Figure]:
    """Give a course that 1,000 people hold another slug."""
    async with Sandbox() as box, running(box) as program:
        await box.lake.mutate([{"create": {"_id": "course", "_type": "course", "slug": {"current": "old"}}}])
        for _ in range(1000):
            box.clerk.add_user()
        rows = [
            {"_id": f"ent-{u}", "_type": "entitlement", "clerkUserId": u, "courses": [reference("course")]}
            for u in box.clerk.users
        ]
        await box.lake.mutate([{"create": row} for row in rows])
        await until(lambda: all(u["public_metadata"].get("courseSlugs") == ["old"] for u in box.clerk.users.values()))
        await box.lake.hooks_idle()
        await until(_quiet(box))
        box.clerk.requests.clear()
        box.lake.requests.clear()
        cpu, started = program.cpu, time.perf_counter()
        await box.lake.mutate([{"patch": {"id": "course", "set": {"slug.current": "new"}}}])
        await until(lambda: all(u["public_metadata"].get("courseSlugs") == ["new"] for u in box.clerk.users.values()))
        seconds = time.perf_counter() - started
        return [
            Figure("slug renamed, 1,000 holders: writes", box.clerk.requests.count("PATCH"), "", 1000),
            Figure("… Clerk lists", box.clerk.requests.count("GET"), "", 12),
            Figure("… queries", box.lake.requests.count(), "", 14),
            Figure("… until in sync", seconds, "s", calls=calls(box), cpu=program.cpu - cpu, peak_mb=program.peak_mb),
        ]


def _quiet(box: Sandbox) -> Callable[[], bool]:
    """Return a condition: neither service has received a request for a second."""
    requested, since = calls(box), time.monotonic()

    def quiet() -> bool:
        nonlocal requested, since
        if calls(box) != requested:
            requested, since = calls(box), time.monotonic()
        return time.monotonic() - since > 1.0

    return quiet


async def first_grants(
    people: int, limit: int, budget: int, command: tuple[str, ...] = SERVE
) -> tuple[float, int, float]:
    """Grant to `people` at Clerk's limit per 10 s. Return seconds, 429s, and the CPU seconds of the program."""
    limits = Limits(instance=limit)
    async with Sandbox(clerk_limits=limits) as box, running(box, command, clerk_budget=str(budget)) as program:
        users = [box.clerk.add_user() for _ in range(people)]
        rows = [
            {"_id": f"ent-{user}", "_type": "entitlement", "clerkUserId": user, "plan": "pro", "courses": []}
            for user in users
        ]
        started, cpu = time.perf_counter(), program.cpu
        for start in range(0, people, 500):
            await box.lake.mutate([{"create": row} for row in rows[start : start + 500]])
        await until(lambda: all("plan" in u["public_metadata"] for u in box.clerk.users.values()), pause=0.05)
        refused = sum(1 for request in box.clerk.requests.select() if str(request.status) == REFUSED)
        return time.perf_counter() - started, refused, program.cpu - cpu


async def granted() -> list[Figure]:
    """500 first grants at 100 calls per 10 s, compared with the handler of the guides."""
    seconds, refused, cpu = await first_grants(500, 100, 90)
    naive_seconds, naive_refused, _ = await first_grants(500, 100, 90, NAIVE)
    return [
        Figure("500 first grants at 100 calls per 10 s", seconds, "s", 60, naive=naive_seconds, cpu=cpu),
        Figure("… refused with 429", refused, "", 0, naive=naive_refused),
    ]


async def measure() -> list[Figure]:
    """Measure all three."""
    return [*await coalesced(), *await renamed(), *await granted()]

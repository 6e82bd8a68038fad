"""Publish → Clerk: how long an editor waits, with and without latency, compared with the handler of the guides."""

from __future__ import annotations

import statistics
import time
from functools import partial

from bench.figures import Figure
from bench.stage import NAIVE, SERVE, calls, running, until
from sync_worker.sandbox.server import Sandbox

SANITY_MS, CLERK_MS = 40, 80
ONE_BY_ONE, AT_ONCE = 50, 200


async def one_by_one(box: Sandbox, count: int) -> float:
    """Return the median milliseconds from a publish until Clerk holds it, one publish after the other."""
    taken = []
    for _ in range(count):
        user = box.clerk.add_user()
        row = {"_id": f"ent-{user}", "_type": "entitlement", "clerkUserId": user, "plan": "pro", "courses": []}
        started = time.perf_counter()
        await box.lake.mutate([{"create": row}])
        await until(partial(_has_plan, box, user))
        taken.append((time.perf_counter() - started) * 1000)
    return statistics.median(taken)


async def waterfall(box: Sandbox, count: int) -> dict[str, float]:
    """Return the median milliseconds of each step from a publish until Clerk holds it, by what both services saw."""
    steps: list[dict[str, float]] = []
    for _ in range(count):
        box.lake.requests.clear()
        box.clerk.requests.clear()
        begun = time.monotonic()
        await one_by_one(box, 1)
        query = next(r for r in box.lake.requests.select() if "/query/" in r.path)
        listing = next(r for r in box.clerk.requests.select() if r.method == "GET")
        patch = next(r for r in box.clerk.requests.select() if r.method == "PATCH")
        read = max(query.ended, listing.ended)
        steps.append(
            {
                "the webhook: sent, verified, committed, claimed": query.started - begun,
                "the query of Sanity": query.ended - query.started,
                "the list of Clerk, from the start of the query": listing.ended - query.started,
                "the plan, and the commit of the intent": patch.started - read,
                "the PATCH": time.monotonic() - patch.started,
            }
        )
    return {name: statistics.median(step[name] for step in steps) * 1000 for name in steps[0]}


def _has_plan(box: Sandbox, user: str) -> bool:
    return "plan" in box.clerk.users[user]["public_metadata"]


async def all_at_once(box: Sandbox) -> float:
    """Return the seconds until the last of many publishes is in Clerk."""
    users = [box.clerk.add_user() for _ in range(AT_ONCE)]
    rows = [
        {"_id": f"ent-{user}", "_type": "entitlement", "clerkUserId": user, "plan": "pro", "courses": []}
        for user in users
    ]
    started = time.perf_counter()
    for row in rows:
        await box.lake.mutate([{"create": row}])
    await until(lambda: all("plan" in box.clerk.users[user]["public_metadata"] for user in users), pause=0.005)
    return time.perf_counter() - started


async def fall(sanity_ms: float, clerk_ms: float) -> list[Figure]:
    """Return the steps of a publish at these latencies."""
    async with Sandbox() as box, running(box) as _:
        box.lake.faults.latency, box.clerk.faults.latency = sanity_ms / 1000, clerk_ms / 1000
        await one_by_one(box, 5)
        steps = await waterfall(box, 20)
    return [Figure(f"… {name} ({sanity_ms:.0f} + {clerk_ms:.0f} ms)", value, "ms") for name, value in steps.items()]


async def near(command: tuple[str, ...]) -> tuple[float, int, float, float]:
    """Return the median milliseconds without latency, the calls, CPU seconds and peak megabytes."""
    async with Sandbox() as box, running(box, command) as program:
        await one_by_one(box, 5)
        requested, cpu = calls(box), program.cpu
        taken = await one_by_one(box, ONE_BY_ONE)
        return taken, calls(box) - requested, program.cpu - cpu, program.peak_mb


async def far(command: tuple[str, ...]) -> tuple[float, float]:
    """Return the median milliseconds, and the seconds for many, with the latencies of the real services."""
    async with Sandbox() as box, running(box, command):
        box.lake.faults.latency, box.clerk.faults.latency = SANITY_MS / 1000, CLERK_MS / 1000
        await one_by_one(box, 3)
        return await one_by_one(box, 20), await all_at_once(box)


async def measure() -> list[Figure]:
    """Measure ours and theirs."""
    managed, requested, cpu, peak = await near(SERVE)
    theirs, *_ = await near(NAIVE)
    ours_far, ours_many = await far(SERVE)
    theirs_far, theirs_many = await far(NAIVE)
    distance = f"{SANITY_MS} ms per Sanity and {CLERK_MS} ms per Clerk call"
    return [
        Figure(
            f"publish → Clerk, p50 of {ONE_BY_ONE}",
            managed,
            "ms",
            15,
            naive=theirs,
            calls=requested,
            cpu=cpu,
            peak_mb=peak,
        ),
        *await fall(0, 0),
        Figure(f"the same, {distance}", ours_far, "ms", 200, naive=theirs_far),
        *await fall(SANITY_MS, CLERK_MS),
        Figure(f"{AT_ONCE} publishes in sync, {distance}", ours_many, "s", 3, naive=theirs_many),
    ]

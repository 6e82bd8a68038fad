"""Reconciles: a first sync at the budget, large populations without drift and with some, and how cost grows."""

from __future__ import annotations

import asyncio
import json
import math
import os
import sys
import tempfile
from typing import TYPE_CHECKING

from bench.figures import Figure
from bench.population import population
from sync_worker.cli.processes import settings_for
from sync_worker.domain.entitlements import CORE_FIELDS, Layout, Marker, Slot
from sync_worker.domain.ownership import MARKER_KEY, fingerprint, marker_json
from sync_worker.sandbox.limits import Limits
from sync_worker.sandbox.server import Sandbox

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LARGE = 100_000
HUGE = 1_000_000
CURVE = (1_000, 3_000, 10_000, 30_000, 100_000)
FAR_CURVE = (1_000, 10_000, 100_000, 300_000, HUGE)
PAGE_SECONDS = 0.3
"""How long a page of Clerk takes that is far away."""
LIMIT = 1000
"""Clerk's calls per 10 s for a production instance."""
FIRST = 10_000
RUN = """
import resource, sys
sys.argv = ["sync-worker", "reconcile", "--json", "--max-revocations", "100%"]
from sync_worker.cli import main
try:
    main()
finally:
    own = resource.getrusage(resource.RUSAGE_SELF)
    status = open("/proc/self/status").read().splitlines()  # ru_maxrss is the parent's, where that is larger
    peak_kb = next(line.split()[1] for line in status if line.startswith("VmHWM"))
    print("cost", int(peak_kb) / 1024, own.ru_utime + own.ru_stime)
"""


async def reconcile(box: Sandbox, budget: int = 1_000_000) -> dict[str, float]:
    """Run one reconcile against the sandbox."""
    return await run(settings_for(box, ""), budget)


async def run(settings: Mapping[str, str], budget: int) -> dict[str, float]:
    """Run one reconcile as a process of its own, on an empty database. Returns its report with `peak_mb` and `cpu`."""
    with tempfile.TemporaryDirectory() as folder:
        database = f"sqlite:///{folder}/work.db"
        environment = {**settings, "DATABASE_URL": database, "CLERK_BUDGET": str(budget)}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", RUN),
            env={"PATH": os.environ["PATH"], "LOG_FORMAT": "json", **environment},
            cwd=folder,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        out, _ = await process.communicate()
    report, _, cost = out.decode().rpartition("cost ")
    peak_mb, cpu = map(float, cost.split())
    return {**json.loads(report), "peak_mb": peak_mb, "cpu": cpu}


def row(user: str, plan: str = "pro") -> dict[str, str]:
    return {"_id": f"ent-{user}", "_type": "entitlement", "clerkUserId": user, "plan": plan}


async def populate(box: Sandbox, users: int) -> list[str]:
    """Put people and what entitles them into both services. Returns the people's ids."""
    ids = [box.clerk.add_user(f"user_{number:06}", email=f"user{number}@example.org") for number in range(users)]
    await box.lake.load([row(user) for user in ids])
    return ids


def apply(box: Sandbox) -> None:
    """Put what a first reconcile would write into Clerk, without the time that it would take."""
    layout = Layout(CORE_FIELDS, source=f"{box.lake.project_id}/production")
    values: dict[Slot, object] = {Slot.parse("plan"): "pro", Slot.parse("courseSlugs"): []}
    for user_id, user in box.clerk.users.items():
        documents = (f"ent-{user_id}",)
        marker = Marker(layout.source, tuple(values), documents, fingerprint(values), "2026-05-01T12:00:00+00:00")
        user["public_metadata"].update(plan="pro", courseSlugs=[])
        user["private_metadata"][MARKER_KEY] = marker_json(marker)


async def grown(sizes: Sequence[int] = CURVE) -> list[tuple[int, dict[str, float], dict[str, float]]]:
    """Return for each size the cost without drift and with 1 % drift."""
    points = []
    for size in sizes:
        async with Sandbox() as box:
            ids = await populate(box, size)
            apply(box)
            quiet = await reconcile(box)
            await box.lake.load([row(user, "basic") for user in ids[::100]])
            points.append((size, quiet, await reconcile(box)))
    return points


async def curve() -> dict[int, dict[str, dict[str, float]]]:
    """Return by size what a reconcile costs near and without drift, near with 1 % drift, and far without drift."""
    points: dict[int, dict[str, dict[str, float]]] = {n: {} for n in sorted({*CURVE, *FAR_CURVE})}
    for users, quiet, drift in await grown():
        points[users] |= {"near": quiet, "drift": drift}
    for users in FAR_CURVE:
        points[users]["far"] = await far(users)
    return points


async def far(users: int) -> dict[str, float]:
    """Return what a reconcile without drift costs when each page of Clerk takes its time, at Clerk's limit."""
    async with population(users, PAGE_SECONDS) as settings:
        return {**await run(settings, LIMIT), "naive": naive_seconds(users), "least": least_seconds(users)}


def naive_seconds(users: int) -> float:
    """Return how long the guides' handler takes, which can only write everybody again, one call each, at the limit."""
    return max(0, users - LIMIT) / LIMIT * 10


def least_seconds(users: int) -> float:
    """Return the time in which Clerk hands the pages out at its limit, if all were requested at once."""
    return max(0, users / 500 - LIMIT) / LIMIT * 10 + PAGE_SECONDS


async def huge() -> list[Figure]:
    """Populations whose pages come from far away."""
    figures = []
    for users, seconds, megabytes, calls in ((LARGE, 30, 200, 210), (HUGE, None, 400, 2100)):
        reported = await far(users)
        figures += [
            Figure(
                f"reconcile without drift, {users:,} users, {PAGE_SECONDS * 1000:.0f} ms a page",
                reported["seconds"],
                "s",
                seconds,
                naive=reported["naive"],
                calls=round(reported["clerk_calls"]),
                cpu=reported["cpu"],
                peak_mb=reported["peak_mb"],
            ),
            Figure("… the least that Clerk's limit allows", reported["least"], "s"),
            Figure("… Clerk calls", reported["clerk_calls"], "", calls),
            Figure("… peak memory", reported["peak_mb"], "MB", megabytes),
        ]
    return figures


async def large() -> list[Figure]:
    """The largest population of the sandbox."""
    ((_, quiet, drift),) = await grown((LARGE,))
    people = f"{LARGE:,} users"
    return [
        Figure(f"reconcile without drift, {people}: Clerk calls", quiet["clerk_calls"], "", 210),
        Figure("… writes", quiet["writes"], "", 0),
        Figure("… time", quiet["seconds"], "s", 30, cpu=quiet["cpu"], peak_mb=quiet["peak_mb"]),
        Figure("… peak memory", quiet["peak_mb"], "MB", 200),
        Figure("with 1 % drift: Clerk calls", drift["clerk_calls"], "", naive=None),
        Figure("… writes", drift["writes"], "", LARGE / 100),
        Figure("… time", drift["seconds"], "s", cpu=drift["cpu"], peak_mb=drift["peak_mb"]),
    ]


async def first_sync() -> list[Figure]:
    """A first sync of many people at Clerk's limit, which the sandbox enforces exactly."""
    async with Sandbox(clerk_limits=Limits(instance=LIMIT, subject=10)) as box:
        await populate(box, FIRST)
        reported = await reconcile(box, LIMIT)
        calls = box.clerk.requests.select()
        refused = sum(request.status == 429 for request in calls)
    least = (math.ceil(len(calls) / LIMIT) - 1) * 10
    return [
        Figure(
            f"first sync of {FIRST:,} at {LIMIT:,} calls per 10 s: budget used",
            used([request.started for request in calls]) * 100,
            "%",
            95,
            more_is_better=True,
        ),
        Figure("… refused with 429", refused, "", 0),
        Figure(
            "… time",
            reported["seconds"],
            "s",
            calls=round(reported["clerk_calls"]),
            cpu=reported["cpu"],
            peak_mb=reported["peak_mb"],
        ),
        Figure("… the least that Clerk's limit allows", least, "s"),
        Figure("… CPU per write", reported["cpu"] / reported["writes"] * 1000, "ms", 1.5),
    ]


def used(times: Sequence[float]) -> float:
    """Return the part of the budget that was used in the whole windows of ten seconds since the first call."""
    first = min(times)
    windows = int((max(times) - first) / 10)
    return sum(time < first + windows * 10 for time in times) / (windows * LIMIT)


async def measure() -> list[Figure]:
    """Measure the large populations and the first sync."""
    return [*await large(), *await huge(), *await first_sync()]

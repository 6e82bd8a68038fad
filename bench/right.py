"""Correctness: how many people are out of sync after all webhooks, compared with the handler of the guides."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from bench.figures import Figure
from bench.stage import NAIVE, SERVE, calls, reference, running
from sync_worker.sandbox.server import Sandbox

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

PEOPLE = 100
LAG = 2.0
QUIET = 3.0
"""Seconds without any call after which the work counts as done."""


def granted(document: str, user: str, plan: str, *courses: str) -> dict[str, Any]:
    return {
        "_id": document,
        "_type": "entitlement",
        "clerkUserId": user,
        "plan": plan,
        "courses": [reference(course) for course in courses],
    }


async def publish(box: Sandbox, *mutations: dict[str, Any]) -> None:
    """Publish one after the other, and wait until all is said and done, but for what is repeated after a failure."""
    for mutation in mutations:
        await box.lake.mutate([mutation])
    last, since = -1, time.monotonic()
    while time.monotonic() - since < QUIET:
        if calls(box) != last:
            last, since = calls(box), time.monotonic()
        await asyncio.sleep(0.05)


async def opened(box: Sandbox) -> list[str]:
    for course in ("one", "two"):
        await box.lake.mutate([{"create": {"_id": course, "_type": "course", "slug": {"current": course}}}])
    return [box.clerk.add_user() for _ in range(PEOPLE)]


def differing(box: Sandbox, plan: str | None, courses: list[str]) -> int:
    """Return how many people do not have exactly this."""
    held = [user["public_metadata"] for user in box.clerk.users.values()]
    return sum((one.get("plan"), sorted(one.get("courseSlugs") or [])) != (plan, courses) for one in held)


async def deleted(box: Sandbox) -> int:
    users = await opened(box)
    await publish(box, *({"create": granted(f"ent-{user}", user, "pro", "one")} for user in users))
    await publish(box, *({"delete": {"id": f"ent-{user}"}} for user in users))
    return differing(box, None, [])


async def renamed(box: Sandbox) -> int:
    users = await opened(box)
    await publish(box, *({"create": granted(f"ent-{user}", user, "pro", "one")} for user in users))
    await publish(box, {"patch": {"id": "one", "set": {"slug.current": "renamed"}}})
    return differing(box, "pro", ["renamed"])


async def twice(box: Sandbox) -> int:
    users = await opened(box)
    await publish(
        box,
        *({"create": granted(f"first-{user}", user, "pro", "one")} for user in users),
        *({"create": granted(f"second-{user}", user, "pro", "two")} for user in users),
    )
    return differing(box, "pro", ["one", "two"])


async def lagging(box: Sandbox) -> int:
    users = await opened(box)
    await publish(box, *({"create": granted(f"ent-{user}", user, "basic", "one")} for user in users))
    box.lake.lag = LAG
    await publish(box, *({"patch": {"id": f"ent-{user}", "set": {"plan": "pro"}}} for user in users))
    return differing(box, "pro", ["one"])


async def compared(name: str, scene: Callable[[Sandbox], Awaitable[int]]) -> Figure:
    """Play a scene for both."""
    wrong = []
    for command in (SERVE, NAIVE):
        async with Sandbox() as box, running(box, command):
            wrong.append(await scene(box))
    managed, theirs = wrong
    return Figure(f"{name}: wrong of {PEOPLE}", managed, "", 0, naive=theirs)


async def measure() -> list[Figure]:
    """Play all scenes."""
    return [
        await compared("entitlements deleted", deleted),
        await compared("the slug of their course renamed", renamed),
        await compared("two entitlements each", twice),
        await compared(f"the query index {LAG} s behind", lagging),
    ]

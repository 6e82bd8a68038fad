"""What runs while not one entitlement is visible is done again once one is, with the real parts."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from sync_worker.domain.model import Witness
from sync_worker.storage.queue import Mark
from sync_worker.worker.empty_dataset import STATE, look_again, saw_nothing
from tests.clock import TIMINGS
from tests.oracle import until, until_idle, wrong
from tests.parts import opened, working

if TYPE_CHECKING:
    from sync_worker.sandbox.server import Sandbox

pytestmark = pytest.mark.anyio


def entitlement(document: str, **fields: Any) -> dict[str, Any]:
    return {"create": {"_id": document, "_type": "entitlement", "plan": "pro", **fields}}


async def test_a_sign_up_that_was_looked_at_while_nothing_was_visible_gets_its_access_afterwards(
    box: Sandbox, sqlite_url: str
) -> None:
    box.clerk.add_user("user_1")
    async with working(box, sqlite_url, timings=replace(TIMINGS, empty_dataset_interval=0.2)) as parts:
        await parts.store.workset.mark([Mark("user:user_1")])
        async with asyncio.timeout(10):
            while not await parts.store.workset.recall(STATE):
                await asyncio.sleep(0.02)
        await box.lake.mutate([entitlement("e1", clerkUserId="user_1")])
        await until(lambda: not wrong(box))
        async with asyncio.timeout(10):
            while await parts.store.workset.recall(STATE):
                await asyncio.sleep(0.02)


@pytest.mark.parametrize("key", ["document:plan-1", "document:plan-1 for several", "user:user_1", "members:user_1"])
async def test_whatever_sees_nothing_says_so(box: Sandbox, sqlite_url: str, key: str) -> None:
    """A deleted plan is walked; without a witness it is looked up together with other documents."""
    box.clerk.add_user("user_1")
    gone = Witness("plan-1", "r1", "2026-05-01T12:00:00Z", deleted=True)
    lane = 2 if key.endswith("several") else 1
    async with working(box, sqlite_url) as parts:
        await parts.store.workset.mark([Mark(key.split(maxsplit=1)[0], lane, witness=gone)])
        await until_idle(sqlite_url)
        assert await parts.store.workset.recall(STATE)


async def test_a_plan_that_was_walked_while_nothing_was_visible_is_walked_again(box: Sandbox, sqlite_url: str) -> None:
    box.clerk.add_user("user_1")
    gone = Witness("plan-1", "r1", "2026-05-01T12:00:00Z", deleted=True)
    async with working(box, sqlite_url, timings=replace(TIMINGS, empty_dataset_interval=0.2)) as parts:
        await parts.store.workset.mark([Mark("document:plan-1", 1, witness=gone)])
        async with asyncio.timeout(10):
            while not await parts.store.workset.recall(STATE):
                await asyncio.sleep(0.02)
        named = {"_type": "reference", "_ref": "plan-1", "_weak": True}
        await box.lake.mutate([entitlement("e1", clerkUserId="user_1", role="member")])
        await box.lake.mutate([{"patch": {"id": "e1", "set": {"plan": named}}}])
        await until(lambda: not wrong(box))


async def test_a_run_that_sees_an_entitlement_says_nothing(box: Sandbox, sqlite_url: str) -> None:
    box.clerk.add_user("user_1")
    await box.lake.mutate([entitlement("e1", clerkUserId="user_2")])
    async with working(box, sqlite_url) as parts:
        await parts.store.workset.mark([Mark("user:user_1"), Mark("document:plan-1", 1), Mark("members:user_1")])
        await until_idle(sqlite_url)
        assert await parts.store.workset.recall(STATE) is None


async def test_while_nothing_is_visible_nothing_is_done_again(box: Sandbox, sqlite_url: str) -> None:
    async with opened(box, sqlite_url) as parts:
        await saw_nothing(parts.store.workset, TIMINGS)
        await parts.store.workset.mark([Mark("user:user_1")])
        assert await look_again(parts.services.source, parts.store.workset) == 0
        assert await parts.store.workset.recall(STATE)


async def test_what_never_ran_meanwhile_is_left_alone(box: Sandbox, sqlite_url: str) -> None:
    await box.lake.mutate([entitlement("e1", clerkUserId="user_1")])
    async with opened(box, sqlite_url) as parts:
        workset = parts.store.workset
        await workset.mark([Mark("user:waits", due=4e9), Mark("user:runs")])
        (running_now,) = await workset.claim(0, 10, 30.0)
        await saw_nothing(workset, TIMINGS)
        assert await look_again(parts.services.source, workset) == 1
        assert (row := await workset.get(running_now.key)) is not None
        assert row.pending


async def test_a_run_that_saw_nothing_meanwhile_is_not_forgotten(box: Sandbox, sqlite_url: str) -> None:
    async with opened(box, sqlite_url) as parts:
        workset = parts.store.workset
        await saw_nothing(workset, TIMINGS)
        since, first = await workset.recall(STATE) or ("", 0.0)
        await saw_nothing(workset, TIMINGS)
        await workset.forget(STATE, first)
        kept, last = await workset.recall(STATE) or ("", 0.0)
        assert (kept, last > first) == (since, True)
        await workset.forget(STATE, last)
        assert await workset.recall(STATE) is None

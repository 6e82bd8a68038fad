"""What runs while not one entitlement is visible is done again once one is, with the real parts."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from sync_worker.domain.subjects import Subject
from sync_worker.runtime.wiring import open_explainer, open_reconcile
from sync_worker.storage.work_items import WorkItem
from sync_worker.worker.empty_dataset import STATE, report_empty_read, requeue_after_empty_read
from sync_worker.worker.full_reconcile import Result
from tests.builders import published
from tests.clock import TIMINGS
from tests.expected import deleted
from tests.oracle import until, until_idle, until_seen, wrong
from tests.parts import opened, working

if TYPE_CHECKING:
    from sync_worker.sandbox.server import Sandbox

pytestmark = pytest.mark.anyio


async def test_a_sign_up_that_was_looked_at_while_nothing_was_visible_gets_its_access_afterwards(
    box: Sandbox, sqlite_url: str
) -> None:
    box.clerk.add_user("user_1")
    async with working(box, sqlite_url, timings=replace(TIMINGS, empty_dataset_interval=0.2)) as parts:
        await parts.store.queue.enqueue([WorkItem("user:user_1")])
        await until_seen(lambda: parts.store.queue.recall(STATE))
        await box.lake.mutate([published("e1", clerkUserId="user_1")])
        await until(lambda: not wrong(box))
        await until_seen(lambda: parts.store.queue.recall(STATE), lambda state: state is None)


@pytest.mark.parametrize("key", ["document:plan-1", "document:plan-1 for several", "user:user_1", "members:user_1"])
async def test_whatever_sees_nothing_says_so(box: Sandbox, sqlite_url: str, key: str) -> None:
    """A deleted plan is walked; without an expected revision it is looked up together with other documents."""
    box.clerk.add_user("user_1")
    gone = deleted("plan-1", "r1", "2026-05-01T12:00:00Z")
    lane = 2 if key.endswith("several") else 1
    async with working(box, sqlite_url) as parts:
        await parts.store.queue.enqueue([WorkItem(key.split(maxsplit=1)[0], lane, expected=gone)])
        await until_idle(sqlite_url)
        assert await parts.store.queue.recall(STATE)


async def test_a_plan_that_was_walked_while_nothing_was_visible_is_walked_again(box: Sandbox, sqlite_url: str) -> None:
    box.clerk.add_user("user_1")
    gone = deleted("plan-1", "r1", "2026-05-01T12:00:00Z")
    async with working(box, sqlite_url, timings=replace(TIMINGS, empty_dataset_interval=0.2)) as parts:
        await parts.store.queue.enqueue([WorkItem("document:plan-1", 1, expected=gone)])
        await until_seen(lambda: parts.store.queue.recall(STATE))
        named = {"_type": "reference", "_ref": "plan-1", "_weak": True}
        await box.lake.mutate([published("e1", clerkUserId="user_1", role="member")])
        await box.lake.mutate([{"patch": {"id": "e1", "set": {"plan": named}}}])
        await until(lambda: not wrong(box))


async def test_a_full_reconcile_that_sees_nothing_while_it_repairs_says_so(box: Sandbox, sqlite_url: str) -> None:
    box.clerk.add_user("user_1")
    async with opened(box, sqlite_url) as parts, open_reconcile(parts.settings, parts.store, Counter()) as run:
        await run.repair([Subject.parse("user:user_1")], Result())
        assert await parts.store.queue.recall(STATE)


async def test_an_explanation_that_sees_nothing_records_nothing(box: Sandbox, sqlite_url: str) -> None:
    box.clerk.add_user("user_1")
    async with opened(box, sqlite_url) as parts, open_explainer(parts.settings, parts.store, 10) as explainer:
        await explainer.subject(Subject.parse("user:user_1"))
        assert await parts.store.queue.recall(STATE) is None


async def test_a_run_that_sees_an_entitlement_says_nothing(box: Sandbox, sqlite_url: str) -> None:
    box.clerk.add_user("user_1")
    await box.lake.mutate([published("e1", clerkUserId="user_2")])
    async with working(box, sqlite_url) as parts:
        await parts.store.queue.enqueue(
            [WorkItem("user:user_1"), WorkItem("document:plan-1", 1), WorkItem("members:user_1")]
        )
        await until_idle(sqlite_url)
        assert await parts.store.queue.recall(STATE) is None


async def test_while_nothing_is_visible_nothing_is_done_again(box: Sandbox, sqlite_url: str) -> None:
    async with opened(box, sqlite_url) as parts:
        await report_empty_read(parts.store.queue, TIMINGS)
        await parts.store.queue.enqueue([WorkItem("user:user_1")])
        assert await requeue_after_empty_read(parts.services.source, parts.store.queue) == 0
        assert await parts.store.queue.recall(STATE)


async def test_what_never_ran_meanwhile_is_left_alone(box: Sandbox, sqlite_url: str) -> None:
    await box.lake.mutate([published("e1", clerkUserId="user_1")])
    async with opened(box, sqlite_url) as parts:
        queue = parts.store.queue
        await queue.enqueue([WorkItem("user:waits", visible_at=4e9), WorkItem("user:runs")])
        (running_now,) = await queue.claim(0, 10, 30.0)
        await report_empty_read(queue, TIMINGS)
        assert await requeue_after_empty_read(parts.services.source, queue) == 1
        assert (row := await queue.get(running_now.key)) is not None
        assert row.pending


async def test_a_run_that_saw_nothing_meanwhile_is_not_forgotten(box: Sandbox, sqlite_url: str) -> None:
    async with opened(box, sqlite_url) as parts:
        queue = parts.store.queue
        await report_empty_read(queue, TIMINGS)
        since, first = await queue.recall(STATE) or ("", 0.0)
        await report_empty_read(queue, TIMINGS)
        await queue.forget(STATE, first)
        kept, last = await queue.recall(STATE) or ("", 0.0)
        assert (kept, last > first) == (since, True)
        await queue.forget(STATE, last)
        assert await queue.recall(STATE) is None

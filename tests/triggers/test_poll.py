"""The poll: a lost webhook is late by minutes, not by a night."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from sync_worker.triggers.poll import find_published, horizon
from tests.builders import created
from tests.causes import cause_of
from tests.clock import CLOCK, TIMINGS, ShiftedClock
from tests.oracle import until, until_seen, wrong
from tests.parts import opened, working

if TYPE_CHECKING:
    from sync_worker.domain.clock import Clock
    from sync_worker.domain.timings import Timings
    from sync_worker.sandbox.server import Sandbox
    from sync_worker.sanity.source import Source
    from sync_worker.storage.queue import WorkQueue

pytestmark = pytest.mark.anyio


async def catch_up(source: Source, queue: WorkQueue, clock: Clock, timings: Timings) -> int:
    return await find_published(source, queue, horizon(clock, timings))


LATER = 600.0


async def test_a_publish_whose_webhook_was_lost_is_found_and_reported(box: Sandbox, sqlite_url: str) -> None:
    box.clerk.add_user("user_1")
    async with working(box, sqlite_url) as parts:
        await catch_up(parts.services.source, parts.store.queue, CLOCK, TIMINGS)
        await box.lake.mutate([created("e1", "user_1", plan="pro")])
        with capture_logs() as logs:
            assert await catch_up(parts.services.source, parts.store.queue, ShiftedClock(LATER), TIMINGS) == 1
            await until(lambda: not wrong(box))
            await until(lambda: any(line["event"] == "missed_webhook_detected" for line in logs))
            await until_seen(lambda: parts.store.queue.recall("missed_webhooks"))


async def test_a_course_whose_webhook_was_lost_reaches_its_holders(box: Sandbox, sqlite_url: str) -> None:
    box.clerk.add_user("user_1")
    course = {"_id": "c1", "_type": "course", "slug": {"current": "old"}}
    await box.lake.mutate([{"create": course}, created("e1", "user_1", courses=[{"_type": "reference", "_ref": "c1"}])])
    async with working(box, sqlite_url) as parts:
        await catch_up(parts.services.source, parts.store.queue, ShiftedClock(-LATER), TIMINGS)
        await box.lake.mutate([{"patch": {"id": "c1", "set": {"slug.current": "new"}}}])
        await catch_up(parts.services.source, parts.store.queue, ShiftedClock(LATER), TIMINGS)
        await until(lambda: not wrong(box))
    assert box.clerk.users["user_1"]["public_metadata"]["courseSlugs"] == ["new"]


async def test_what_a_webhook_announced_is_not_called_silent(box: Sandbox, sqlite_url: str) -> None:
    box.clerk.add_user("user_1")
    async with working(box, sqlite_url) as parts:
        await catch_up(parts.services.source, parts.store.queue, CLOCK, TIMINGS)
        await box.lake.mutate([created("e1", "user_1", plan="pro")])
        from sync_worker.storage.work_items import WorkItem  # noqa: PLC0415 - only here

        await parts.store.queue.enqueue([WorkItem("user:user_1", cause=cause_of("webhook:e1"))])
        await until(lambda: not wrong(box))
        writes = box.clerk.requests.count("PATCH")
        reads = box.clerk.requests.count("GET")
        with capture_logs() as logs:
            await catch_up(parts.services.source, parts.store.queue, ShiftedClock(LATER), TIMINGS)
            await until(lambda: box.clerk.requests.count("GET") > reads)
        assert not [line for line in logs if line["event"] == "missed_webhook_detected"]
    assert box.clerk.requests.count("PATCH") == writes


async def test_a_second_poll_does_not_enqueue_the_same_again(box: Sandbox, sqlite_url: str) -> None:
    async with opened(box, sqlite_url) as parts:
        source, queue = parts.services.source, parts.store.queue
        await catch_up(source, queue, CLOCK, TIMINGS)
        await box.lake.mutate([created("e1", "user_1")])
        assert await catch_up(source, queue, ShiftedClock(LATER), TIMINGS) == 1
        assert await catch_up(source, queue, ShiftedClock(LATER), TIMINGS) == 0


async def test_a_thousand_publishes_of_one_second_are_all_found(box: Sandbox, sqlite_url: str) -> None:
    async with opened(box, sqlite_url) as parts:
        source, queue = parts.services.source, parts.store.queue
        await catch_up(source, queue, CLOCK, TIMINGS)
        await box.lake.mutate([created(f"e{n:04}", f"user_{n:04}") for n in range(1100)])
        assert await catch_up(source, queue, ShiftedClock(LATER), TIMINGS) == 1100


async def test_a_publish_is_left_to_its_webhook_for_a_minute(box: Sandbox, sqlite_url: str) -> None:
    async with opened(box, sqlite_url) as parts:
        source, queue = parts.services.source, parts.store.queue
        await catch_up(source, queue, ShiftedClock(-LATER), TIMINGS)
        await box.lake.mutate([created("e1", "user_1")])
        assert await catch_up(source, queue, CLOCK, TIMINGS) == 0

"""Listening instead of webhooks: nothing is missed when the stream drops events, ends, or cannot go on."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Any, cast

import pytest

from sync_worker.errors import ServiceUnavailable
from sync_worker.sandbox.listeners import ListenFaults, ListenSettings
from sync_worker.sanity.groq_files import types_in
from sync_worker.sanity.listen import ListenEvent, Signal
from sync_worker.triggers.listen import Listener, document_event
from sync_worker.triggers.poll import horizon
from tests.builders import publish
from tests.clock import CLOCK, TIMINGS, ManualClock
from tests.oracle import GUARD, until, until_seen, wrong
from tests.parts import opened, poll_of, working

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sync_worker.sandbox.server import Sandbox
    from sync_worker.sanity.listen import Listen

pytestmark = pytest.mark.anyio
QUICK = replace(TIMINGS, listen_reconnect=0.05, listen_lease=1.0, poll_grace=0.01)


async def edit(box: Sandbox, user: str, **fields: Any) -> None:
    await publish(box, f"ent-{user}", user, **fields)


async def test_a_publish_a_move_and_a_delete_are_reported_without_any_webhook(box: Sandbox, database_url: str) -> None:
    users = [box.clerk.add_user(f"user_{n}") for n in range(3)]
    async with working(box, database_url, events="listen", timings=QUICK, sanity_webhook_secret=""):
        await box.lake.listeners.wait_connected(1)
        for user in users:
            await edit(box, user)
        await until(lambda: not wrong(box))
        await edit(box, users[0], clerkUserId=users[1])
        await until(lambda: not wrong(box))
        await box.lake.mutate([{"delete": {"id": f"ent-{user}"}} for user in users])
        await until(lambda: not any("plan" in u["public_metadata"] for u in box.clerk.users.values()))


async def test_a_renamed_course_reaches_its_holders(box: Sandbox, sqlite_url: str) -> None:
    user = box.clerk.add_user("user_1")
    async with working(box, sqlite_url, events="listen", timings=QUICK):
        await box.lake.listeners.wait_connected(1)
        await box.lake.mutate([{"create": {"_id": "c1", "_type": "course", "slug": {"current": "algebra"}}}])
        await edit(box, user, courses=[{"_type": "reference", "_ref": "c1", "_key": "c1"}])
        await until(lambda: not wrong(box))
        await box.lake.mutate([{"patch": {"id": "c1", "set": {"slug.current": "geometry"}}}])
        await until(lambda: not wrong(box))


async def test_what_happens_while_the_connection_is_cut_comes_when_it_goes_on(box: Sandbox, sqlite_url: str) -> None:
    users = [box.clerk.add_user(f"user_{n}") for n in range(10)]
    async with working(box, sqlite_url, events="listen", timings=QUICK):
        await box.lake.listeners.wait_connected(1)
        for user in users:
            await edit(box, user)
            box.lake.listeners.cut()
            await box.lake.listeners.wait_connected(1)
        await until(lambda: not wrong(box))


async def test_a_connection_is_replaced_before_sanity_ends_it(box: Sandbox, sqlite_url: str) -> None:
    async with working(box, sqlite_url, events="listen", timings=replace(QUICK, listen_lifetime=0.3)):
        await until(lambda: box.lake.listeners.opened > 2)
        await edit(box, box.clerk.add_user("user_1"))
        await until(lambda: not wrong(box))


async def test_where_the_stream_cannot_go_on_the_poll_catches_up(box: Sandbox, sqlite_url: str) -> None:
    user = box.clerk.add_user("user_1")
    box.lake.listeners.settings = ListenSettings(resume_window=-1)
    async with working(box, sqlite_url, events="listen", timings=QUICK) as parts:
        await box.lake.listeners.wait_connected(1)
        await until_seen(lambda: parts.store.queue.recall("deletes"))  # the first connection has caught up
        box.lake.listeners.faults = ListenFaults(drop=1.0)
        await edit(box, user)
        box.lake.listeners.faults = ListenFaults()
        box.lake.listeners.cut()
        await until(lambda: not wrong(box))


async def test_only_one_of_two_processes_listens(box: Sandbox, postgres_url: str) -> None:
    async with working(box, postgres_url, events="listen", timings=QUICK):
        await box.lake.listeners.wait_connected(1)
        async with working(box, postgres_url, events="listen", timings=QUICK):
            await edit(box, box.clerk.add_user("user_1"))
            await until(lambda: not wrong(box))
            assert box.lake.listeners.connected == 1


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("channel_error", "the channel failed"),
        ("unauthorized", "SANITY_READ_TOKEN"),
        ("forbidden", "SANITY_READ_TOKEN"),
        ("no_dataset", "SANITY_DATASET"),
    ],
)
async def test_a_refusal_is_recorded_with_its_reason_and_not_tried_again_at_once(
    box: Sandbox, sqlite_url: str, fault: str, reason: str
) -> None:
    box.lake.faults.next(fault, path_prefix="/v2025-02-19/data/listen")
    async with working(box, sqlite_url, events="listen", timings=QUICK) as parts:
        known = await until_seen(lambda: parts.store.queue.recall("listen:failure"))
    assert known is not None
    assert (reason in known[0], box.lake.listeners.opened) == (True, 0)


@pytest.mark.parametrize(
    ("event", "failure"),
    [
        (ListenEvent(Signal.FAILED, data={"error": {"description": "no such field"}}), "no such field"),
        (ListenEvent(Signal.FAILED, data={"message": "not allowed"}), "not allowed"),
        (ListenEvent(Signal.ERROR, data={"error": "not allowed"}), "not allowed"),
        (ListenEvent(Signal.ERROR), ""),
        (ListenEvent(Signal.DISCONNECT, data={"reason": "the dataset is gone"}), "the dataset is gone"),
        (ListenEvent(Signal.DISCONNECT), "disconnect"),
        (ListenEvent(Signal.WELCOME, data={"listenerName": "x"}), ""),
    ],
)
def test_an_event_that_ends_the_stream_says_why(event: ListenEvent, failure: str) -> None:
    assert event.failure == failure


async def test_while_no_connection_succeeds_each_pause_is_longer_than_the_one_before(
    box: Sandbox, sqlite_url: str
) -> None:
    class Broken:
        async def events(self, _: str) -> AsyncIterator[ListenEvent]:
            for event in connections.pop(0):
                yield event
            raise ServiceUnavailable("the connection ended")

    class NoJitter(Random):
        def random(self) -> float:
            return 0.0

    async def catch_up() -> None:
        raise AssertionError("a connection that goes on needs none")

    connections: list[list[ListenEvent]] = [[], [], [], [ListenEvent(Signal.RESUMED)], [], []]
    clock, broken = ManualClock(time.time()), cast("Listen", Broken())
    async with opened(box, sqlite_url) as parts:
        database, queue = parts.store.database, parts.store.queue
        listening = asyncio.create_task(Listener(broken, database, queue, catch_up, clock, TIMINGS, NoJitter()).run())
        await until(lambda: not connections)
        listening.cancel()
        await asyncio.wait([listening])
    renewed = TIMINGS.listen_lease / 3
    assert [seconds for seconds in clock.slept if seconds != renewed][:5] == [1.0, 2.0, 4.0, 1.0, 2.0]


async def test_a_listener_that_is_stopped_while_it_replaces_its_connection_stops(box: Sandbox, sqlite_url: str) -> None:
    replacing, closed = asyncio.Event(), asyncio.Event()

    class Lingering:
        async def events(self, _: str) -> AsyncIterator[ListenEvent]:
            try:
                await asyncio.Event().wait()
            finally:
                replacing.set()
                await closed.wait()
            yield ListenEvent(Signal.WELCOME)

    async def catch_up() -> None:
        raise AssertionError("nothing was received")

    timings, lingering = replace(TIMINGS, listen_lifetime=0.01), cast("Listen", Lingering())
    async with opened(box, sqlite_url) as parts:
        database, queue = parts.store.database, parts.store.queue
        listening = asyncio.create_task(Listener(lingering, database, queue, catch_up, CLOCK, timings, Random()).run())
        await replacing.wait()
        listening.cancel()
        closed.set()
        await asyncio.wait([listening], timeout=GUARD)
        assert listening.cancelled()


@pytest.mark.parametrize("odd", [{"documentId": "x" * 300}, {"result": {"_id": "e1", "_type": "a", "_rev": 7}}])
def test_an_event_of_another_shape_is_left_to_the_poll(odd: dict[str, Any]) -> None:
    data = {"documentId": "e1", "transition": "update", "result": {"_id": "e1", "_type": "entitlement"}, **odd}
    assert document_event(ListenEvent(Signal.MUTATION, "tx#e1", data)) is None


async def test_a_catch_up_leaves_the_newest_part_of_the_log_to_the_next_poll(box: Sandbox, sqlite_url: str) -> None:
    clock = ManualClock(time.time())
    async with opened(box, sqlite_url) as parts:
        await poll_of(parts, clock).catch_up()
        known = await parts.store.queue.recall("deletes")
    assert known is not None
    assert json.loads(known[0])[0] == horizon(clock, TIMINGS)


@pytest.mark.parametrize(
    ("text", "types"),
    [
        ('(before()._type in ["a", "b"] || after()._type in ["a", "b"]) && true', ("a", "b")),
        ('_type == "a" || _type == "b"', ("a", "b")),
        ("_type in ['a', \"b\"] || _type == 'c'", ("a", "b", "c")),
        ("true", ()),
    ],
)
def test_the_types_are_those_of_the_webhooks_filter(text: str, types: tuple[str, ...]) -> None:
    assert tuple(types_in(text)) == types

"""Resuming a listener, and what can go wrong with its connection and its events."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from sync_worker.sandbox.listeners import ListenFaults, ListenSettings
from tests.oracle import GUARD
from tests.sandbox.events import LISTEN, connected, listening
from tests.sandbox.test_control import ordered, steer

if TYPE_CHECKING:
    from sync_worker.sandbox.server import Sandbox
    from tests.sandbox.events import Stream

pytestmark = pytest.mark.anyio


async def create(box: Sandbox, *ids: str) -> None:
    """Create documents in one transaction each; its id is that of the document."""
    for id_ in ids:
        await box.lake.mutate([{"create": {"_id": id_, "_type": "entitlement"}}], transaction_id=id_)


async def seen(stream: Stream, count: int) -> list[str]:
    return [event["documentId"] for event in await stream.mutations(count)]


@pytest.fixture
async def missed(box: Sandbox, sanity: httpx.AsyncClient) -> str:
    """Return the id of the last event that a listener received; it missed two transactions since."""
    async with listening(sanity, enableResume="true") as stream:
        await create(box, "a", "b")
        await stream.mutations(1)
        last = (await stream.next()).id
    await create(box, "c", "d")
    return last


@pytest.mark.parametrize("way", ["header", "parameter"])
async def test_a_listener_resumes_and_receives_its_last_event_again(
    box: Sandbox, sanity: httpx.AsyncClient, missed: str, way: str
) -> None:
    options: dict[str, Any] = {"last": missed} if way == "header" else {"lastEventId": missed}
    async with connected(sanity, enableResume="true", **options) as stream:
        greeting = await stream.next()
        assert (greeting.name, list(greeting.data)) == ("welcomeback", ["listenerName"])
        assert await seen(stream, 3) == ["b", "c", "d"]
        await create(box, "e")
        assert await seen(stream, 1) == ["e"]


async def test_missed_events_match_the_filter_as_they_did(box: Sandbox, sanity: httpx.AsyncClient, missed: str) -> None:
    await box.lake.mutate([{"delete": {"id": "d"}}])
    options = {"enableResume": "true", "includePreviousRevision": "true", "last": missed}
    async with listening(sanity, query='*[_id == "d"]', params={}, **options) as stream:
        events = await stream.mutations(2)
    assert [event["transition"] for event in events] == ["appear", "disappear"]
    assert events[1]["previous"]["_rev"] == "d"


async def test_a_listener_without_resume_is_welcomed_as_a_new_one(
    box: Sandbox, sanity: httpx.AsyncClient, missed: str
) -> None:
    async with connected(sanity, last=missed) as stream:
        assert (await stream.next()).name == "welcome"
        await create(box, "e")
        assert await seen(stream, 1) == ["e"]


async def test_the_service_may_not_support_resuming(box: Sandbox, sanity: httpx.AsyncClient, missed: str) -> None:
    box.lake.listeners.settings = ListenSettings(is_resumable=False)
    async with connected(sanity, enableResume="true", last=missed) as stream:
        assert (await stream.next()).name == "welcome"


@pytest.mark.parametrize("last", ["", "unknown#e"])
async def test_a_listener_that_is_away_for_too_long_is_reset(
    box: Sandbox, sanity: httpx.AsyncClient, missed: str, last: str
) -> None:
    if not last:
        box.lake.listeners.settings = ListenSettings(resume_window=-1)
    async with connected(sanity, enableResume="true", last=last or missed) as stream:
        assert (await stream.next()).name == "reset"
        await create(box, "e")
        assert await seen(stream, 1) == ["e"]


async def test_the_resume_window_is_counted_in_seconds(box: Sandbox, sanity: httpx.AsyncClient, missed: str) -> None:
    now = box.lake.clock()
    box.lake.log.clock = lambda: now + 400
    try:
        async with connected(sanity, enableResume="true", last=missed) as stream:
            assert (await stream.next()).name == "reset"
    finally:
        box.lake.log.clock = box.lake.clock


async def test_connections_can_be_cut_in_the_middle_of_an_event(box: Sandbox, sanity: httpx.AsyncClient) -> None:
    async with listening(sanity) as stream:
        await create(box, "a")
        assert await seen(stream, 1) == ["a"]
        box.lake.listeners.cut()
        with pytest.raises(httpx.RemoteProtocolError):
            await stream.next()
    async with asyncio.timeout(GUARD):
        await box.lake.listeners.wait_connected(0)


async def test_connections_can_be_ended(box: Sandbox, sanity: httpx.AsyncClient) -> None:
    async with listening(sanity) as stream:
        box.lake.listeners.end()
        with pytest.raises(EOFError):
            await stream.next()


async def test_a_reset_can_come_at_any_time(box: Sandbox, sanity: httpx.AsyncClient) -> None:
    async with listening(sanity) as stream:
        box.lake.listeners.send_reset()
        assert (await stream.next()).name == "reset"
        await create(box, "a")
        assert await seen(stream, 1) == ["a"]


async def test_the_channel_can_fail(box: Sandbox, sanity: httpx.AsyncClient) -> None:
    async with listening(sanity) as stream:
        box.lake.listeners.fail("dataset is gone")
        refused, parting = await stream.next(), await stream.next()
        with pytest.raises(EOFError):
            await stream.next()
    assert (refused.name, refused.data["error"]["description"]) == ("channelError", "dataset is gone")
    assert parting.name == "disconnect"


async def test_clients_can_be_sent_away(box: Sandbox, sanity: httpx.AsyncClient) -> None:
    async with listening(sanity) as stream:
        box.lake.listeners.disconnect("project is blocked")
        parting = await stream.next()
    assert (parting.name, parting.data) == ("disconnect", {"reason": "project is blocked"})


async def test_a_share_of_events_is_dropped(box: Sandbox, sanity: httpx.AsyncClient) -> None:
    box.lake.listeners.faults = ListenFaults(drop=0.5)
    async with listening(sanity) as stream:
        await create(box, *(str(number) for number in range(40)))
        box.lake.listeners.faults = ListenFaults()
        await create(box, "last")
        received = 1
        while await seen(stream, 1) != ["last"]:
            received += 1
    assert received == box.lake.listeners.sent
    assert box.lake.listeners.sent + box.lake.listeners.dropped == 41
    assert box.lake.listeners.dropped > 5


async def test_events_can_come_twice(box: Sandbox, sanity: httpx.AsyncClient) -> None:
    box.lake.listeners.faults = ListenFaults(duplicate=1.0)
    async with listening(sanity) as stream:
        await create(box, "a")
        assert await seen(stream, 2) == ["a", "a"]


async def test_late_events_come_out_of_order(box: Sandbox, sanity: httpx.AsyncClient) -> None:
    box.lake.listeners.faults = ListenFaults(delay=1.0, delay_seconds=(0.5, 0.5))
    async with listening(sanity) as stream:
        await create(box, "late")
        async with asyncio.timeout(GUARD):
            while not box.lake.listeners.sent:
                await asyncio.sleep(0)
        box.lake.listeners.faults = ListenFaults()
        box.lake.listeners.send_reset()
        assert [(await stream.next()).name for _ in range(2)] == ["reset", "mutation"]


async def test_a_silent_connection_stays_open_without_any_byte(box: Sandbox, sanity: httpx.AsyncClient) -> None:
    box.lake.listeners.settings = ListenSettings(keep_alive=0.001)
    async with listening(sanity) as stream:
        box.lake.listeners.faults = ListenFaults(silent=True)
        await create(box, "a")
        async with asyncio.timeout(GUARD):
            while not box.lake.listeners.sent:
                await asyncio.sleep(0)
        box.lake.listeners.faults = ListenFaults()
        await create(box, "b")
        event = await stream.next()
        while not event.name:
            event = await stream.next()
    assert event.data["documentId"] == "b"


@pytest.mark.parametrize(("fault", "status"), [("unauthorized", 401), ("forbidden", 403), ("unavailable", 503)])
async def test_connecting_fails_like_any_request(
    box: Sandbox, sanity: httpx.AsyncClient, fault: str, status: int
) -> None:
    box.lake.faults.next(fault, path_prefix=LISTEN)
    async with connected(sanity) as stream:
        assert stream.answer.status_code == status


async def test_connecting_can_fail_on_the_channel(box: Sandbox, sanity: httpx.AsyncClient) -> None:
    box.lake.faults.next("channel_error", path_prefix=LISTEN)
    async with connected(sanity) as stream:
        assert [(await stream.next()).name for _ in range(2)] == ["channelError", "disconnect"]


@pytest.mark.parametrize(
    ("action", "event"), [("reset", "reset"), ("fail", "channelError"), ("disconnect", "disconnect")]
)
async def test_listeners_are_interrupted_over_http(sanity: httpx.AsyncClient, action: str, event: str) -> None:
    async with listening(sanity) as stream:
        await ordered(sanity, "/listeners", {"action": action})
        assert (await stream.next()).name == event


@pytest.mark.parametrize(("action", "ending"), [("cut", httpx.RemoteProtocolError), ("end", EOFError)])
async def test_connections_are_closed_over_http(
    sanity: httpx.AsyncClient, action: str, ending: type[Exception]
) -> None:
    async with listening(sanity) as stream:
        await ordered(sanity, "/listeners", {"action": action})
        with pytest.raises(ending):
            await stream.next()


async def test_settings_and_faults_are_set_and_counted_over_http(box: Sandbox, sanity: httpx.AsyncClient) -> None:
    order: dict[str, Any] = {"settings": {"resume_window": 60}, "faults": {"drop": 1.0}}
    await ordered(sanity, "/listen", order)
    assert box.lake.listeners.settings == ListenSettings(resume_window=60)
    async with listening(sanity) as stream:
        await create(box, "a")
        await ordered(sanity, "/listen", {})
        await create(box, "b")
        assert await seen(stream, 1) == ["b"]
        counts = (await sanity.get(steer(sanity, "/listeners"))).json()
    assert counts == {"connected": 1, "opened": 1, "sent": 1, "dropped": 1}
    refused = await sanity.post(steer(sanity, "/listen"), json={"settings": {"keepalive": 1}})
    assert refused.status_code == 400


async def test_a_reset_of_the_sandbox_ends_all_connections(box: Sandbox, sanity: httpx.AsyncClient) -> None:
    async with listening(sanity) as stream:
        await box.reset()
        with pytest.raises(EOFError):
            await stream.next()
    assert box.lake.listeners.connected == 0

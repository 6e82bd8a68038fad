"""Sending notices: to receivers that are fine, slow, down or lying, and never in the way of the work."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from structlog.testing import capture_logs
from svix.webhooks import Webhook

from sync_worker.cli.processes import settings_for
from sync_worker.diagnostics.situations import SituationReader
from sync_worker.runtime.notifier import Notifier, notify
from sync_worker.runtime.wiring import Runtime, open_store
from sync_worker.storage.counters import MISSED_WEBHOOKS
from sync_worker.storage.notices import Notice, Notices
from sync_worker.storage.state import PAGES_URL
from sync_worker.storage.work_items import WorkItem
from tests.builders import created
from tests.clock import CLOCK, TIMINGS, ManualClock
from tests.nursery import run
from tests.parts import settings_of, working

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from sync_worker.sandbox.server import Sandbox

pytestmark = pytest.mark.anyio
SECRET = "whsec_bm90aWNlLXNlY3JldC1mb3ItdGhlLXRlc3Rz"
URL = "http://receiver.test/hook/a-token"
NOTICE = Notice("losses_held", "list-1", {"event": "losses_held", "text": "3 hëld", "facts": {}}, 1_000_000.0)


@dataclass
class Receiver:
    """A receiver in this process that answers as the test says."""

    answer: Callable[[httpx.Request], httpx.Response]
    requests: list[httpx.Request] = field(default_factory=list)

    def notifier(self, clock: Any = CLOCK, secret: str = SECRET) -> Notifier:
        def handle(request: httpx.Request) -> httpx.Response:
            self.requests.append(request)
            return self.answer(request)

        return Notifier(httpx.AsyncClient(transport=httpx.MockTransport(handle)), URL, secret, clock, TIMINGS)


@dataclass
class Body(httpx.AsyncByteStream):
    """The body of an answer, which counts what was read of it."""

    read: int = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for _ in range(10):
            self.read += 1_000_000
            yield bytes(1_000_000)


def accepting() -> Receiver:
    return Receiver(lambda _: httpx.Response(200))


async def test_a_notice_is_json_signed_as_in_standard_webhooks() -> None:
    receiver = accepting()
    assert await receiver.notifier().send(NOTICE) == ""
    (request,) = receiver.requests
    Webhook(SECRET).verify(request.content, dict(request.headers))
    assert json.loads(request.content) == {**NOTICE.body, "at": "1970-01-12T13:46:40Z"}
    assert request.headers["content-type"] == "application/json"


async def test_without_a_secret_a_notice_is_not_signed() -> None:
    receiver = accepting()
    await receiver.notifier(secret="").send(NOTICE)
    assert "webhook-signature" not in receiver.requests[0].headers


async def test_a_repeated_notice_keeps_its_id_and_another_has_its_own() -> None:
    receiver = accepting()
    for notice in (NOTICE, NOTICE, replace(NOTICE, at=NOTICE.at + 1)):
        await receiver.notifier().send(notice)
    first, again, other = [request.headers["webhook-id"] for request in receiver.requests]
    assert (first == again, first == other) == (True, False)


async def test_a_redirect_is_not_followed() -> None:
    receiver = Receiver(lambda _: httpx.Response(302, headers={"Location": "http://127.0.0.1/elsewhere"}))
    assert await receiver.notifier().send(NOTICE) == "status 302"
    assert len(receiver.requests) == 1


@pytest.mark.parametrize(("status", "problem"), [(200, ""), (500, "status 500")])
async def test_the_body_of_an_answer_is_not_read(status: int, problem: str) -> None:
    body = Body()
    assert await Receiver(lambda _: httpx.Response(status, stream=body)).notifier().send(NOTICE) == problem
    assert body.read == 0


async def test_a_receiver_that_is_down_is_named_without_its_address() -> None:
    def down(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError(f"cannot connect to {URL}")

    assert await Receiver(down).notifier().send(NOTICE) == "ConnectError"


@asynccontextmanager
async def silent() -> AsyncIterator[tuple[str, asyncio.Event]]:
    """A receiver that accepts connections and never answers; the event says that one came."""
    came, done = asyncio.Event(), asyncio.Event()

    async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.set()
        await done.wait()
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", came
    finally:
        done.set()
        server.close()
        await server.wait_closed()


async def test_a_receiver_that_does_not_answer_in_time_is_given_up() -> None:
    async with silent() as (url, _), httpx.AsyncClient() as client:
        notifier = Notifier(client, url, "", CLOCK, replace(TIMINGS, notify_timeout=0.2))
        assert await notifier.send(NOTICE) == "timeout"


async def test_work_goes_on_while_the_receiver_does_not_answer(box: Sandbox, sqlite_url: str) -> None:
    box.clerk.add_user("user_1")
    await box.lake.mutate([created("e1", "user_1", plan="pro")])
    patient = replace(TIMINGS, notify_timeout=3600.0, notify_first_retry=7200.0, notify_max_retry=7200.0)
    async with silent() as (url, came), working(box, sqlite_url, notify_url=url, timings=patient) as parts:
        await parts.store.queue.count({MISSED_WEBHOOKS: 1})
        async with asyncio.timeout(60):
            await came.wait()
            await parts.store.queue.enqueue([WorkItem("user:user_1")])
            while (row := await parts.store.queue.get("user:user_1")) and row.pending:
                await parts.store.database.changed(0.05)
        assert box.clerk.users["user_1"]["public_metadata"]["plan"] == "pro"


# What is recorded, sent, tried again and dropped.


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@dataclass
class Looks:
    """Looks at the database, one after the other."""

    reader: SituationReader
    notices: Notices

    async def look(self, notifier: Notifier) -> list[str]:
        """Return the events that were logged."""
        with capture_logs() as logged:
            await notify(self.reader, self.notices, notifier)
        return [line["event"] for line in logged]


@pytest.fixture
async def looks(box: Sandbox, sqlite_url: str, clock: ManualClock) -> AsyncIterator[Looks]:
    async with open_store(settings_of(box, sqlite_url), Runtime(clock, TIMINGS)) as store:
        await store.queue.count({MISSED_WEBHOOKS: 2})
        reader = SituationReader(store.queue, store.approvals, TIMINGS, "p/production")
        yield Looks(reader, Notices(store.database, TIMINGS))


async def test_each_situation_is_sent_once(looks: Looks, clock: ManualClock) -> None:
    receiver = accepting()
    notifier = receiver.notifier(clock)
    assert [await looks.look(notifier) for _ in range(3)] == [["notice_sent"], [], []]
    (request,) = receiver.requests
    assert json.loads(request.content)["event"] == "webhooks_missed"


async def test_a_notice_is_tried_again_for_an_hour_and_then_dropped(looks: Looks, clock: ManualClock) -> None:
    receiver = Receiver(lambda _: httpx.Response(500))
    notifier, logged = receiver.notifier(clock), []
    for _ in range(20):
        logged += await looks.look(notifier)
        clock.advance(TIMINGS.notify_max_retry)
    assert logged[-1] == "notice_dropped"
    assert set(logged[:-1]) == {"notice_not_accepted"}
    assert len({request.headers["webhook-id"] for request in receiver.requests}) == 1


async def test_a_notice_arrives_once_the_receiver_is_back(looks: Looks, clock: ManualClock) -> None:
    receiver = Receiver(lambda _: httpx.Response(503))
    notifier = receiver.notifier(clock)
    await looks.look(notifier)
    receiver.answer = lambda _: httpx.Response(204)
    clock.advance(TIMINGS.notify_first_retry)
    assert await looks.look(notifier) == ["notice_sent"]


async def test_no_log_line_holds_the_address_of_the_receiver(looks: Looks, clock: ManualClock) -> None:
    def down(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError(f"cannot connect to {URL}")

    with capture_logs() as logged:
        await notify(looks.reader, looks.notices, Receiver(down).notifier(clock))
    assert logged
    assert "a-token" not in json.dumps(logged)


# The command.


@asynccontextmanager
async def listening(status: str) -> AsyncIterator[tuple[str, list[bytes]]]:
    bodies: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split()[0])
        bodies.append(await reader.readexactly(length))
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook/a-token", bodies
    finally:
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize(
    ("status", "reported"),
    [
        ("200 OK", (0, "the test notice was accepted")),
        ("404 Not Found", (1, "The notice was not accepted: status 404")),
    ],
)
async def test_notify_test_sends_a_notice_and_reports_the_answer(
    box: Sandbox, sqlite_url: str, tmp_path: Path, status: str, reported: tuple[int, str]
) -> None:
    async with listening(status) as (url, bodies):
        environment = {**settings_for(box, sqlite_url), "NOTIFY_URL": url, "NOTIFY_SECRET": SECRET}
        ended = await run("notify", "test", cwd=tmp_path, environment=environment)
    code, text = reported
    assert (ended.code, text in ended.out + ended.err) == (code, True)
    assert json.loads(bodies[0])["event"] == "test"
    assert "a-token" not in ended.out + ended.err


async def test_notify_test_shows_the_link_that_notices_will_have(box: Sandbox, sqlite_url: str, tmp_path: Path) -> None:
    async with open_store(settings_of(box, sqlite_url), Runtime.system()) as store:
        await store.queue.remember(PAGES_URL, "https://sync.example.com")
    async with listening("200 OK") as (url, bodies):
        environment = {**settings_for(box, sqlite_url), "NOTIFY_URL": url}
        await run("notify", "test", cwd=tmp_path, environment=environment)
    sent = json.loads(bodies[0])
    assert sent["facts"]["link"] == "https://sync.example.com/status"
    assert sent["text"].endswith(" https://sync.example.com/status")


async def test_notify_test_says_what_to_set(box: Sandbox, sqlite_url: str, tmp_path: Path) -> None:
    ended = await run("notify", "test", cwd=tmp_path, environment=settings_for(box, sqlite_url))
    assert (ended.code, "NOTIFY_URL is not set" in ended.err) == (1, True)


async def test_a_worker_whose_key_is_refused_says_so(box: Sandbox, sqlite_url: str) -> None:
    box.clerk.add_user("user_1")
    await box.lake.mutate([created("e1", "user_1", plan="pro")])
    quick = replace(TIMINGS, notify_interval=0.05)
    async with listening("200 OK") as (url, bodies):
        given = {"notify_url": url, "clerk_secret_key": "sk_test_wrong", "timings": quick}
        async with working(box, sqlite_url, **given) as parts, asyncio.timeout(60):
            await parts.store.queue.enqueue([WorkItem("user:user_1")])
            while not bodies:
                await parts.store.database.changed(0.05)
    assert (json.loads(bodies[0])["event"], json.loads(bodies[0])["cause"]) == ("work_stopped", "credentials_refused")

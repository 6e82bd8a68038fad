"""Notices of a running worker to receivers that are up, slow, down and lying: the work goes on, and nothing leaks."""

from __future__ import annotations

import asyncio
import contextlib
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest
from svix.webhooks import Webhook

from sync_worker.storage.approvals import HeldChange
from sync_worker.storage.counters import MISSED_WEBHOOKS
from sync_worker.storage.work_items import DeadLettered, WorkItem
from tests.builders import created
from tests.clock import TIMINGS
from tests.parts import opened, working

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from sync_worker.sandbox.server import Sandbox
    from tests.parts import Parts

pytestmark = pytest.mark.anyio
SECRET = "whsec_bm90aWNlLXNlY3JldC1mb3ItdGhlLXRlc3Rz"
ADDRESS, KEY, TOKEN = "ada@example.org", "sk_live_a1b2c3d4e5f6", "a long random text"
QUICK = replace(TIMINGS, notify_interval=0.05, notify_timeout=0.5, notify_first_retry=0.6, notify_max_retry=0.6)
PATIENT = replace(QUICK, notify_timeout=3600.0, notify_first_retry=7200.0, notify_max_retry=7200.0)
OK, LARGE = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 10_000_000


@dataclass
class Receiver:
    """A receiver on a real socket, which answers everything with `answer`; None never answers."""

    answer: bytes | None
    url: str = ""
    received: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def events(self) -> list[str]:
        return [json.loads(body)["event"] for _, body in self.received]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(120):
            while not condition():
                self.news.clear()
                await self.news.wait()


@asynccontextmanager
async def receiving(answer: bytes | None) -> AsyncIterator[Receiver]:
    receiver, done = Receiver(answer), asyncio.Event()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:-2]
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            receiver.received.append((headers, await reader.readexactly(int(headers["content-length"]))))
            receiver.news.set()
            if receiver.answer is None:
                await done.wait()
            else:
                writer.write(receiver.answer)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    receiver.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
    try:
        yield receiver
    finally:
        done.set()
        server.close()
        await server.wait_closed()


async def trouble(parts: Parts) -> None:
    """Let three things need a person, with an address and a key in every text that could carry them."""
    store = parts.store
    await store.queue.count({MISSED_WEBHOOKS: 4})
    await store.approvals.hold("document:p", [HeldChange("user:user_7", {"plan": "pro"}, {})], f"by {ADDRESS} {KEY}")
    await store.queue.enqueue([WorkItem(f"email:{ADDRESS}")])
    claims = await store.queue.claim_lookups(0, 100, 30.0)
    await store.queue.complete([DeadLettered(claim, "no_such_subject", f"{ADDRESS} {KEY}") for claim in claims])


async def work(box: Sandbox, parts: Parts) -> None:
    """Publish something, and return when Clerk has it."""
    box.clerk.add_user("user_1")
    await box.lake.mutate([created("e1", "user_1", plan="pro")])
    await parts.store.queue.enqueue([WorkItem("user:user_1")])
    async with asyncio.timeout(120):
        while (row := await parts.store.queue.get("user:user_1")) and row.pending:
            await parts.store.database.changed(0.05)
    assert box.clerk.users["user_1"]["public_metadata"]["plan"] == "pro"


@asynccontextmanager
async def troubled(box: Sandbox, database_url: str, **given: Any) -> AsyncIterator[Parts]:
    async with opened(box, database_url) as parts:
        await trouble(parts)
    given = {"notify_secret": SECRET, "admin_token": TOKEN, "timings": QUICK, **given}
    async with working(box, database_url, **given) as parts:
        yield parts


@pytest.mark.parametrize(
    "answer", [OK, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LARGE + bytes(LARGE)], ids=["up", "10 MB"]
)
async def test_a_receiver_that_accepts_hears_of_each_cause_once(box: Sandbox, sqlite_url: str, answer: bytes) -> None:
    async with (
        receiving(answer) as receiver,
        troubled(box, sqlite_url, notify_url=receiver.url, timings=PATIENT) as parts,
    ):
        await receiver.until(lambda: len(receiver.received) == 3)
        await work(box, parts)
        await parts.store.runs.remember_end(well=False)
        await receiver.until(lambda: len(receiver.received) > 3)  # it has looked once more, and sent only what is new
    reported = {"losses_held", "webhooks_missed", "subject_given_up", "reconcile_failed"}
    assert (len(receiver.received), set(receiver.events())) == (4, reported)
    for headers, body in receiver.received:
        Webhook(SECRET).verify(body, headers)
        assert not [secret for secret in (ADDRESS, KEY, SECRET, TOKEN, "sk_test", "user_7") if secret in body.decode()]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 500 Oops\r\nContent-Length: %d\r\n\r\n" % LARGE + bytes(LARGE),
        b"HTTP/1.1 302 Found\r\nLocation: {elsewhere}\r\nContent-Length: 0\r\n\r\n",
        b"hello\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * LARGE,
    ],
    ids=["500 and 10 MB", "redirect", "no HTTP", "endless header"],
)
async def test_a_receiver_that_lies_is_called_again_and_leads_nowhere(
    box: Sandbox, sqlite_url: str, answer: bytes
) -> None:
    async with (
        receiving(OK) as elsewhere,
        receiving(answer.replace(b"{elsewhere}", elsewhere.url.encode())) as receiver,
        troubled(box, sqlite_url, notify_url=receiver.url) as parts,
    ):
        await receiver.until(lambda: receiver.events().count("webhooks_missed") >= 3)
        await work(box, parts)
    ids = {headers["webhook-id"] for headers, body in receiver.received if b"webhooks_missed" in body}
    assert (len(ids), elsewhere.received) == (1, [])


async def test_work_goes_on_while_a_receiver_never_answers(box: Sandbox, sqlite_url: str) -> None:
    async with (
        receiving(None) as receiver,
        troubled(box, sqlite_url, notify_url=receiver.url, timings=PATIENT) as parts,
    ):
        await receiver.until(lambda: bool(receiver.received))
        await work(box, parts)
        assert len(receiver.received) == 1


async def test_work_goes_on_while_a_receiver_is_down_and_it_hears_of_everything_once_it_is_back(
    box: Sandbox, sqlite_url: str
) -> None:
    async with (
        receiving(b"HTTP/1.1 503 Down\r\nContent-Length: 0\r\n\r\n") as receiver,
        troubled(box, sqlite_url, notify_url=receiver.url) as parts,
    ):
        await receiver.until(lambda: len(receiver.received) >= 3)
        await work(box, parts)
        receiver.answer = OK
        before = len(receiver.received)
        await receiver.until(lambda: len(set(receiver.events()[before:])) == 3)


async def test_work_goes_on_while_nothing_listens_at_the_address(box: Sandbox, sqlite_url: str) -> None:
    async with receiving(OK) as receiver:
        pass  # its port is closed now
    async with troubled(box, sqlite_url, notify_url=receiver.url) as parts:
        await work(box, parts)
    assert receiver.received == []

"""The connections of a service: one for each request that is under way, kept for the next ones."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import httpx
import pytest

from sync_worker.errors import ServiceUnavailable
from sync_worker.transport import Connections, ServiceTransport
from tests.clock import CLOCK, TIMINGS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
HALF = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf"
STEPS = [
    *("connection.connect_tcp.started", "connection.connect_tcp.complete"),
    *("http11.send_request_headers.started", "http11.send_request_headers.complete"),
    *("http11.send_request_body.started", "http11.send_request_body.complete"),
    *("http11.receive_response_headers.started", "http11.receive_response_headers.complete"),
    *("http11.receive_response_body.started", "http11.receive_response_body.complete"),
    *("http11.response_closed.started", "http11.response_closed.complete"),
]
"""The steps of a request, as httpcore names them for `trace`."""


@dataclass
class Server:
    """Answers each request, once it is allowed to, and counts connections. It hangs up after an answer cut short."""

    port: int = 0
    answer: bytes = OK
    opened: int = 0
    closed: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    requested: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    allowed: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        with suppress(ConnectionError):  # a client that gives up resets its connection
            while await reader.read(65_536):
                self.requested.release()
                await self.allowed.wait()
                writer.write(self.answer)
                if self.answer is HALF:
                    break
        self.closed.release()
        writer.close()


@asynccontextmanager
async def connected(most: int, kept_seconds: float = 30.0) -> AsyncIterator[tuple[httpx.AsyncClient, Server]]:
    server = Server()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    transport = Connections(most, kept_seconds)
    async with listening, httpx.AsyncClient(transport=transport, base_url=url, timeout=60) as client:
        yield client, server


async def test_requests_at_once_have_a_connection_each_and_those_after_them_reuse_one() -> None:
    async with connected(3) as (client, server):
        for _ in range(2):
            server.allowed.clear()
            requests = [asyncio.create_task(client.get("/")) for _ in range(7)]
            for _ in range(3):
                await server.requested.acquire()
            assert server.requested.locked()
            server.allowed.set()
            assert [answer.text for answer in await asyncio.gather(*requests)] == ["ok"] * 7
            for _ in range(4):
                await server.requested.acquire()
        for _ in range(5):
            await client.get("/")
        assert server.opened == 3


async def test_a_request_that_waits_too_long_for_a_connection_was_never_sent() -> None:
    async with connected(1) as (client, server):
        first = asyncio.create_task(client.get("/"))
        await server.requested.acquire()
        with pytest.raises(httpx.PoolTimeout):
            await client.get("/", timeout=httpx.Timeout(60, pool=0.001))
        server.allowed.set()
        assert (await first).text == "ok"


async def test_a_response_that_breaks_off_gives_its_connection_back() -> None:
    async with connected(1) as (client, server):
        server.allowed.set()
        server.answer = HALF
        for _ in range(3):
            with pytest.raises(httpx.RemoteProtocolError):
                await client.get("/")
        server.answer = OK
        assert (await client.get("/")).text == "ok"


async def test_a_request_that_is_given_up_gives_its_connection_back() -> None:
    async with connected(1) as (client, server):
        for _ in range(3):
            request = asyncio.create_task(client.get("/"))
            await server.requested.acquire()
            request.cancel()
            await asyncio.wait([request])
        server.allowed.set()
        assert (await client.get("/")).text == "ok"


async def test_a_service_whose_responses_break_off_loses_no_connection_by_it() -> None:
    async with connected(1) as (client, server):
        service = ServiceTransport("Clerk", client._transport, {}, lambda *_: None, CLOCK, TIMINGS)
        server.allowed.set()
        server.answer = HALF
        request = client.build_request("GET", "/", timeout=httpx.Timeout(60, pool=1))
        with pytest.raises(ServiceUnavailable, match="RemoteProtocolError"):
            await service.handle_async_request(request)
        server.answer = OK
        assert (await service.handle_async_request(request)).text == "ok"


@pytest.mark.parametrize("step", STEPS)
async def test_a_request_that_is_cancelled_at_any_step_leaves_its_slot_to_the_next(step: str) -> None:
    passed: list[str] = []

    async def cancel(event: str, _: object) -> None:
        passed.append(event)
        if event == step:
            request.cancel()

    async with connected(1) as (client, server):
        server.allowed.set()
        request = asyncio.create_task(client.get("/", extensions={"trace": cancel}))
        await asyncio.wait([request])
        assert step in passed
        assert (await client.get("/")).text == "ok"


async def test_a_stream_keeps_its_connection_until_it_is_closed() -> None:
    async with connected(2) as (client, server):
        server.allowed.set()
        async with client.stream("GET", "/") as response:
            await client.get("/")
            assert server.opened == 2
            assert await response.aread() == b"ok"
        await client.get("/")
        await client.get("/")
        assert server.opened == 2


async def test_a_connection_that_nobody_used_for_long_is_closed() -> None:
    async with connected(2, kept_seconds=-1) as (client, server):
        server.allowed.set()
        await client.get("/")
        await server.closed.acquire()
        await client.get("/")
        assert server.opened == 2

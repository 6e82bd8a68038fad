"""The limits on unauthenticated clients, over real sockets."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from sync_worker.web.protocol import CONNECTIONS, HEAD_LIMIT, bounded
from tests.clock import TIMINGS
from tests.oracle import GUARD
from tests.raw import connected

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

    from sync_worker.domain.timings import Timings

pytestmark = pytest.mark.anyio
POST = b"POST / HTTP/1.1\r\nHost: x\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
PIECE = b"x" * 16_384
HEADERS = b"a: b\r\n" * 2_500
ARRIVAL = 0.3
"""Seconds that a request may take to arrive at the hasty server."""
WHOLE = POST + b"Content-Length: 3\r\n\r\nabc"
AT_WORK = WHOLE.replace(b"Host: x", b"Work: 1")


@dataclass
class Work:
    """A request that a test holds up."""

    begun: asyncio.Event = field(default_factory=asyncio.Event)
    done: asyncio.Event = field(default_factory=asyncio.Event)


async def size(request: Request) -> PlainTextResponse:
    body = await request.body()
    await asyncio.sleep(float(request.headers.get("sleep", "0")))
    if "work" in request.headers:
        request.app.state.at_work.set()
        await request.app.state.done.wait()
    return PlainTextResponse(str(len(body)))


@asynccontextmanager
async def served(timings: Timings, connections: int = CONNECTIONS, work: Work | None = None) -> AsyncIterator[int]:
    """A server that answers with the size of the body, after the requested delay."""
    app = Starlette(routes=[Route("/", size, methods=["POST"])])
    work = work or Work()
    app.state.at_work, app.state.done = work.begun, work.done
    protocol = bounded(timings, connections)
    config = uvicorn.Config(app, http=protocol, log_config=None, lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        running = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:
            await asyncio.sleep(0.01)
        yield listener.getsockname()[1]
        server.should_exit = True
        await running


@pytest.fixture(scope="module")
async def port() -> AsyncIterator[int]:
    """A server that drops nobody for being slow while a test waits."""
    async with served(replace(TIMINGS, request_arrival=2 * GUARD)) as port:
        yield port


@pytest.fixture(scope="module")
async def hasty_port() -> AsyncIterator[int]:
    """A server with a short timeout for the arrival of a request."""
    async with served(replace(TIMINGS, request_arrival=ARRIVAL)) as port:
        yield port


@pytest.mark.parametrize(
    ("begin", "endless"),
    [
        (b"POST /", PIECE),
        (POST + b"a: ", PIECE),
        (POST, HEADERS),
        (CHUNKED + b"3;", PIECE),
        (CHUNKED + b"0\r\n", HEADERS),
        (CHUNKED + b"0\r\na: ", PIECE),
        (b"", b"\r\n" * 8_192),
        (WHOLE + POST, HEADERS),
    ],
    ids=["address", "header", "headers", "extension", "trailers", "trailer", "nothing", "second request"],
)
async def test_a_head_without_end_is_cut_off(port: int, begin: bytes, endless: bytes) -> None:
    async with connected(port) as line:
        sending = asyncio.create_task(line.send(begin, *(1000 * [endless])))
        assert await line.closed(GUARD)
        await sending


async def test_a_head_that_is_only_large_is_answered(port: int) -> None:
    async with connected(port) as line:
        await line.send(POST + b"a: " + b"x" * (HEAD_LIMIT // 2) + b"\r\nContent-Length: 3\r\n\r\nabc")
        assert (await line.answer(GUARD)).body == b"3"


@pytest.mark.parametrize("piece", [b"4000\r\n" + PIECE + b"\r\n", b"1\r\nx\r\n" * 20_000])
async def test_a_body_may_be_larger_than_a_head(port: int, piece: bytes) -> None:
    async with connected(port) as line:
        await line.send(CHUNKED, *(10 * [piece]), b"0\r\n\r\n")
        assert int((await line.answer(GUARD)).body) > 2 * HEAD_LIMIT


@pytest.mark.parametrize(
    "begun", [b"", b"\r\n", b"POST", POST, POST + b"Content-Length: 9\r\n\r\nabc", CHUNKED + b"3\r\nabc\r\n"]
)
async def test_a_request_that_does_not_arrive_in_time_is_dropped(hasty_port: int, begun: bytes) -> None:
    began = time.monotonic()
    async with connected(hasty_port) as line:
        await line.send(begun)
        assert await line.closed(GUARD)
    assert time.monotonic() - began >= ARRIVAL, "it was given less time than it has"


async def test_a_client_that_sends_byte_by_byte_is_dropped_too(hasty_port: int) -> None:
    async with connected(hasty_port) as line:
        sending = asyncio.create_task(line.send(POST, *(1000 * [b"a: b\r\n"]), pause=0.02))
        assert await line.closed(GUARD)
        sending.cancel()


async def test_the_timeout_is_per_request_and_excludes_the_processing(hasty_port: int) -> None:
    slow = WHOLE.replace(b"Host: x", b"Sleep: %.1f" % (ARRIVAL + 0.1))
    async with connected(hasty_port, slow) as line:
        for _ in range(2):
            assert (await line.answer(GUARD)).body == b"3"
            await line.send(slow)
        assert (await line.answer(GUARD)).body == b"3"


@pytest.mark.parametrize("begun", [b"", POST, POST + b"Content-Length: 9\r\n\r\nabc"], ids=["nothing", "head", "body"])
async def test_clients_that_send_slowly_keep_nobody_out(begun: bytes) -> None:
    async with served(replace(TIMINGS, request_arrival=2 * GUARD), 3) as port, AsyncExitStack() as stack:
        slow = [await stack.enter_async_context(connected(port, begun)) for _ in range(4)]
        assert await slow[0].closed(GUARD)
        async with connected(port, WHOLE) as line:
            assert (await line.answer(GUARD)).body == b"3"
        assert await slow[1].closed(GUARD)


async def test_a_connection_that_waits_for_its_answer_is_not_dropped_for_a_new_one() -> None:
    work = Work()
    async with served(TIMINGS, 2, work) as port, connected(port, AT_WORK) as first:
        await work.begun.wait()
        async with connected(port) as idle, connected(port, WHOLE) as line:
            assert (await line.answer(GUARD)).body == b"3"
            assert await idle.closed(GUARD)
        work.done.set()
        assert (await first.answer(GUARD)).body == b"3"


async def test_when_every_place_is_at_work_a_new_connection_is_closed() -> None:
    work = Work()
    async with served(TIMINGS, 1, work) as port, connected(port, AT_WORK) as first:
        await work.begun.wait()
        async with connected(port, WHOLE) as line:
            assert await line.closed(GUARD)
        work.done.set()
        assert (await first.answer(GUARD)).body == b"3"


async def test_pipelined_requests_are_answered_one_by_one(port: int) -> None:
    async with connected(port) as line:
        await line.send(3 * WHOLE)
        assert [(await line.answer(GUARD)).body for _ in range(3)] == [b"3"] * 3

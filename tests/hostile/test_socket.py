"""A real process on a real port, and bytes that no HTTP client would send: it answers by name, or hangs up."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

import pytest

from sync_worker.cli.processes import SECRET, settings_for
from sync_worker.sandbox.server import Sandbox
from sync_worker.webhooks.signatures import SANITY_HEADER, sign_sanity
from tests.hostile.bodies import MARK
from tests.nursery import listening
from tests.raw import Answer, connected

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.anyio

BODY = json.dumps(
    {
        "operation": "update",
        "projectId": "sandbox",
        "dataset": "production",
        "id": "e1",
        "type": "entitlement",
        "rev": "r1",
        "updatedAt": "2026-05-01T12:00:00Z",
        "before": None,
        "after": {"clerkUserId": "user_1", "note": MARK},
    }
).encode()
POST = b"POST /webhooks/sanity HTTP/1.1\r\nHost: " + MARK.encode() + b"\r\n"
SIZE = b"Content-Length: %d\r\n" % len(BODY)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CHUNKS = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
WEBSOCKET = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eHl6\r\n"


def signed(body: bytes) -> bytes:
    return f"{SANITY_HEADER}: {sign_sanity(body, SECRET, 1_767_225_600_000)}\r\n".encode()


def request(*headers: bytes, body: bytes = BODY) -> bytes:
    return POST + signed(body) + b"".join(headers) + b"\r\n"


@dataclass(frozen=True)
class Process:
    port: int
    log: Path

    async def says(self, *pieces: bytes, seconds: float = 5.0) -> Answer:
        async with connected(self.port) as line:
            await line.send(*pieces)
            return await line.answer(seconds)


@pytest.fixture(scope="module")
async def web(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Process]:
    """A web process. When all tests are done, nothing in its log may be a failure of its own."""
    log = tmp_path_factory.mktemp("web") / "log"
    async with Sandbox() as box:
        environment = settings_for(box, f"sqlite:///{log.parent / 'work.db'}")
        async with listening("web", environment, log) as url:
            process = Process(int(url.rpartition(":")[2]), log)
            yield process
            assert (await process.says(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")).status == 200
    reported = log.read_text(encoding="utf-8")
    assert "Traceback" not in reported
    assert SECRET not in reported


ACCEPTED = {
    "with a length": request(SIZE) + BODY,
    "in chunks": request(CHUNKED) + CHUNKS,
    "in chunks of one byte": request(CHUNKED) + b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\n\r\n",
    "with trailers": request(CHUNKED) + CHUNKS[:-2] + b"X-Late: 1\r\n\r\n",
    "with another type": request(SIZE, b"Content-Type: text/html; charset=utf-7\r\n") + BODY,
    "with an encoding that is not so": request(SIZE, b"Content-Encoding: gzip\r\n") + BODY,
    "with headers in latin-1": request(SIZE, b"X-Name: \xe9\xff\r\n") + BODY,
    "with a thousand headers": request(SIZE, b"X-Name: 1\r\n" * 1000) + BODY,
    "by an old client": request(SIZE).replace(b"HTTP/1.1", b"HTTP/1.0") + BODY,
    "announced": request(SIZE, b"Expect: 100-continue\r\n"),
}


@pytest.mark.parametrize("how", ACCEPTED)
async def test_a_signed_delivery_is_accepted_however_it_is_sent(web: Process, how: str) -> None:
    async with connected(web.port) as line:
        await line.send(ACCEPTED[how])
        answer = await line.answer()
        if answer.status == 100:
            await line.send(BODY)
            answer = await line.answer()
    assert (answer.status, answer.body) == (202, b'{"ok":true}')


REFUSED = {
    "no signature": (401, POST + SIZE + b"\r\n" + BODY),
    "a signature of another body": (401, request(SIZE, body=b"{}") + BODY),
    "a signature that is no ASCII": (401, POST + SIZE + b"sanity-webhook-signature: \xff\xfe\r\n\r\n" + BODY),
    "a wrong signature before the right one": (
        401,
        POST + b"sanity-webhook-signature: " + MARK.encode() + b"\r\n" + signed(BODY) + SIZE + b"\r\n" + BODY,
    ),
    "no body": (400, request(b"Content-Length: 0\r\n", body=b"")),
    "no body and no length": (400, request(body=b"")),
    "a body without a length": (400, request(body=b"") + BODY),
    "two equal lengths": (400, request(SIZE, SIZE) + BODY),
    "two different lengths": (400, request(SIZE, b"Content-Length: 5\r\n") + BODY),
    "a length and chunks": (400, request(b"Content-Length: 5\r\n", CHUNKED) + CHUNKS),
    "chunks and a length": (400, request(CHUNKED, b"Content-Length: 5\r\n") + CHUNKS),
    "an unknown transfer encoding": (400, request(b"Transfer-Encoding: gzip\r\n") + BODY),
    "chunks inside another encoding": (400, request(b"Transfer-Encoding: chunked, gzip\r\n") + CHUNKS),
    "a negative length": (400, request(b"Content-Length: -1\r\n") + BODY),
    "a length with a plus": (400, request(b"Content-Length: +%d\r\n" % len(BODY)) + BODY),
    "a length beyond all numbers": (400, request(b"Content-Length: 99999999999999999999\r\n") + BODY),
    "a negative chunk": (400, request(CHUNKED) + b"-5\r\n" + BODY),
    "a chunk beyond all numbers": (400, request(CHUNKED) + b"fffffffffffffffff\r\n" + BODY),
    "a NUL in a header": (400, request(SIZE, b"X-Name: a\x00b\r\n") + BODY),
    "a folded header": (400, request(SIZE, b"X-Name: a\r\n b\r\n") + BODY),
    "a space before a colon": (400, request(SIZE, b"X-Name : a\r\n") + BODY),
    "lines that end without CR": (400, request(SIZE).replace(b"\r\n", b"\n") + BODY),
    "too large a length": (413, request(b"Content-Length: 9999999\r\n") + b"x" * 300_000),
    "too many chunks": (413, request(CHUNKED) + (b"10000\r\n" + b"x" * 65_536 + b"\r\n") * 5),
    "an unknown method": (400, b"BREW / HTTP/1.1\r\nHost: x\r\n\r\n"),
    "another protocol": (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 99),
    "HTTP/2": (400, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "HTTP/9.9": (400, b"GET /healthz HTTP/9.9\r\nHost: x\r\n\r\n"),
    "a tunnel": (400, b"CONNECT evil:80 HTTP/1.1\r\nHost: evil\r\n\r\n"),
    "a path that is no ASCII": (400, b"GET /h\xff HTTP/1.1\r\nHost: x\r\n\r\n"),
    "a query that is no ASCII": (400, b"GET /healthz/?\xff HTTP/1.1\r\nHost: x\r\n\r\n"),
    "a path with a NUL": (404, b"GET /%00%ff%2e%2e HTTP/1.1\r\nHost: x\r\n\r\n"),
    "a path outside": (404, b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n"),
    "two slashes too many": (404, b"POST /webhooks/sanity// HTTP/1.1\r\nHost: evil\r\nContent-Length: 0\r\n\r\n"),
    "everything": (404, b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n"),
    "another method": (405, b"GET /webhooks/sanity HTTP/1.1\r\nHost: x\r\n\r\n"),
    "a method in small letters": (400, b"post /webhooks/sanity HTTP/1.1\r\nHost: x\r\n\r\n"),
    "a WebSocket": (405, b"GET /webhooks/clerk HTTP/1.1\r\nHost: x\r\n" + WEBSOCKET + b"\r\n"),
}


@pytest.mark.parametrize("what", REFUSED)
async def test_what_is_wrong_is_refused_and_never_repeated(web: Process, what: str) -> None:
    status, raw = REFUSED[what]
    answer = await web.says(raw)
    assert answer.status == status, answer
    assert MARK.encode() not in answer.head + answer.body
    assert b"evil" not in answer.head + answer.body


@pytest.mark.parametrize("inside", [BODY, b"\x00" * 150_000_000], ids=["delivery", "bomb"])
async def test_a_compressed_body_is_not_unpacked(web: Process, inside: bytes) -> None:
    body = gzip.compress(inside)
    headers = b"Content-Encoding: gzip\r\nContent-Length: %d\r\n" % len(body)
    answer = await web.says(request(headers, body=body) + body)
    assert (answer.status, answer.body) == (400, b'{"error":"bad_body"}')


async def test_a_second_request_hidden_in_the_first_is_not_served(web: Process) -> None:
    hidden = request(SIZE) + BODY
    for first in (
        POST + b"Content-Length: 3\r\n" + CHUNKED + b"\r\n0\r\n\r\n" + hidden,
        POST + b"Content-Length: %d\r\nContent-Length: 0\r\n\r\n" % len(hidden) + hidden,
        POST + b"Transfer-Encoding : chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + hidden,
    ):
        async with connected(web.port) as line:
            await line.send(first)
            assert (await line.answer()).status == 400
            assert await line.closed()


async def test_requests_sent_ahead_are_answered_in_their_order(web: Process) -> None:
    requested = [202, 401, 400, 404, 200] * 40
    pieces = {
        202: request(SIZE) + BODY,
        401: POST + SIZE + b"\r\n" + BODY,
        400: request(b"Content-Length: 2\r\n", body=b"[]") + b"[]",
        404: b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n",
        200: b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    }
    async with connected(web.port) as line:
        await line.send(b"".join(pieces[status] for status in requested))
        assert [(await line.answer()).status for _ in requested] == requested


async def test_a_body_that_comes_byte_by_byte_is_read_to_its_end(web: Process) -> None:
    async with connected(web.port) as line:
        await line.send(request(SIZE), *(bytes([byte]) for byte in BODY), pause=0.001)
        assert (await line.answer()).status == 202


async def test_many_who_never_finish_do_not_hold_up_a_delivery(web: Process) -> None:
    begun = [b"", POST, request(SIZE) + BODY[:9], request(CHUNKED) + b"99\r\n{"]
    async with AsyncExitStack() as stack:
        for n in range(200):
            line = await stack.enter_async_context(connected(web.port))
            await line.send(begun[n % len(begun)])
        started = time.monotonic()
        assert (await web.says(request(SIZE) + BODY)).status == 202
        assert time.monotonic() - started < 5


async def test_a_head_that_never_ends_is_cut_off(web: Process) -> None:
    async with connected(web.port) as line:
        await line.send(POST, *(b"X-Name: %b\r\n" % MARK.encode() for _ in range(50_000)))
        assert await line.closed()


async def test_a_client_that_leaves_in_the_middle_leaves_nothing_behind(web: Process) -> None:
    raw = request(SIZE) + BODY
    for end in (1, 40, len(raw) - len(BODY), len(raw) - 1):
        async with connected(web.port) as line:
            await line.send(raw[:end])
    assert (await web.says(raw)).status == 202


def mutated(raw: bytes, random: Random) -> bytes:
    """Change a request here and there, as transport errors and fuzzers do."""
    changed = bytearray(raw)
    for _ in range(random.randint(1, 6)):
        at, length = random.randrange(len(changed)), random.choice((0, 1, 1, 2, 8, 64))
        piece = changed[at : at + length]
        changed[at : at + length] = random.choice(
            (
                random.randbytes(length),
                piece * 2,
                piece[::-1],
                bytes(byte ^ (1 << random.randrange(5)) for byte in piece),
                random.choice((b"\r\n", b"\x00", b": ", b"\xff", b"%0d%0a", b"chunked", b"-1", b"9" * 30)),
            )
        )
    return bytes(changed[: random.choice((len(changed), random.randrange(len(changed)) + 1))])


@pytest.mark.parametrize("seed", range(5))
async def test_changed_requests_are_answered_by_name_or_not_at_all(web: Process, seed: int) -> None:
    random = Random(seed)
    raws = [request(SIZE) + BODY, request(CHUNKED) + CHUNKS, request(SIZE, b"Content-Type: text/html\r\n") + BODY]
    sent = [mutated(random.choice(raws), random) for _ in range(100)]
    answers = await asyncio.gather(*(web.says(raw, seconds=0.5) for raw in sent))
    known = {0, 202, 400, 401, 404, 405, 413}
    assert [(raw, answer) for raw, answer in zip(sent, answers, strict=True) if answer.status not in known] == []
    assert [answer for answer in answers if MARK.encode() in answer.head + answer.body] == []
    assert {answer.status for answer in answers} >= {0, 400, 401}

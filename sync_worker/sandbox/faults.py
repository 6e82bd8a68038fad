"""Faults that can be switched on for a service: errors, lost connections, delays and held requests.

A fault is chosen by name. Responses that differ between the services (bodies of 401, 409, 429 …) come from the service.
The middleware also logs requests, with the status that the caller saw.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from random import Random

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from sync_worker.sandbox.traffic import Traffic

CONTROL = "/_sandbox"

RESET = "reset"
"""The connection is reset before anything is applied."""
LOST = "lost"
"""The request is applied, then the connection closes without a response."""
TRUNCATED = "truncated"
"""The request is applied; the response is cut off in the middle."""
HANG = "hang"
"""Nothing is applied, and there is no response until `release`."""
HOLD = "hold"
"""The request is held until `release`, and then applied even if the caller is gone."""
GARBLED = "garbled"
"""The request is applied; the line in the middle of the response is not JSON."""
ERROR_LINE = "error_line"
"""The request is applied; the second half of the response's lines is replaced by one that reports an error."""
BEHAVIOURS = (RESET, LOST, TRUNCATED, GARBLED, ERROR_LINE, HANG, HOLD)

HTML = b"<html><head><title>502 Bad Gateway</title></head><body><h1>Bad Gateway</h1></body></html>"


@dataclass(frozen=True, slots=True)
class Answer:
    """A canned response that replaces the real one; nothing is applied."""

    status: int
    body: bytes
    content_type: str = "application/json"
    retry_after: float | None = None

    @classmethod
    def json(cls, status: int, body: Any, *, retry_after: float | None = None) -> Answer:
        """Make a response with a JSON body."""
        return cls(status, json.dumps(body).encode(), retry_after=retry_after)


BAD_GATEWAY = Answer(502, HTML, "text/html")


@dataclass
class Rule:
    """When a fault applies: to the next `times` matching requests, or to a fraction of them until cleared."""

    fault: str
    times: int | None = None
    fraction: float = 1.0
    method: str | None = None
    path_prefix: str = ""
    retry_after: float | None = None

    def matches(self, method: str, path: str) -> bool:
        """Whether the rule covers such a request."""
        return self.method in (None, method) and path.startswith(self.path_prefix)


@dataclass
class Faults:
    """The faults of one service.

    `latency` delays every response, in seconds; the request is applied even if the caller disconnects meanwhile.
    `answers` are the canned responses by name: rate_limited, unauthorized, locked, internal, bad_gateway, unavailable,
    error_in_ok, channel_error, no_dataset. `hits` counts the requests of each fault. `held` is how many requests are
    held now.
    """

    answers: Mapping[str, Answer]
    random: Random
    latency: float = 0.0
    rules: list[Rule] = field(default_factory=list)
    hits: Counter[str] = field(default_factory=Counter)
    held: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def next(self, fault: str, times: int = 1, **where: Any) -> None:
        """Apply the fault to the next requests; `where` is method, path_prefix, retry_after."""
        self._add(Rule(fault, times=times, **where))

    def some(self, fault: str, fraction: float, **where: Any) -> None:
        """Apply the fault to a fraction of all requests, until `clear`."""
        self._add(Rule(fault, fraction=fraction, **where))

    def hold(self, times: int | None = None, **where: Any) -> None:
        """Hold the next `times` requests, or all, on arrival; `where` is method, path_prefix."""
        self._add(Rule(HOLD, times=times, **where))

    def release(self) -> None:
        """Release the requests that are held or hang, and stop holding new ones."""
        self.rules = [rule for rule in self.rules if rule.fault not in (HANG, HOLD)]
        self.gate.set()
        self.gate = asyncio.Event()

    def _add(self, rule: Rule) -> None:
        if rule.fault not in BEHAVIOURS and rule.fault not in self.answers:
            message = f"no such fault: {rule.fault}; there are {', '.join((*BEHAVIOURS, *self.answers))}"
            raise ValueError(message)
        self.rules.append(rule)

    def clear(self) -> None:
        """Remove all faults, and release the requests that are held or hang."""
        self.latency = 0.0
        self.release()
        self.rules.clear()
        self.hits.clear()

    def choose(self, method: str, path: str) -> Rule | None:
        """Return the rule that applies to this request, and count it down."""
        for rule in self.rules:
            if not rule.matches(method, path) or self.random.random() >= rule.fraction:
                continue
            if rule.times is not None:
                rule.times -= 1
                if rule.times <= 0:
                    self.rules.remove(rule)
            self.hits[rule.fault] += 1
            return rule
        return None

    async def keep(self, gate: asyncio.Event) -> None:
        """Wait until the gate opens; the request counts as held until then."""
        self.held += 1
        try:
            await gate.wait()
        finally:
            self.held -= 1


class FaultyService:
    """ASGI middleware that logs every request and applies the faults. Control routes pass unchanged."""

    def __init__(self, app: ASGIApp, faults: Faults, traffic: Traffic) -> None:
        self.app = app
        self.faults = faults
        self.traffic = traffic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["path"].startswith(CONTROL):
            await self.app(scope, receive, send)
            return
        keys = tuple(key for key, _ in parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        request = self.traffic.start(scope["method"], scope["path"], keys)
        rule, gate = self.faults.choose(request.method, request.path), self.faults.gate
        request.fault = rule.fault if rule else ""

        async def log_status(message: Message) -> None:
            if message["type"] == "http.response.start":
                request.status = message["status"]
            await send(message)

        try:
            if self.faults.latency:
                receive = await _arrived(receive)
                await asyncio.sleep(self.faults.latency)  # of the event loop, as a network would
            await self._serve(rule, gate, scope, receive, log_status)
        finally:
            self.traffic.finish(request)

    async def _serve(self, rule: Rule | None, gate: asyncio.Event, scope: Scope, receive: Receive, send: Send) -> None:
        if rule is None:
            await self.app(scope, receive, send)
        elif rule.fault == RESET:
            await _break(scope, receive)
        elif rule.fault == HANG:
            await gate.wait()
            await _end(scope, receive)
        elif rule.fault == HOLD:
            receive = await _arrived(receive)
            await self.faults.keep(gate)
            await self.app(scope, receive, send)
        elif rule.fault == LOST:
            await self.app(scope, receive, _ignore)
            await _end(scope, receive)
        elif rule.fault == TRUNCATED:
            await self.app(scope, receive, _half(send))
            await _end(scope, receive)
        elif rule.fault in _EDITS:
            await self.app(scope, receive, _edited(send, _EDITS[rule.fault]))
        else:
            await _answer(self.faults.answers[rule.fault], rule.retry_after, send)


async def _arrived(receive: Receive) -> Receive:
    """Wait for the whole request; return a `receive` that replays it, even if the caller disconnects meanwhile."""
    messages: deque[Message] = deque()
    while not messages or messages[-1].get("more_body"):
        messages.append(await receive())

    async def replay() -> Message:
        return messages.popleft() if messages else await receive()

    return replay


async def _ignore(_: Message) -> None:
    pass


def _half(send: Send) -> Send:
    """Return a `send` that passes on only the first half of a body."""

    async def halving(message: Message) -> None:
        if message["type"] == "http.response.body":
            body = message.get("body", b"")
            message = {**message, "body": body[: len(body) // 2], "more_body": True}
        await send(message)

    return halving


def _edited(send: Send, edit: Callable[[list[bytes]], list[bytes]]) -> Send:
    """Return a `send` that edits the lines of a body; its length changes, so it has no Content-Length."""

    async def editing(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [(name, value) for name, value in message["headers"] if name != b"content-length"]
            message = {**message, "headers": headers}
        elif message.get("body"):
            message = {**message, "body": b"".join(edit(message["body"].splitlines(keepends=True)))}
        await send(message)

    return editing


def _garble(lines: list[bytes]) -> list[bytes]:
    middle = len(lines) // 2
    return [*lines[:middle], lines[middle][: len(lines[middle]) // 2] + b"\n", *lines[middle + 1 :]]


def _break_off(lines: list[bytes]) -> list[bytes]:
    return [*lines[: len(lines) // 2], b'{"error":{"description":"the stream broke off"},"statusCode":500}\n']


_EDITS: Mapping[str, Callable[[list[bytes]], list[bytes]]] = {GARBLED: _garble, ERROR_LINE: _break_off}


async def _break(scope: Scope, receive: Receive) -> None:
    """Reset the connection; `server` puts the transport into the scope."""
    transport = scope["state"]["transport"]
    # With a linger time of 0, closing sends a reset.
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
    await _disconnected(receive)


async def _end(scope: Scope, receive: Receive) -> None:
    """Close the connection after what was sent."""
    scope["state"]["transport"].close()
    await _disconnected(receive)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _answer(answer: Answer, retry_after: float | None, send: Send) -> None:
    headers = [(b"content-type", answer.content_type.encode()), (b"content-length", b"%d" % len(answer.body))]
    wait = answer.retry_after if retry_after is None else retry_after
    if wait is not None:
        headers.append((b"retry-after", f"{wait:g}".encode()))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})

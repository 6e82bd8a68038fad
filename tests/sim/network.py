"""The network between the worker and both services: latency, and all failures of a request or a response.

A request in flight arrives even if its sender has given up; a response can be lost after the change was made. `Weather`
sets the rates.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx

from tests.sim.quick import response_of

if TYPE_CHECKING:
    from random import Random

    from tests.sim.lake import Read
    from tests.sim.machine import Process
    from tests.sim.world import World

HTML = b"<html><head><title>502 Bad Gateway</title></head></html>"


@dataclass(frozen=True)
class Reply:
    """An answer on its way back."""

    status: int
    body: bytes
    retry_after: float | None = None
    read: Read | None = None

    @classmethod
    def json(cls, status: int, body: Any, *, retry_after: float | None = None) -> Reply:
        return cls(status, json.dumps(body).encode(), retry_after)

    def response(self, request: httpx.Request) -> httpx.Response:
        headers = {"content-type": "application/json"}
        if self.retry_after is not None:
            headers["retry-after"] = f"{self.retry_after:g}"
        return response_of(self.status, headers, self.body, request)


FATES = ("refused", "lost_request", "lost_answer", "truncated", "garbled", "error", "busy", "slow", "error_in_ok")


@dataclass
class Weather:
    """How often each fate befalls a request, as a fraction, by service; what is left goes well."""

    fates: dict[str, dict[str, float]] = field(default_factory=dict)

    def draw(self, service: str, random: Random) -> str:
        left = random.random()
        for fate, fraction in self.fates.get(service, {}).items():
            left -= fraction
            if left < 0:
                return fate
        return "well"


class SimTransport(httpx.AsyncBaseTransport):
    """The inner transport of one process to one service, below the worker's own."""

    def __init__(self, process: Process, service: str) -> None:
        self.process = process
        self.service = service

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.process.must_live()
        world = self.process.world
        call = world.watch.sent(self.process, self.service, request)
        try:
            reply = await Exchange(world, self.process, self.service, request).reply()
            world.watch.answered(call, reply)
        finally:
            world.watch.ended(call)
        return reply.response(request)


class Exchange:
    """One request and its answer."""

    def __init__(self, world: World, process: Process, service: str, request: httpx.Request) -> None:
        self.world = world
        self.process = process
        self.service = service
        self.request = request
        self.loop = world.loop
        self.answer: asyncio.Future[Reply] = self.loop.create_future()
        self.fate = world.weather.draw(service, world.random)

    async def reply(self) -> Reply:
        """Send the request and wait for the answer, at most as long as the client's timeout."""
        random = self.world.random
        if self.fate == "refused":
            await asyncio.sleep(random.uniform(0.0, 0.1))
            raise httpx.ConnectError("connection refused")
        timer = self.loop.call_later(self.request.extensions["timeout"]["read"], self._fail, httpx.ReadTimeout("slow"))
        if self.fate == "lost_request":
            if random.random() < 0.5:
                self.loop.call_later(random.uniform(0.01, 3.0), self._fail, httpx.ReadError("reset"))
        else:
            out = random.uniform(0.5, 10.0) if self.fate == "slow" else random.uniform(0.005, 0.08)
            self.loop.call_later(out, self._arrive)
        try:
            return await self.answer
        finally:
            timer.cancel()

    def _arrive(self) -> None:
        """Let the service answer; what it does counts even when nobody waits for it any more."""
        random = self.world.random
        reply = self._served()
        if self.fate == "lost_answer":
            if random.random() < 0.5:
                self.loop.call_later(random.uniform(0.01, 3.0), self._fail, httpx.ReadError("reset"))
            return
        if self.fate == "truncated":
            self._fail(httpx.RemoteProtocolError("peer closed connection without sending complete message body"))
            return
        if self.fate == "garbled":
            reply = Reply(reply.status, reply.body[: random.randrange(len(reply.body) or 1)])
        self.loop.call_later(random.uniform(0.005, 0.08), self._succeed, reply)

    def _served(self) -> Reply:
        random = self.world.random
        if self.fate == "error":
            status = random.choice((500, 502, 503, 504))
            return Reply(status, HTML, random.choice((None, None, 1.0, 7.0)))
        if self.fate == "error_in_ok":
            return Reply.json(200, {"errors": [{"code": "internal_clerk_error", "message": "sorry"}], "error": "sorry"})
        if self.fate == "busy":
            return self.world.busy(self.service)
        return self.world.serve(self.service, self.request)

    def _succeed(self, reply: Reply) -> None:
        if not self.answer.done():
            self.answer.set_result(reply)

    def _fail(self, error: httpx.TransportError) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)

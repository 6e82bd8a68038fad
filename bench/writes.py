"""What one PATCH costs in CPU, without a network: of a user, of an organization through the SDK, by httpx alone."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import httpx

from bench.figures import Figure
from sync_worker.clerk import client as clerk
from sync_worker.domain.entitlements import Change, ChangeKind
from sync_worker.domain.subjects import Subject
from sync_worker.domain.timings import Timings
from sync_worker.runtime.system_clock import SystemClock
from sync_worker.sandbox.clerk import ClerkApi
from sync_worker.transport import ServiceTransport

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

COUNT = 500
URL = "https://clerk.invalid"
PUBLIC = {"plan": "pro", "role": "member", "courseSlugs": ["algebra", "geometry"]}
PRIVATE = {"entitlementSync": {"sources": ["ent-1"], "fingerprint": "0" * 16, "at": "2026-05-01T12:00:00+00:00"}}


class Answering(httpx.AsyncBaseTransport):
    """Answers every request with its user or its organization."""

    def __init__(self) -> None:
        api = ClerkApi()
        self.user, self.organization = api.add_user(email="user@example.org"), api.add_organization()
        self._objects = {**api.users, **api.organizations}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=self._objects[request.url.path.split("/")[3]], request=request)


def _change(subject: str) -> Change:
    return Change(Subject.parse(subject), ChangeKind.GRANT, {}, PUBLIC, ("ent-1",), public=PUBLIC, private=PRIVATE)


async def _milliseconds(write: Callable[[], Awaitable[object]]) -> float:
    """Return the CPU milliseconds of one write."""
    for _ in range(20):
        await write()
    started = time.process_time()
    for _ in range(COUNT):
        await write()
    return (time.process_time() - started) / COUNT * 1000


async def measure() -> list[Figure]:
    """Measure all three."""
    answering = Answering()
    user, organization = _change(answering.user), _change(answering.organization)
    transport = ServiceTransport("Clerk", answering, {}, clerk.error_from_response, SystemClock(), Timings())
    target, client = clerk.open_clerk(transport, url=URL)
    async with client, httpx.AsyncClient(transport=answering) as plain:
        address = f"{URL}/v1/users/{answering.user}/metadata"
        body = {"public_metadata": PUBLIC, "private_metadata": PRIVATE}
        return [
            Figure("one PATCH of a user: CPU", await _milliseconds(lambda: target.apply(user)), "ms"),
            Figure("… of an organization, by the SDK", await _milliseconds(lambda: target.apply(organization)), "ms"),
            Figure("… of a user, by httpx alone", await _milliseconds(lambda: plain.patch(address, json=body)), "ms"),
        ]

"""Clients of the two services, and somebody who receives webhooks."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from sync_worker.sandbox.server import Server
from sync_worker.transport import ssl_context

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

    from sync_worker.sandbox.server import Sandbox


def client_of(url: str, headers: dict[str, str]) -> httpx.AsyncClient:
    return httpx.AsyncClient(verify=ssl_context(), base_url=url, headers=headers, trust_env=False)


@pytest.fixture
async def sanity(box: Sandbox) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"authorization": f"Bearer {box.lake.token}"}
    async with httpx.AsyncClient(
        verify=ssl_context(), base_url=box.sanity_url, headers=headers, trust_env=False
    ) as client:
        yield client


@pytest.fixture
async def clerk(box: Sandbox) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"authorization": f"Bearer {box.clerk.secret_key}", "clerk-api-version": "2026-05-12"}
    async with httpx.AsyncClient(
        verify=ssl_context(), base_url=f"{box.clerk_url}/v1", headers=headers, trust_env=False
    ) as client:
        yield client


@dataclass
class Received:
    """One request that came to the receiver."""

    method: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """Takes webhooks. It answers the scripted statuses first, then 202; `hold` keeps answers back."""

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    received: list[Received] = field(default_factory=list)
    hold: asyncio.Event = field(default_factory=asyncio.Event)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    async def take(self, request: Request) -> Response:
        self.received.append(Received(request.method, dict(request.headers), await request.body()))
        self.arrived.set()
        await self.hold.wait()
        return Response(status_code=self.statuses.pop(0) if self.statuses else 202)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    taker = Receiver()
    taker.hold.set()
    methods = ["GET", "POST", "PUT", "PATCH", "DELETE"]
    server = Server(Starlette(routes=[Route("/hook", taker.take, methods=methods)]), 0)
    taker.url = f"{server.url}/hook"
    running = asyncio.create_task(server.run_until_stopped())
    yield taker
    taker.hold.set()
    server.stop()
    await running

"""Each test of a service runs at the stand-in and, where its keys are given, at a real account too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest

from sync_worker.sandbox.server import Sandbox
from tests.contract import places
from tests.wire import Wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture(scope="module")
async def account_box() -> AsyncIterator[Sandbox]:
    """Stand-ins that, like an account, hold what other tests left there."""
    async with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture(params=places.choices(places.CLERK_KEY))
async def clerk(request: pytest.FixtureRequest, account_box: Sandbox) -> AsyncIterator[places.ClerkPlace]:
    local = (account_box.clerk_url, account_box.clerk.secret_key)
    async with places.clerk_at(*(local if request.param == "stand-in" else places.clerk_account())) as place:
        yield place


@pytest.fixture(params=places.choices(*places.SANITY_ACCOUNT))
async def sanity(request: pytest.FixtureRequest, account_box: Sandbox) -> AsyncIterator[places.SanityPlace]:
    local = (account_box.sanity_url, account_box.lake.dataset, account_box.lake.token)
    async with places.sanity_at(*(local if request.param == "stand-in" else places.sanity_account())) as place:
        yield place


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    wire = Wire(httpx.AsyncHTTPTransport())
    yield wire
    await wire.aclose()


@pytest.fixture
async def client(box: Sandbox, wire: Wire) -> AsyncIterator[httpx.AsyncClient]:
    """A client of Clerk's stand-in as anybody would write one, whose traffic is noted."""
    headers = {"authorization": f"Bearer {box.clerk.secret_key}", "clerk-api-version": "2026-05-12"}
    async with httpx.AsyncClient(base_url=f"{box.clerk_url}/v1", headers=headers, transport=wire) as client:
        yield client

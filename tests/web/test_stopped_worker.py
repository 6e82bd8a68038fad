"""While the worker is stopped, neither the status nor /readyz says that all is well."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from sync_worker.runtime.wiring import open_reconcile
from sync_worker.storage.reconcile_runs import GOOD
from sync_worker.storage.state import STOPPED
from tests.clock import TIMINGS
from tests.oracle import GUARD
from tests.parts import working

if TYPE_CHECKING:
    from sync_worker.sandbox.server import Sandbox
    from tests.web.pages import Web

pytestmark = pytest.mark.anyio


async def test_the_status_says_what_stops_the_worker(web: Web) -> None:
    for name, value in (("heartbeat", "w1"), (GOOD, "{}"), (STOPPED, "credentials_refused")):
        await web.store.queue.remember(name, value)
    data = await web.json("/status")
    assert data["headline"] == "All work is stopped. The service rejected our credentials."
    assert (data["worker"]["alive"], data["worker"]["stopped"]) == (True, "credentials_refused")
    page = await web.page("/status")
    assert data["headline"] in page
    assert "Check the named key or token." in page


async def test_a_refused_key_is_recorded_at_once_and_not_with_the_next_heartbeat(box: Sandbox, sqlite_url: str) -> None:
    seldom = replace(TIMINGS, heartbeat_interval=10_000.0, worker_gone_after=30_000.0)
    async with working(box, sqlite_url, timings=seldom, clerk_secret_key="sk_test_wrong") as parts:
        async with asyncio.timeout(GUARD):
            while (stopped := await parts.store.queue.recall(STOPPED)) is None:
                await parts.store.database.changed(0.05)
    assert stopped[0] == "credentials_refused"


async def test_a_remark_without_a_field_names_the_document_alone(web: Web, box: Sandbox) -> None:
    box.clerk.add_user("user_1", private_metadata={"entitlementSync": {"source": "other/production", "keys": ["plan"]}})
    await web.publish("e1", clerkUserId="user_1")
    async with open_reconcile(web.settings, web.store, Counter()) as run:
        await run.apply(await run.find())
    page = await web.page("/status")
    assert "is managed by other/production" in page
    assert "None:" not in page

"""A database that takes requests and never answers them: each request is answered 503 within a bounded time."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from sync_worker.cli.processes import SECRET
from sync_worker.runtime.wiring import Runtime
from sync_worker.storage.sqlite import SqliteDatabase
from sync_worker.web.app import create_app
from sync_worker.webhooks.signatures import SANITY_HEADER, sign_sanity
from tests.clock import CLOCK, TIMINGS
from tests.oracle import GUARD
from tests.parts import settings_of
from tests.webhooks.receiver import delivery

if TYPE_CHECKING:
    from sync_worker.sandbox.server import Sandbox

pytestmark = pytest.mark.anyio
TOKEN = "a long random text"


@pytest.mark.parametrize("path", ["/readyz", "/metrics", "/status", "/webhooks/sanity"])
async def test_every_request_is_answered(
    box: Sandbox, sqlite_url: str, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    app = create_app(
        settings_of(box, sqlite_url, admin_token=TOKEN), Runtime(CLOCK, replace(TIMINGS, database_patience=0.05))
    )
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            silent = asyncio.Event()

            async def never(*_: Any, **__: Any) -> None:
                await silent.wait()

            monkeypatch.setattr(SqliteDatabase, "_submit", never)
            async with asyncio.timeout(GUARD):
                if path.startswith("/webhooks"):
                    body = httpx.Request("POST", "http://x", json=delivery(projectId=box.lake.project_id)).content
                    headers = {SANITY_HEADER: sign_sanity(body, SECRET, int(CLOCK.now() * 1000))}
                    response = await client.post(path, content=body, headers=headers)
                else:
                    headers = {"Authorization": f"Bearer {TOKEN}", "Accept": "application/json"}
                    response = await client.get(path, headers=headers)
                assert (await client.get("/healthz")).status_code == 200
            monkeypatch.undo()
            assert response.status_code == 503

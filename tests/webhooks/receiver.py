"""The web application as Sanity sees it, and what Sanity sends."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx

from sync_worker.settings import Settings
from sync_worker.web.app import create_app
from sync_worker.webhooks.signatures import SANITY_HEADER, sign_sanity

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.applications import Starlette

    from sync_worker.storage.queue import WorkQueue


SECRET, MOMENT = "secret-of-a-webhook", 1_767_225_600_000


@dataclass(frozen=True)
class Web:
    """The application with its database, as a client sees it."""

    app: Starlette
    client: httpx.AsyncClient

    @property
    def queue(self) -> WorkQueue:
        found: WorkQueue = self.app.state.store.queue
        return found

    async def post(self, body: bytes | dict[str, Any], *, secret: str = SECRET, **headers: str) -> httpx.Response:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        signed = {SANITY_HEADER: sign_sanity(raw, secret, MOMENT), **headers}
        return await self.client.post("/webhooks/sanity", content=raw, headers=signed)

    async def enqueued(self) -> list[str]:
        """Claim everything, and return its keys."""
        claims = [
            claim
            for lane in (0, 1)
            for claim_some in (self.queue.claim, self.queue.claim_lookups)
            for claim in await claim_some(lane, 100, 30.0)
        ]
        return sorted(claim.key for claim in claims)


def settings(database_url: str, **given: Any) -> Settings:
    needed = {"sanity_project_id": "p1", "sanity_read_token": "t", "clerk_secret_key": "sk_test_1"}
    return Settings(_env_file=None, **{**needed, "database_url": database_url, **given})


@asynccontextmanager
async def serving(database_url: str, **given: Any) -> AsyncIterator[Web]:
    """Run the application with these settings."""
    app = create_app(settings(database_url, **given))
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client,
    ):
        yield Web(app, client)


def delivery(**fields: Any) -> dict[str, Any]:
    return {
        "v": 1,
        "operation": "update",
        "projectId": "p1",
        "dataset": "production",
        "id": "ent-1",
        "type": "entitlement",
        "rev": "r2",
        "updatedAt": "2026-05-01T12:00:00Z",
        "before": {"clerkUserId": "user_a"},
        "after": {"clerkUserId": "user_b"},
        **fields,
    }

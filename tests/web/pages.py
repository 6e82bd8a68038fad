"""The pages over HTTP, as a browser or a program sees them."""

from __future__ import annotations

import re
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx

from sync_worker.runtime.service import running_worker
from sync_worker.storage.work_items import WorkItem
from sync_worker.web.app import create_app
from sync_worker.web.auth import Authenticator, LoginThrottle
from sync_worker.web.site import SESSION
from tests.builders import publish
from tests.causes import cause_of
from tests.clock import CLOCK, TIMINGS
from tests.parts import settings_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.applications import Starlette

    from sync_worker.domain.clock import Clock
    from sync_worker.runtime.wiring import Store
    from sync_worker.sandbox.server import Sandbox
    from sync_worker.settings import Settings


TOKEN = "a long random text"
ADA = "ada@example.org"

JSON, HTML = {"Accept": "application/json"}, {"Accept": "text/html,*/*"}
KEYS = {
    *("document", "state", "headline", "revision", "published", "inClerk", "inSessionsBy", "inToken"),
    *("unresolved", "subjects", "nextStep"),
}

EVERY_PAGE = [
    *("/status", "/documents/e1", "/subjects/user:user_1", "/held/x", "/who", "/sign-in", "/status.css"),
    *("/issues", "/changes", "/held", "/time-zone"),
]


@dataclass(frozen=True)
class Web:
    """The application, as a browser or a program sees it."""

    box: Sandbox
    settings: Settings
    app: Starlette
    client: httpx.AsyncClient

    @property
    def store(self) -> Store:
        found: Store = self.app.state.store
        return found

    async def publish(self, document: str, **fields: Any) -> None:
        await publish(self.box, document, **fields)

    async def sync(self, *keys: str, cause: str = "") -> None:
        """Enqueue the keys, and run a worker until they are done."""
        await self.store.queue.enqueue([WorkItem(key, cause=cause_of(cause)) for key in keys])
        async with running_worker(self.settings, self.store):
            for key in keys:
                while (row := await self.store.queue.get(key)) and row.pending and not row.dead:
                    await self.store.database.changed(0.05)

    async def json(self, path: str, status: int = 200) -> Any:
        response = await self.client.get(path, headers={**JSON, "Authorization": f"Bearer {TOKEN}"})
        assert response.status_code == status
        return response.json()

    async def page(self, path: str, status: int = 200) -> str:
        """Return a page as a signed-in user sees it."""
        cookie = authenticator().new_session("")
        response = await self.client.get(path, headers={**HTML, "Cookie": f"{SESSION}={cookie}"})
        assert (response.status_code, response.headers["content-type"]) == (status, "text/html; charset=utf-8")
        return response.text

    async def page_of_session(self, path: str) -> str:
        """Return a page as the session of the client's cookies sees it, with its forms."""
        response = await self.client.get(path, headers=HTML)
        assert response.status_code == 200
        return response.text

    async def document(self, id_: str, state: str) -> Any:
        """Return the JSON of a document, once the page says the same."""
        data = await self.json(f"/documents/{id_}")
        assert (set(data), data["state"]) == (KEYS, state)
        assert words(data["headline"].replace("`", "")) in words(await self.page(f"/documents/{id_}"))
        return data


def authenticator(clock: Clock = CLOCK) -> Authenticator:
    """Return the authenticator of the application under test."""
    return Authenticator(TOKEN.encode(), LoginThrottle(clock, TIMINGS), clock, TIMINGS)


def words(html: str) -> str:
    """Return the text of a page, as it is read."""
    text = re.sub(r"<[^>]+>", "", html)
    for entity, letter in (("&lt;", "<"), ("&gt;", ">"), ("&#39;", "'"), ("&#34;", '"'), ("&amp;", "&")):
        text = text.replace(entity, letter)
    return " ".join(text.split())


@asynccontextmanager
async def serving(box: Sandbox, database_url: str, **given: Any) -> AsyncIterator[Web]:
    settings = settings_of(box, database_url, **{"admin_token": TOKEN, "plan_order": "basic,pro", **given})
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app, client=("10.0.0.1", 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            yield Web(box, settings, app, client)

"""Where the behaviours that the worker relies on are tried: at the stand-ins always, at real accounts with a key.

Both are used through the same HTTP calls, so one suite holds for both. What a test creates is taken away again.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx

from sync_worker.clerk import client as clerk
from sync_worker.sanity import client as sanity
from sync_worker.settings import packaged_groq
from sync_worker.transport import ServiceTransport, ssl_context
from tests.clock import CLOCK, TIMINGS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SANITY_VERSION = "2025-02-19"
CLERK_KEY = "CONTRACT_CLERK_SECRET_KEY"
SANITY_ACCOUNT = ("CONTRACT_SANITY_PROJECT_ID", "CONTRACT_SANITY_DATASET", "CONTRACT_SANITY_TOKEN")


class Installation(httpx.AsyncHTTPTransport):
    """Waits as Retry-After says; a test is about something else."""

    def __init__(self) -> None:
        super().__init__(verify=ssl_context())

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        while True:
            response = await super().handle_async_request(request)
            if response.status_code != httpx.codes.TOO_MANY_REQUESTS:
                return response
            await response.aclose()
            await asyncio.sleep(float(response.headers.get("retry-after", "1")))


@dataclass
class ClerkPlace:
    """A Clerk instance: `http` for plain requests, `target` the worker's adapter on the same."""

    http: httpx.AsyncClient
    target: clerk.Clerk
    made: list[str] = field(default_factory=list)

    async def user(self, **fields: Any) -> str:
        """Create a user with an address of its own, and return the id."""
        address = f"sync-worker-{secrets.token_hex(6)}+clerk_test@example.com"
        body = {"email_address": [address], "skip_password_requirement": True, **fields}
        return await self._make("/users", body)

    async def organization(self, **fields: Any) -> str:
        """Create an organization, and return the id."""
        return await self._make("/organizations", {"name": f"sync-worker {secrets.token_hex(6)}", **fields})

    async def member(self, **fields: Any) -> tuple[str, str]:
        """Create an organization with one member, and return both ids."""
        organization, user = await self.organization(), await self.user()
        body = {"user_id": user, "role": "org:member", **fields}
        answer = await self.http.post(f"/organizations/{organization}/memberships", json=body)
        assert answer.is_success, answer.text
        return organization, user

    async def patch(self, path: str, **metadata: Any) -> httpx.Response:
        """Merge metadata into a user, an organization or a membership."""
        return await self.http.patch(f"{path}/metadata", json=metadata)

    async def get(self, path: str, **query: Any) -> Any:
        answer = await self.http.get(path, params=query)
        assert answer.is_success, answer.text
        return answer.json()

    async def clean(self) -> None:
        for path in reversed(self.made):
            answer = await self.http.delete(path)
            assert answer.status_code in (200, 404), answer.text

    async def _make(self, path: str, body: dict[str, Any]) -> str:
        answer = await self.http.post(path, json=body)
        assert answer.is_success, answer.text
        id_ = str(answer.json()["id"])
        self.made.append(f"{path}/{id_}")
        return id_


@dataclass
class SanityPlace:
    """A dataset: `http` for plain requests, `source` the worker's adapter on the same. Ids start with `prefix`."""

    http: httpx.AsyncClient
    source: sanity.Sanity
    dataset: str
    prefix: str = field(default_factory=lambda: f"contract-{secrets.token_hex(6)}")
    made: list[str] = field(default_factory=list)

    def id(self, name: str) -> str:
        return f"{self.prefix}-{name}"

    def reference(self, name: str) -> dict[str, Any]:
        return {"_type": "reference", "_ref": self.id(name), "_key": name}

    async def create(self, name: str, *, before: str = "", **fields: Any) -> str:
        """Create a document (`before` is "drafts." or the like), and return its revision."""
        id_ = before + self.id(name)
        self.made.append(id_)
        return await self.mutate({"create": {"_type": "entitlement", **fields, "_id": id_}})

    async def mutate(self, *mutations: dict[str, Any]) -> str:
        """Apply one transaction, wait until queries see it, and return its id."""
        url = f"/data/mutate/{self.dataset}"
        answer = await self.http.post(url, params={"visibility": "sync"}, json={"mutations": mutations})
        assert answer.is_success, answer.text
        return str(answer.json()["transactionId"])

    async def query(self, query: str, *, perspective: str = "published", **parameters: Any) -> httpx.Response:
        body = {"query": query, "params": parameters}
        return await self.http.post(f"/data/query/{self.dataset}", params={"perspective": perspective}, json=body)

    async def stored(self, *names: str) -> dict[str, Any]:
        ids = ",".join(self.id(name) for name in names)
        found: dict[str, Any] = (await self.http.get(f"/data/doc/{self.dataset}/{ids}")).json()
        return found

    async def clean(self) -> None:
        # What refers to others was created later, and goes first.
        if self.made:
            await self.mutate(*({"delete": {"id": id_}} for id_ in reversed(self.made)))


@asynccontextmanager
async def clerk_at(url: str, key: str) -> AsyncIterator[ClerkPlace]:
    headers = {"Authorization": f"Bearer {key}", "Clerk-API-Version": clerk.API_VERSION}
    transport = ServiceTransport("Clerk", Installation(), headers, clerk.error_from_response, CLOCK, TIMINGS)
    target, client = clerk.open_clerk(transport, url=url)
    http = httpx.AsyncClient(base_url=f"{url}/v1", headers=headers, transport=Installation(), timeout=30)
    async with client, http:
        place = ClerkPlace(http, target)
        try:
            yield place
        finally:
            await place.clean()


@asynccontextmanager
async def sanity_at(url: str, dataset: str, token: str) -> AsyncIterator[SanityPlace]:
    headers = {"Authorization": f"Bearer {token}"}
    transport = ServiceTransport(
        "Sanity",
        Installation(),
        headers,
        sanity.error_from_response,
        CLOCK,
        TIMINGS,
        is_read=sanity.reads_only,
        dry_run=True,
    )
    queries = sanity.Queries.load(packaged_groq())
    source, client = sanity.open_sanity(transport, queries, url=url, version=SANITY_VERSION, dataset=dataset)
    http = httpx.AsyncClient(base_url=f"{url}/v{SANITY_VERSION}", headers=headers, transport=Installation(), timeout=30)
    async with client, http:
        place = SanityPlace(http, source, dataset)
        try:
            yield place
        finally:
            await place.clean()


def clerk_account() -> tuple[str, str]:
    """Return address and key of the account to try. A live instance is refused: users are created and deleted."""
    key = os.environ[CLERK_KEY]
    assert key.startswith("sk_test_"), f"{CLERK_KEY} must be the key of a development instance"
    return "https://api.clerk.com", key


def sanity_account() -> tuple[str, str, str]:
    """Return address, dataset and token of the dataset to try; the token must be allowed to write."""
    project, dataset, token = (os.environ[name] for name in SANITY_ACCOUNT)
    return f"https://{project}.api.sanity.io", dataset, token


def choices(*variables: str) -> list[Any]:
    """Return where to try a service: an account only where its variables are set."""
    given = all(os.environ.get(name) for name in variables)
    return ["stand-in", "account"] if given else ["stand-in"]

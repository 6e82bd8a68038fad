"""Fast replacements for httpx's client and Clerk's SDK, which send the same requests through the same transport.

The client costs half a millisecond per request, and the SDK two per PATCH of an organization, which is most of the time
of a seed. One seed in fifty uses the real ones.
"""

from __future__ import annotations

import json as json_text
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

import httpx

from sync_worker.clerk import client as clerk
from sync_worker.clerk.client import _require_object, _safe
from sync_worker.domain.subjects import Kind
from sync_worker.sanity import client as sanity

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sync_worker.domain.entitlements import Change
    from sync_worker.transport import ServiceTransport


@dataclass
class Address:
    """What is read of `httpx.URL`."""

    path: str
    params: httpx.QueryParams


class Headers(dict[str, str]):
    """What is used of `httpx.Headers`."""

    def update(self, given: Mapping[str, str]) -> None:  # type: ignore[override]  # all that is used of it
        for name, value in given.items():
            self[name.lower()] = value

    @property
    def raw(self) -> list[tuple[bytes, bytes]]:
        return [(name.encode(), value.encode()) for name, value in self.items()]


@dataclass
class Request:
    """What is used of `httpx.Request`."""

    method: str
    url: Address
    content: bytes
    extensions: Mapping[str, Any]
    headers: Headers = field(default_factory=lambda: Headers({"content-type": "application/json"}))


@dataclass
class Response:
    """What is used of `httpx.Response`."""

    status_code: int
    headers: Mapping[str, str]
    content: bytes
    reason_phrase: str = ""
    request: Request | None = None

    @property
    def is_success(self) -> bool:
        return 200 <= self.status_code < 300

    @property
    def text(self) -> str:
        return self.content.decode()

    def json(self) -> Any:
        return json_text.loads(self.content)

    async def aread(self) -> bytes:
        return self.content

    async def aclose(self) -> None:
        """Nothing is open."""


class QuickClient:
    """What the adapters use of `httpx.AsyncClient`."""

    def __init__(self, transport: ServiceTransport, timeout: httpx.Timeout) -> None:
        self._transport = transport
        self._extensions = {"timeout": timeout.as_dict()}

    async def get(self, url: str, *, params: Mapping[str, Any]) -> httpx.Response:
        return await self._send("GET", url, params, b"")

    async def post(self, url: str, *, params: Mapping[str, Any], json: Any) -> httpx.Response:
        return await self._send("POST", url, params, json_text.dumps(json).encode())

    async def patch(self, url: str, *, json: Any) -> httpx.Response:
        return await self._send("PATCH", url, {}, json_text.dumps(json).encode())

    async def _send(self, method: str, url: str, params: Mapping[str, Any], content: bytes) -> httpx.Response:
        address = Address(urlsplit(url).path, httpx.QueryParams(params))
        request = Request(method, address, content, self._extensions)
        return await self._transport.handle_async_request(cast("httpx.Request", request))


class QuickClerk(clerk.Clerk):
    """The target with the PATCH as the SDK sends it."""

    async def _patch(self, change: Change) -> None:
        subject = change.subject
        path = {
            Kind.USER: f"/users/{subject.id}",
            Kind.ORGANIZATION: f"/organizations/{subject.id}",
            Kind.MEMBERSHIP: f"/organizations/{subject.organization_id}/memberships/{subject.user_id}",
        }[subject.kind]
        _safe(subject)
        given = {"public_metadata": dict(change.public), "private_metadata": dict(change.private)}
        body = {name: value for name, value in given.items() if value}
        _require_object(await self._client.patch(f"{self._base}{path}/metadata", json=body))


def response_of(
    status: int, headers: Mapping[str, str], content: bytes, request: httpx.Request | Request
) -> httpx.Response:
    """Return a response of the same kind as the request: real, or quick."""
    if isinstance(request, httpx.Request):
        return httpx.Response(status, headers=headers, content=content, request=request)
    return cast("httpx.Response", Response(status, headers, content))


def client_of(transport: ServiceTransport) -> httpx.AsyncClient:
    """Return a quick client, for which the adapters need not know that it is none of httpx's."""
    service = sanity if transport.service == "Sanity" else clerk
    return cast("httpx.AsyncClient", QuickClient(transport, service.timeout(transport.timings)))

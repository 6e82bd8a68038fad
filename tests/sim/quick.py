"""Quick stand-ins for httpx's client and Clerk's SDK: the same requests through the same transport.

Why it exists: the client costs half a millisecond a request and the SDK seven a PATCH, which is most of the time of a
seed. A few seeds run on the real ones; `test_quick.py` holds that both send the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlencode

import httpx

from sync_worker import clerk, sanity
from sync_worker.clerk import _require_object, _safe
from sync_worker.model import Change, Kind

if TYPE_CHECKING:
    from sync_worker.http import ServiceTransport


class QuickClient:
    """What the adapters use of `httpx.AsyncClient`."""

    def __init__(self, transport: ServiceTransport, timeout: httpx.Timeout) -> None:
        self._transport = transport
        self._extensions = {"timeout": timeout.as_dict()}

    async def get(self, url: str, *, params: dict[str, Any]) -> httpx.Response:
        return await self._send("GET", url, params)

    async def post(self, url: str, *, params: dict[str, Any], json: Any) -> httpx.Response:
        return await self._send("POST", url, params, json)

    async def patch(self, url: str, *, json: Any) -> httpx.Response:
        return await self._send("PATCH", url, {}, json)

    async def _send(self, method: str, url: str, params: dict[str, Any], json: Any = None) -> httpx.Response:
        address = f"{url}?{urlencode(params, doseq=True)}" if params else url
        request = httpx.Request(method, address, json=json, extensions=self._extensions)
        return await self._transport.handle_async_request(request)


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


def client_of(transport: ServiceTransport) -> httpx.AsyncClient:
    """Return a quick client, for which the adapters need not know that it is none of httpx's."""
    timeout = sanity.TIMEOUT if transport.service == "Sanity" else clerk.TIMEOUT
    return cast("httpx.AsyncClient", QuickClient(transport, timeout))

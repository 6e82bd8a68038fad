"""The wire between the worker and a service: what passes is noted, or changed on its way.

Only the network end is wrapped. Client, transport, retries and the service at the other end are the real ones.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import httpx

from sync_worker.transport import ServiceTransport

if TYPE_CHECKING:
    from collections.abc import Callable

Tap = TypeVar("Tap", bound=httpx.AsyncBaseTransport)


@dataclass(frozen=True)
class Exchange:
    """One request with its answer. Bodies are JSON; None when there was none."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    sent: Any
    status: int
    headers: httpx.Headers
    answered: Any

    def __str__(self) -> str:
        return f"{self.method} {self.path} → {self.status}"


@dataclass
class Wire(httpx.AsyncBaseTransport):
    """Passes requests on to `inner`, and notes what passed."""

    inner: httpx.AsyncBaseTransport
    exchanges: list[Exchange] = field(default_factory=list)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        sent = await request.aread()
        response = await self.inner.handle_async_request(request)
        body = await response.aread()
        await response.aclose()
        self.exchanges.append(
            Exchange(
                request.method,
                request.url.path,
                tuple(request.url.params.multi_items()),
                json.loads(sent) if sent else None,
                response.status_code,
                response.headers,
                _json(response),
            )
        )
        return httpx.Response(response.status_code, headers=response.headers, content=body, request=request)

    async def aclose(self) -> None:
        await self.inner.aclose()


def tapped(client: httpx.AsyncClient, tap: Callable[[httpx.AsyncBaseTransport], Tap]) -> Tap:
    """Put `tap` in front of the network end of one of the worker's own clients, and return it."""
    transport = client._transport
    assert isinstance(transport, ServiceTransport)
    put = tap(transport.inner)
    transport.inner = put
    return put


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        return None

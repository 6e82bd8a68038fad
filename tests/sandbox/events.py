"""Reads a listener's events as they are on the wire."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.oracle import GUARD

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx

LISTEN = "/v2025-02-19/data/listen/production"
ENTITLEMENTS = "*[_type in $types]"
TYPES = {"$types": '["entitlement"]'}


@dataclass(frozen=True)
class Event:
    """One event; a comment has no name."""

    name: str = ""
    id: str = ""
    data: Any = None


def event_of(block: str) -> Event:
    """Read one block of lines. Each field occurs once, and data is a single line of JSON."""
    fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
    return Event(fields.get("event", ""), fields.get("id", ""), json.loads(fields["data"]) if fields else None)


class Stream:
    """An open connection."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self._text = answer.aiter_text()
        self._rest = ""

    async def next(self) -> Event:
        """Return the next event or comment. Raises EOFError at a regular end, httpx.RemoteProtocolError at another."""
        while "\n\n" not in self._rest:
            try:
                async with asyncio.timeout(GUARD):
                    self._rest += await anext(self._text)
            except StopAsyncIteration:
                raise EOFError(self._rest) from None
        block, _, self._rest = self._rest.partition("\n\n")
        return event_of(block)

    async def mutations(self, count: int) -> list[dict[str, Any]]:
        """Return the data of the next mutations."""
        events = [await self.next() for _ in range(count)]
        assert {event.name for event in events} == {"mutation"}
        return [event.data for event in events]


@asynccontextmanager
async def connected(
    client: httpx.AsyncClient,
    path: str = LISTEN,
    *,
    query: str = ENTITLEMENTS,
    params: dict[str, str] | None = None,
    last: str = "",
    **options: str,
) -> AsyncIterator[Stream]:
    """Open a connection; `last` goes into the Last-Event-ID header, and `options` into the query string."""
    headers = {"accept": "text/event-stream", **({"last-event-id": last} if last else {})}
    given = {"query": query, **(TYPES if params is None else params), **options}
    async with client.stream("GET", path, params=given, headers=headers, timeout=GUARD) as answer:
        yield Stream(answer)


@asynccontextmanager
async def listening(client: httpx.AsyncClient, path: str = LISTEN, **options: Any) -> AsyncIterator[Stream]:
    """Open a connection and take its greeting."""
    async with connected(client, path, **options) as stream:
        assert (await stream.next()).name in {"welcome", "welcomeback", "reset"}
        yield stream

"""Who published: the editors behind changes, by Sanity's transaction log. Asked when shown, and kept in memory only."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from sync_worker.errors import SyncWorkerError
from sync_worker.transport import read_json

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    import httpx

    from sync_worker.domain.timings import Timings

SERVICE = "Sanity"
TRANSACTIONS = 1000
CLOCKS_DIFFER = timedelta(seconds=1)
SPAN = timedelta(days=1)
"""How long before a change its publish may have been: it waited, or its webhook was lost."""


class Editors:
    """Names the editors behind changes, as far as Sanity answers in time. It raises nothing."""

    def __init__(self, client: httpx.AsyncClient, base: str, dataset: str, timings: Timings) -> None:
        self._client = client
        self._base = base
        self._dataset = dataset
        self._timings = timings
        self._names: dict[str, str] = {}

    async def of(self, changes: Sequence[tuple[Collection[str], float]]) -> list[str]:
        """Return who published each change, given its documents and its time in epoch seconds; empty if unknown."""
        documents = sorted({id_ for ids, _ in changes for id_ in ids})
        if not documents:
            return [""] * len(changes)
        try:
            async with asyncio.timeout(self._timings.page_patience):
                published = await self._published(documents, [at for _, at in changes])
                authors = [_author(published, ids, at) for ids, at in changes]
                await self._name({author for author in authors if author})
        except (SyncWorkerError, TimeoutError, ValueError, KeyError, TypeError):
            return [""] * len(changes)
        return [self._names.get(author, author) for author in authors]

    async def _published(self, documents: Iterable[str], moments: Sequence[float]) -> list[dict[str, Any]]:
        """Return the transactions of these published documents around these times, the newest first."""
        ids = ",".join(quote(id_, safe="") for id_ in documents)
        first, last = (datetime.fromtimestamp(at, UTC) for at in (min(moments), max(moments)))
        parameters = {
            "excludeContent": "true",
            "excludeMutations": "true",
            "includeIdentifiedDocumentsOnly": "true",
            "reverse": "true",
            "limit": str(TRANSACTIONS),
            "fromTime": (first - SPAN).isoformat(),
            "toTime": (last + CLOCKS_DIFFER).isoformat(),
        }
        url = f"{self._base}/data/history/{self._dataset}/transactions/{ids}"
        response = await self._client.get(url, params=parameters)
        return [json.loads(line) for line in response.text.splitlines() if line.strip()]

    async def _name(self, authors: Collection[str]) -> None:
        new = sorted(set(authors) - self._names.keys())
        if not new:
            return
        found = read_json(SERVICE, await self._client.get(f"{self._base}/users/{','.join(map(quote, new))}"))
        for one in found if isinstance(found, list) else [found]:
            self._names[one["id"]] = str(one.get("displayName") or one["id"])


def _author(transactions: Iterable[dict[str, Any]], documents: Collection[str], at: float) -> str:
    """Return the author of the last transaction of one of these documents before a moment."""
    latest = datetime.fromtimestamp(at, UTC) + CLOCKS_DIFFER
    for one in transactions:
        if not set(documents).isdisjoint(one["documentIDs"]) and datetime.fromisoformat(one["timestamp"]) <= latest:
            return str(one.get("author") or "")
    return ""

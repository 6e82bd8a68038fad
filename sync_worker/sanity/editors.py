"""The names of editors, by their ids in Sanity. They are requested when shown, and kept in memory only."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

from sync_worker.errors import SyncWorkerError
from sync_worker.transport import read_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import httpx

    from sync_worker.domain.timings import Timings

SERVICE = "Sanity"
EDITOR_ID = re.compile(r"[\w-]+", re.ASCII)


class Editors:
    """Names editors, as far as Sanity answers in time. It raises nothing: without a name, the id has to do."""

    def __init__(self, client: httpx.AsyncClient, base: str, timings: Timings) -> None:
        self._client = client
        self._base = base
        self._timings = timings
        self._names: dict[str, str] = {}

    async def of(self, ids: Iterable[str]) -> Mapping[str, str]:
        """Return the names of those whom Sanity knows, by id."""
        new = sorted({id_ for id_ in ids if EDITOR_ID.fullmatch(id_)} - self._names.keys())
        if new:
            try:
                async with asyncio.timeout(self._timings.page_patience):
                    found = read_json(SERVICE, await self._client.get(f"{self._base}/users/{','.join(new)}"))
                for one in found if isinstance(found, list) else [found]:
                    self._names[one["id"]] = str(one.get("displayName") or one["id"])
            except (SyncWorkerError, TimeoutError, AttributeError, KeyError, TypeError):
                return self._names
        return self._names

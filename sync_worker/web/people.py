"""People and organizations by name, for pickers: searched, or named where an id is stored."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse, Response

from sync_worker.clerk.directory import IDS_PER_CALL, is_searchable
from sync_worker.domain.subjects import ORGANIZATION_ID, USER_ID
from sync_worker.errors import SyncWorkerError
from sync_worker.webhooks.receiver import RETRY_AFTER

if TYPE_CHECKING:
    import re
    from collections.abc import Awaitable, Callable, Sequence

    from starlette.requests import Request

    from sync_worker.clerk.directory import Listing
    from sync_worker.web.site import Pages


async def people(pages: Pages, request: Request) -> Response:
    """Answer with the users that match `q`, or those of `id`."""
    return await _listed(pages, request, USER_ID, pages.directory.search_people, pages.directory.people)


async def organizations(pages: Pages, request: Request) -> Response:
    """Answer with the organizations that match `q`, or those of `id`."""
    directory = pages.directory
    return await _listed(pages, request, ORGANIZATION_ID, directory.search_organizations, directory.organizations)


async def _listed(
    pages: Pages,
    request: Request,
    pattern: re.Pattern[str],
    search: Callable[[str], Awaitable[list[Listing]]],
    find: Callable[[Sequence[str]], Awaitable[list[Listing]]],
) -> Response:
    text, ids = request.query_params.get("q", "").strip(), request.query_params.get("id", "").split(",")
    if text and not is_searchable(text):
        return JSONResponse({"error": "bad_query"}, 400)
    if not text and (len(ids) > IDS_PER_CALL or not all(map(pattern.fullmatch, ids))):
        return JSONResponse({"error": "bad_id" if "id" in request.query_params else "bad_query"}, 400)
    try:
        async with asyncio.timeout(pages.timings.page_patience):
            found = await (search(text) if text else find(sorted(set(ids))))
    except (SyncWorkerError, TimeoutError):
        return JSONResponse({"error": "unavailable"}, 503, headers={"Retry-After": RETRY_AFTER})
    return JSONResponse([asdict(one) for one in found])

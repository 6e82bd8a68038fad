"""The page of a held changeset."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sync_worker.diagnostics.serialize import without_addresses
from sync_worker.diagnostics.status import held_json
from sync_worker.web.site import wants_json

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from sync_worker.web.site import Pages

HELD_SHOWN = 500


async def held_page(pages: Pages, request: Request) -> Response:
    """Show who would lose what."""
    held = await pages.approvals.find(request.path_params["id"])
    if held is None:
        text = "It was approved, has expired, or never existed. `sync-worker approve` lists all held changesets."
        return pages.message(request, "No changeset is held under this id.", text, 404)
    of = pages.approvals
    changes = await (of.all_changes(held.id) if wants_json(request) else of.changes(held.id, limit=HELD_SHOWN))
    data = without_addresses(held_json(held, changes))
    assert isinstance(data, dict)  # noqa: S101 - for the type checker
    return pages.answer(request, "held", data)

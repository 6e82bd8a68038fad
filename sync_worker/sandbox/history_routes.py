"""The transaction log over HTTP: `GET /v{date}/data/history/{dataset}/transactions`, as newline-delimited JSON.

`excludeContent=true` is mandatory, as in the service. Times have whole seconds and both ends of a range are included,
so pages that follow each other by time or by transaction overlap.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING

from starlette.responses import Response
from starlette.routing import Route

from sync_worker.sandbox.content_lake import UNAUTHORIZED
from sync_worker.sandbox.lake_routes import Refused, authorize, boom
from sync_worker.sandbox.transaction_log import DEFAULT_LIMIT, Selection

if TYPE_CHECKING:
    from starlette.requests import Request

    from sync_worker.sandbox.content_lake import ContentLake

CONTENT_TYPE = "application/x-ndjson"


def routes(lake: ContentLake) -> list[Route]:
    """Return the routes of the transaction log."""

    async def transactions(request: Request) -> Response:
        if authorize(request, lake) == "anonymous":
            raise Refused(401, UNAUTHORIZED)
        if request.query_params.get("excludeContent") != "true":
            raise boom(403, "Forbidden", "This API requires excludeContent to be true")
        lines = lake.log.lines(selection_of(request))
        return Response("".join(json.dumps(line) + "\n" for line in lines), media_type=CONTENT_TYPE)

    path = "/v{version}/data/history/{dataset}/transactions"
    return [
        Route(path, transactions, methods=["GET"]),
        Route(path + "/{ids:path}", transactions, methods=["GET"]),
    ]


def selection_of(request: Request) -> Selection:
    """Read the query string. Raises Refused."""
    query = request.query_params
    try:
        limit = int(query.get("limit", DEFAULT_LIMIT))
    except ValueError as error:
        raise boom(400, "Bad Request", '"limit" must be a number') from error
    return Selection(
        document_ids=_names(request.path_params.get("ids")),
        only_identified=query.get("includeIdentifiedDocumentsOnly") == "true",
        authors=_names(query.get("authors")),
        from_time=_time(request, "fromTime"),
        to_time=_time(request, "toTime"),
        from_transaction=query.get("fromTransaction"),
        to_transaction=query.get("toTransaction"),
        limit=limit,
        reverse=query.get("reverse") == "true",
        with_mutations=query.get("excludeMutations") != "true",
        with_effects=query.get("effectFormat") == "mendoza",
    )


def _names(text: str | None) -> frozenset[str]:
    return frozenset(name for name in (text or "").split(",") if name)


def _time(request: Request, name: str) -> float | None:
    text = request.query_params.get(name)
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise boom(400, "Bad Request", f'"{name}" must be a time such as 2026-01-01T00:00:00Z') from error
    if moment.tzinfo is None:
        raise boom(400, "Bad Request", f'"{name}" needs a time zone')
    return moment.timestamp()

"""`GET /v{date}/data/listen/{dataset}`: server-sent events about changes, as `client.listen()` reads them.

A query that cannot be evaluated is answered with status 200, `channelError` and `disconnect`; a token that does not
exist, with 401.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from sync_worker.sandbox.clock import rfc3339
from sync_worker.sandbox.groq import GroqError
from sync_worker.sandbox.lake_routes import authorize, boom, is_published_by_default, params_of
from sync_worker.sandbox.listeners import Listener
from sync_worker.sandbox.mutation_events import Subscription, failure

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

    from sync_worker.sandbox.content_lake import ContentLake

EVENT_STREAM = "text/event-stream"
VISIBILITIES = ("transaction", "query")


def routes(lake: ContentLake) -> list[Route]:
    """Return the route of listeners."""

    async def listen(request: Request) -> Response:
        role = authorize(request, lake)
        subscription = subscription_of(request, _covers(request, role))
        try:
            await lake.listeners.check(subscription, rfc3339(lake.clock()))
        except GroqError as error:
            return Response(failure({**error.details, "query": subscription.query}), media_type=EVENT_STREAM)
        listener = Listener(subscription, lake.listeners, request.scope["state"]["transport"])
        return StreamingResponse(listener.stream(), media_type=EVENT_STREAM, headers={"cache-control": "no-cache"})

    return [Route("/v{version}/data/listen/{dataset}", listen, methods=["GET"])]


def _covers(request: Request, role: str) -> Callable[[str], bool]:
    """Return the check whether the caller may see a document, by its id."""
    if role == "anonymous":
        return lambda id_: "." not in id_
    options = request.query_params
    if options.get("includeAllVersions") == "true" or not is_published_by_default(request):
        return lambda _: True
    return lambda id_: not id_.startswith(("drafts.", "versions."))


def subscription_of(request: Request, covers: Callable[[str], bool]) -> Subscription:
    """Read the query string and, for a client that resumes, the id of the last event. Raises Refused."""
    options = request.query_params
    visibility = options.get("visibility", "transaction")
    if not options.get("query"):
        raise boom(400, "Bad Request", '"query" is required')
    if visibility not in VISIBILITIES:
        raise boom(400, "Bad Request", f'"visibility" must be one of {", ".join(VISIBILITIES)}')
    last = request.headers.get("last-event-id") or options.get("lastEventId", "")
    return Subscription(
        query=options["query"],
        params=params_of(request),
        covers=covers,
        visibility=visibility,
        with_previous=options.get("includePreviousRevision") == "true",
        with_result=options.get("includeResult") == "true",
        with_mutations=options.get("includeMutations") != "false",
        with_effects=options.get("effectFormat") == "mendoza",
        resume_from=last if options.get("enableResume") == "true" else "",
    )

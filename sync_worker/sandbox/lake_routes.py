"""The Content Lake over HTTP: query, doc and mutate, as `@sanity/client` and the worker call them.

Where the real service leaves behaviour open, this one picks the least convenient that is allowed. `listen_routes` and
`history_routes` have the changes, and `hooks_api` the management of webhooks.
"""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sync_worker.sandbox.content_lake import UNAUTHORIZED
from sync_worker.sandbox.documents import MutationError
from sync_worker.sandbox.groq import GroqError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request

    from sync_worker.sandbox.content_lake import ContentLake

VERSION = re.compile(r"1|X|\d{4}-\d{2}-\d{2}")
PUBLISHED_BY_DEFAULT_SINCE = "2025-02-19"
PERSPECTIVE = re.compile(r"raw|[A-Za-z0-9_-]+(,[A-Za-z0-9_-]+)*")
TAG = re.compile(r"[a-zA-Z0-9._-]{1,75}")


class Refused(Exception):
    """A request that ends with an error response."""

    def __init__(self, status: int, body: object) -> None:
        self.status = status
        self.body = body
        super().__init__(status)


def refusal(_: Request, error: Exception) -> Response:
    """Return the response to a refused request."""
    if isinstance(error, (Refused, MutationError)):
        return JSONResponse(error.body, error.status)
    if isinstance(error, GroqError):
        return JSONResponse({"error": error.details}, 400)
    raise error


ERROR_HANDLERS: Mapping[Any, Any] = {Refused: refusal, MutationError: refusal, GroqError: refusal}


def boom(status: int, error: str, message: str) -> Refused:
    """Return an error with the body that most of Sanity's errors have."""
    return Refused(status, {"statusCode": status, "error": error, "message": message})


def routes(lake: ContentLake) -> list[Route]:
    """Return the data routes of a lake."""
    data = DataRoutes(lake)
    return [
        Route("/v{version}/data/query/{dataset}", data.query, methods=["GET", "POST"]),
        Route("/v{version}/data/doc/{dataset}/{ids:path}", data.doc, methods=["GET"]),
        Route("/v{version}/data/mutate/{dataset}", data.mutate, methods=["POST"]),
        Route("/v{version}/users/{ids}", data.users, methods=["GET"]),
    ]


def token_of(request: Request) -> str:
    """Return the token of a request, or an empty string."""
    return request.headers.get("authorization", "").removeprefix("Bearer ")


def role_of(request: Request, lake: ContentLake) -> str:
    """Return administrator, viewer or anonymous. Raises Refused for a token that does not exist."""
    header = request.headers.get("authorization")
    if header is None:
        return "anonymous"
    if header == f"Bearer {lake.viewer_token}":
        return "viewer"
    if not header.startswith("Bearer ") or token_of(request) not in lake.authors:
        raise Refused(401, UNAUTHORIZED)
    return "administrator"


def authorize(request: Request, lake: ContentLake) -> str:
    """Check version, dataset and token. Return the caller's role. Raises Refused."""
    if not VERSION.fullmatch(request.path_params["version"]):
        raise boom(400, "Bad Request", "Invalid API version")
    role = role_of(request, lake)
    if role == "anonymous" and not lake.public:
        raise Refused(401, UNAUTHORIZED)
    dataset = request.path_params["dataset"]
    if dataset != lake.dataset:
        message = f'Dataset not found: Dataset "{dataset}" not found for project ID "{lake.project_id}"'
        raise boom(404, "Not Found", message)
    return role


def is_published_by_default(request: Request) -> bool:
    """Whether the API version of the request hides drafts and versions unless they are requested."""
    version = request.path_params["version"]
    return bool(version == "X" or version >= PUBLISHED_BY_DEFAULT_SINCE)


class DataRoutes:
    """The handlers."""

    def __init__(self, lake: ContentLake) -> None:
        self.lake = lake

    async def query(self, request: Request) -> Response:
        """Evaluate a GROQ query."""
        started = time.perf_counter()
        role = authorize(request, self.lake)
        query, params = await _query_of(request)
        perspective = "anonymous" if role == "anonymous" else _perspective(request)
        try:
            result = await self.lake.query_json(query, params, perspective=perspective)
        except GroqError as error:
            raise Refused(400, {"error": {**error.details, "query": query}}) from error
        head: dict[str, Any] = {"ms": int((time.perf_counter() - started) * 1000)}
        if request.query_params.get("returnQuery") != "false":
            head["query"] = query
        # The result is JSON already; parsing and serializing it again would take most of the time.
        body = json.dumps(head)[:-1].encode() + b',"result":' + result + b"}"
        return Response(body, media_type="application/json; charset=utf-8")

    async def doc(self, request: Request) -> Response:
        """Return documents from the document store, in no particular order."""
        role = authorize(request, self.lake)
        documents, omitted = [], []
        for id_ in dict.fromkeys(request.path_params["ids"].split(",")):
            document = self.lake.documents.get(id_)
            if document is None:
                omitted.append({"id": id_, "reason": "existence"})
            elif role == "anonymous" and "." in id_:
                omitted.append({"id": id_, "reason": "permission"})
            else:
                documents.append(document)
        documents.sort(key=lambda document: str(document["_rev"]))
        return JSONResponse({"documents": documents, "omitted": omitted})

    async def users(self, request: Request) -> Response:
        """Return users by id: an object for one id, else a list."""
        if role_of(request, self.lake) == "anonymous":
            raise Refused(401, UNAUTHORIZED)
        found = [{"id": id_, "displayName": self.lake.editors.get(id_, id_)} for id_ in _ids_of(request)]
        return JSONResponse(found[0] if len(found) == 1 else found)

    async def mutate(self, request: Request) -> Response:
        """Apply a transaction."""
        options = request.query_params
        if authorize(request, self.lake) != "administrator":
            raise boom(403, "Forbidden", 'Insufficient permissions; permission "create" required')
        body = await json_of(request)
        mutations = body.get("mutations")
        if not isinstance(mutations, list) or not all(isinstance(item, dict) and len(item) == 1 for item in mutations):
            raise boom(400, "Bad Request", '"mutations" must be an array of mutations')
        transaction = await self.lake.transact(
            mutations,
            transaction_id=body.get("transactionId"),
            author=self.lake.authors[token_of(request)],
            dry_run=options.get("dryRun") == "true",
        )
        if options.get("visibility", "sync") == "sync":
            await self.lake.indexed()
        answer: dict[str, Any] = {"transactionId": transaction.id}
        if options.get("returnIds") == "true" or options.get("returnDocuments") == "true":
            answer["results"] = [dict(result) for result in transaction.results]
        if options.get("returnDocuments") == "true":
            after = {change.id: change.after for change in transaction.changes}
            for result in answer["results"]:
                result["document"] = after.get(result["id"], self.lake.documents.get(result["id"]))
        return JSONResponse(answer)


def _ids_of(request: Request) -> list[str]:
    return str(request.path_params["ids"]).split(",")


async def json_of(request: Request) -> dict[str, Any]:
    """Return the body, which must be a JSON object. Raises Refused."""
    try:
        body = json.loads(await request.body())
    except ValueError as error:
        raise boom(400, "Bad Request", "Request body is not valid JSON") from error
    if not isinstance(body, dict):
        raise boom(400, "Bad Request", "Request body is not a JSON object")
    return body


def params_of(request: Request) -> dict[str, Any]:
    """Return the GROQ parameters of a URL. Raises Refused."""
    try:
        return {k[1:]: json.loads(v) for k, v in request.query_params.items() if k.startswith("$")}
    except ValueError as error:
        raise Refused(400, {"error": {"description": f"unable to parse a parameter as JSON: {error}"}}) from error


async def _query_of(request: Request) -> tuple[str, dict[str, Any]]:
    """Return the query and its parameters, from the URL or the body."""
    if request.method == "POST":
        body = await json_of(request)
        query, params = body.get("query"), body.get("params", {})
    else:
        query = request.query_params.get("query")
        params = params_of(request)
    if not isinstance(query, str) or not query or not isinstance(params, dict):
        raise boom(400, "Bad Request", '"query" is required')
    return query, params


def _perspective(request: Request) -> str:
    tag = request.query_params.get("tag")
    if tag is not None and not TAG.fullmatch(tag):
        raise boom(400, "Bad Request", "Tag can only contain alphanumeric characters, underscores, dashes and dots")
    chosen = request.query_params.get("perspective")
    if chosen is None:
        return "published" if is_published_by_default(request) else "raw"
    if not PERSPECTIVE.fullmatch(chosen) or ("raw" in chosen.split(",") and chosen != "raw"):
        raise boom(400, "Bad Request", f'Invalid perspective "{chosen}"')
    return chosen

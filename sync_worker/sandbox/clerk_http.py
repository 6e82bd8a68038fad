"""What all requests to the Backend API share: the version, the body, and error responses."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response

from sync_worker.sandbox import clerk_errors as errors

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    from starlette.requests import Request

VERSIONS = frozenset({"2026-05-12", "2025-11-10", "2025-04-10", "2024-10-01", "2021-02-05"})
METADATA_MOVED_IN = "2026-05-12"
BODY_ERROR = "The request body is invalid. Please consult the API documentation for more information."


def refusal(_: Request, error: Exception) -> Response:
    """Return the response to a request that raised an error."""
    if not isinstance(error, errors.ClerkError):
        raise error
    headers = {} if error.retry_after is None else {"retry-after": str(error.retry_after)}
    return JSONResponse(error.body(), error.status, headers)


ERROR_HANDLERS: Mapping[Any, Any] = {errors.ClerkError: refusal}


def version_of(request: Request) -> str:
    """Return the requested API version. Raises ClerkError 400."""
    header = request.headers.get("clerk-api-version")
    parameter = request.query_params.get("__clerk_api_version")
    version = header or parameter or METADATA_MOVED_IN
    if version not in VERSIONS or (header is not None and parameter is not None):
        raise errors.version_invalid(version)
    return version


async def body_of(request: Request, known: Container[str]) -> dict[str, Any]:
    """Return the JSON body, which may have only these fields. Raises ClerkError."""
    raw = await request.body()
    if raw and not request.headers.get("content-type", "").startswith("application/json"):
        raise errors.ClerkError(415, "unsupported_content_type", "Content-Type must be application/json.")
    try:
        body = json.loads(raw or b"{}")
    except ValueError as error:
        raise errors.ClerkError(400, "request_body_invalid", BODY_ERROR) from error
    if not isinstance(body, dict):
        raise errors.ClerkError(400, "request_body_invalid", BODY_ERROR)
    for name in body:
        if name not in known:
            raise errors.unknown_parameter(name)
    return body

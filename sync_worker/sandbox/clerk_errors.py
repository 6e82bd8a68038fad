"""Clerk's errors: the envelope, and the codes used here. Codes and texts are from Clerk's published error catalogue."""

from __future__ import annotations

from typing import Any

from sync_worker.sandbox.faults import BAD_GATEWAY, Answer

TRACE_ID = "sandbox0000000000000000000000000"


class ClerkError(Exception):
    """An error response in Clerk's envelope; `retry_after` becomes the Retry-After header, in seconds."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        parameter: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        self.status = status
        self.retry_after = retry_after
        error: dict[str, Any] = {"code": code, "message": message, "long_message": message}
        if parameter is not None:
            error["meta"] = {"param_name": parameter}
        self.error = error
        super().__init__(f"{status} {code}")

    def body(self) -> dict[str, Any]:
        """Return the envelope."""
        return {"errors": [self.error], "clerk_trace_id": TRACE_ID}


def key_invalid() -> ClerkError:
    """Return the error for a wrong secret key."""
    return ClerkError(
        401, "clerk_key_invalid", "The provided Clerk Secret Key is invalid. Make sure that it is correct."
    )


def version_invalid(version: str) -> ClerkError:
    """Return the error for an API version that was never released."""
    return ClerkError(400, "api_version_invalid", f"API version {version!r} is not valid.")


def not_found(what: str) -> ClerkError:
    """Return the error for a resource that does not exist."""
    return ClerkError(404, "resource_not_found", f"No {what} was found with the given id.")


def locked() -> ClerkError:
    """Return the error for two concurrent requests to one resource; the caller may retry."""
    message = "The resource is currently being modified by another request. Please try again."
    return ClerkError(409, "resource_locked", message)


def too_many_requests(retry_after: int) -> ClerkError:
    """Return the error for a caller over the rate limit."""
    return ClerkError(429, "too_many_requests", "Too many requests, retry later.", retry_after=retry_after)


def unknown_parameter(name: str) -> ClerkError:
    """Return the error for an unknown field."""
    return ClerkError(422, "form_param_unknown", f"{name} is not a valid parameter for this request.", parameter=name)


def invalid_value(name: str, reason: str) -> ClerkError:
    """Return the error for an invalid value."""
    return ClerkError(422, "form_param_value_invalid", f"{name} {reason}.", parameter=name)


def missing(name: str) -> ClerkError:
    """Return the error for a missing field."""
    return ClerkError(422, "form_param_missing", f"{name} must be included.", parameter=name)


def taken(name: str) -> ClerkError:
    """Return the error for an identifier that is taken."""
    return ClerkError(422, "form_identifier_exists", f"That {name} is taken. Please try another.", parameter=name)


def too_many_values(name: str, most: int) -> ClerkError:
    """Return the error for a filter with too many values."""
    return ClerkError(422, "form_param_array_size_exceeded", f"{name} takes at most {most} values.", parameter=name)


def metadata_too_large(name: str, most: int) -> ClerkError:
    """Return the error for metadata over the size limit, in bytes."""
    message = f"The given {name} exceeds the maximum allowed size of {most} bytes ({most // 1024} KB)."
    return ClerkError(422, "form_param_exceeds_allowed_size", message, parameter=name)


def _canned(error: ClerkError) -> Answer:
    return Answer.json(error.status, error.body(), retry_after=error.retry_after)


ANSWERS = {
    "unauthorized": _canned(key_invalid()),
    "forbidden": _canned(ClerkError(403, "authorization_invalid", "You are not authorized.")),
    "rate_limited": _canned(too_many_requests(1)),
    "locked": _canned(locked()),
    "conflict": _canned(ClerkError(409, "conflict", "The request conflicts with another one.")),
    "internal": _canned(ClerkError(500, "internal_clerk_error", "There was an internal error on our servers.")),
    "bad_gateway": BAD_GATEWAY,
    "unavailable": _canned(ClerkError(503, "service_unavailable", "Service is temporarily unavailable.")),
    "error_in_ok": _canned(ClerkError(200, "internal_clerk_error", "There was an internal error.")),
}

"""The routes of sessions, their tokens, and JWT templates. `clerk_tokens` signs the tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response

from sync_worker.sandbox import clerk_errors as errors
from sync_worker.sandbox.clerk_filters import Page, refuse_unbuilt
from sync_worker.sandbox.clerk_http import body_of
from sync_worker.sandbox.clerk_tokens import (
    ALGORITHM,
    CLOCK_SKEW_SECONDS,
    LIFETIME_SECONDS,
    RESERVED,
    jwks,
    session_token,
    template_token,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request

    from sync_worker.sandbox.clerk import ClerkApi
    from sync_worker.sandbox.clerk_bodies import Record

LIFETIMES = range(30, 315_360_001)
CLOCK_SKEWS = range(301)
TEMPLATE_FIELDS = frozenset(
    {
        "name",
        "claims",
        "lifetime",
        "allowed_clock_skew",
        "custom_signing_key",
        "signing_algorithm",
        "signing_key",
    }
)
SESSION_LIFETIME = 7 * 86_400_000
"""In milliseconds."""


class SessionRoutes:
    """The handlers of sessions and the key set."""

    def __init__(self, clerk: ClerkApi) -> None:
        self.clerk = clerk

    def _named(self, request: Request) -> Record:
        return _existing(self.clerk.sessions, request.path_params["session"], "session")

    async def jwks(self, _: Request) -> Response:
        """Return the public keys that verify tokens."""
        return JSONResponse(jwks(self.clerk.webhooks.instance_id))

    async def all(self, request: Request) -> Response:
        """Return a page of sessions, newest first, as a bare array."""
        query = request.query_params
        refuse_unbuilt(query, ("user_id", "status"))
        found = [
            one
            for one in reversed(self.clerk.sessions.values())
            if query.get("user_id", one["user_id"]) == one["user_id"]
            and query.get("status", one["status"]) == one["status"]
        ]
        return JSONResponse(list(Page.of(query).cut(found)))

    async def create(self, request: Request) -> Response:
        """Create a session; only for testing, so a production instance refuses it."""
        body = await body_of(request, {"user_id", "active_organization_id"})
        if self.clerk.environment == "production":
            message = "Request only valid for development instances."
            raise errors.ClerkError(400, "request_invalid_for_environment", message)
        if not body.get("user_id"):
            raise errors.missing("user_id")
        user_id, organization_id = self.clerk.user(body["user_id"])["id"], body.get("active_organization_id")
        if organization_id is not None:
            self.clerk.membership(organization_id, user_id)
        now = self.clerk.now()
        session = {
            "object": "session",
            "id": self.clerk.new_id("sess"),
            "user_id": user_id,
            "client_id": self.clerk.new_id("client"),
            "actor": None,
            "status": "active",
            "last_active_organization_id": organization_id,
            "last_active_at": now,
            "expire_at": now + SESSION_LIFETIME,
            "abandon_at": now + SESSION_LIFETIME,
            "created_at": now,
            "updated_at": now,
            "tasks": [],
        }
        self.clerk.sessions[session["id"]] = session
        return JSONResponse(session)

    async def get(self, request: Request) -> Response:
        """Return one session."""
        return JSONResponse(self._named(request))

    async def revoke(self, request: Request) -> Response:
        """End a session. Tokens that were signed before stay valid until they expire."""
        await body_of(request, ())
        session = self._named(request)
        session |= {"status": "revoked", "updated_at": self.clerk.now()}
        return JSONResponse(session)

    async def token(self, request: Request) -> Response:
        """Sign a session token, for the site in the Origin header if there is one."""
        session, lifetime = await self._lifetime(request)
        signed = session_token(self.clerk, session, lifetime, request.headers.get("origin"))
        return JSONResponse({"object": "token", "jwt": signed})

    async def token_of_template(self, request: Request) -> Response:
        """Sign the token of a JWT template, which is named by its name."""
        session, lifetime = await self._lifetime(request)
        name = request.path_params["template"]
        template = next((one for one in self.clerk.templates.values() if one["name"] == name), None)
        if template is None:
            message = f"No JWT template exists with name: {name}"
            raise errors.ClerkError(404, "resource_not_found", message)
        return JSONResponse({"object": "token", "jwt": template_token(self.clerk, session, template, lifetime)})

    async def _lifetime(self, request: Request) -> tuple[Record, int | None]:
        body = await body_of(request, {"expires_in_seconds"})
        lifetime = _number(body, "expires_in_seconds", LIFETIMES, None)
        session = self._named(request)
        if session["status"] != "active":
            raise errors.not_found("active session")
        return session, lifetime


class TemplateRoutes:
    """The handlers of JWT templates. The custom session token is not among them, as only the dashboard changes it."""

    def __init__(self, clerk: ClerkApi) -> None:
        self.clerk = clerk

    def _named(self, request: Request) -> Record:
        return _existing(self.clerk.templates, request.path_params["template"], "JWT template")

    async def all(self, request: Request) -> Response:
        """Return a page of templates, as a bare array."""
        refuse_unbuilt(request.query_params, ())
        return JSONResponse(list(Page.of(request.query_params).cut(list(self.clerk.templates.values()))))

    async def create(self, request: Request) -> Response:
        """Create a template."""
        fields = await self._fields(request, None)
        now = self.clerk.now()
        template = {"object": "jwt_template", "id": self.clerk.new_id("jtmp"), **fields, "created_at": now}
        self.clerk.templates[template["id"]] = {**template, "updated_at": now}
        return JSONResponse(self.clerk.templates[template["id"]])

    async def get(self, request: Request) -> Response:
        """Return one template by id."""
        return JSONResponse(self._named(request))

    async def update(self, request: Request) -> Response:
        """Change a template. Name and claims are required, and the claims are replaced whole."""
        fields = await self._fields(request, request.path_params["template"])
        template = self._named(request)
        template |= {**fields, "updated_at": self.clerk.now()}
        return JSONResponse(template)

    async def delete(self, request: Request) -> Response:
        """Delete a template."""
        template = self.clerk.templates.pop(self._named(request)["id"])
        return JSONResponse({"object": "jwt_template", "id": template["id"], "deleted": True})

    async def _fields(self, request: Request, id_: str | None) -> Record:
        """Return the checked fields of a template. Raises ClerkError."""
        body = await body_of(request, TEMPLATE_FIELDS)
        for name, kind in (("name", str), ("claims", dict)):
            if not body.get(name):
                raise errors.missing(name)
            if not isinstance(body[name], kind):
                raise errors.invalid_value(name, f"must be {'a string' if kind is str else 'an object'}")
        for claim in body["claims"].keys() & RESERVED:
            message = f"You can't use the reserved claim: '{claim}'"
            raise errors.ClerkError(400, "jwt_template_reserved_claim", message, parameter="claims")
        if any(one["name"] == body["name"] and one["id"] != id_ for one in self.clerk.templates.values()):
            raise errors.taken("name")
        if body.get("custom_signing_key"):
            raise errors.ClerkError(501, "not_in_the_sandbox", "The sandbox signs with its own key only.")
        return {
            "name": body["name"],
            "claims": body["claims"],
            "lifetime": _number(body, "lifetime", LIFETIMES, LIFETIME_SECONDS),
            "allowed_clock_skew": _number(body, "allowed_clock_skew", CLOCK_SKEWS, CLOCK_SKEW_SECONDS),
            "custom_signing_key": False,
            "signing_algorithm": ALGORITHM,
        }


def _existing(records: Mapping[str, Record], id_: str, what: str) -> Record:
    if id_ not in records:
        raise errors.not_found(what)
    return records[id_]


def _number(body: Mapping[str, Any], name: str, allowed: range, default: int | None) -> int | None:
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, int) or value not in allowed:
        raise errors.invalid_value(name, f"must be between {allowed[0]} and {allowed[-1]}")
    return value

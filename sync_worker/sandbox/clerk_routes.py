"""Clerk's Backend API over HTTP, version 2026-05-12.

Users, organizations, memberships, sessions and JWT templates, and subscriptions to read. The rules are in `clerk`, the
handlers in `clerk_users`, `clerk_organizations`, `clerk_sessions` and `clerk_billing`. Nothing else is implemented.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import JSONResponse
from starlette.routing import Route

from sync_worker.sandbox import clerk_errors as errors
from sync_worker.sandbox.clerk_billing import BillingRoutes
from sync_worker.sandbox.clerk_http import version_of
from sync_worker.sandbox.clerk_organizations import MembershipRoutes, OrganizationRoutes
from sync_worker.sandbox.clerk_sessions import SessionRoutes, TemplateRoutes
from sync_worker.sandbox.clerk_users import UserRoutes
from sync_worker.sandbox.traffic import subject_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.responses import Response

    from sync_worker.sandbox.clerk import ClerkApi

LIMITED = frozenset({"PATCH", "PUT"})
"""The methods that count against the rate limit of the subject they change."""
UNLIMITED = frozenset({"GET /jwks"})


def routes(clerk: ClerkApi) -> list[Route]:
    """Return all routes of the instance."""
    users, organizations, memberships = UserRoutes(clerk), OrganizationRoutes(clerk), MembershipRoutes(clerk)
    sessions, templates, billing = SessionRoutes(clerk), TemplateRoutes(clerk), BillingRoutes(clerk)
    table: list[tuple[str, str, Callable[[Request], Awaitable[Response]]]] = [
        ("GET", "/instance", lambda _: _instance(clerk)),
        ("GET", "/users", users.all),
        ("POST", "/users", users.create),
        ("GET", "/users/count", users.count),
        ("GET", "/users/{user}", users.get),
        ("PATCH", "/users/{user}", users.update),
        ("DELETE", "/users/{user}", users.delete),
        ("PATCH", "/users/{user}/metadata", users.metadata),
        ("PUT", "/users/{user}/metadata", users.metadata),
        ("GET", "/users/{user}/organization_memberships", memberships.of_user),
        ("GET", "/organizations", organizations.all),
        ("POST", "/organizations", organizations.create),
        ("GET", "/organizations/{organization}", organizations.get),
        ("PATCH", "/organizations/{organization}", organizations.update),
        ("DELETE", "/organizations/{organization}", organizations.delete),
        ("PATCH", "/organizations/{organization}/metadata", organizations.metadata),
        ("PUT", "/organizations/{organization}/metadata", organizations.metadata),
        ("GET", "/organization_memberships", memberships.all),
        ("GET", "/organizations/{organization}/memberships", memberships.of_organization),
        ("POST", "/organizations/{organization}/memberships", memberships.create),
        ("PATCH", "/organizations/{organization}/memberships/{user}", memberships.update),
        ("DELETE", "/organizations/{organization}/memberships/{user}", memberships.delete),
        ("PATCH", "/organizations/{organization}/memberships/{user}/metadata", memberships.metadata),
        ("GET", "/users/{user}/billing/subscription", billing.of_user),
        ("GET", "/organizations/{organization}/billing/subscription", billing.of_organization),
        ("GET", "/jwks", sessions.jwks),
        ("GET", "/sessions", sessions.all),
        ("POST", "/sessions", sessions.create),
        ("GET", "/sessions/{session}", sessions.get),
        ("POST", "/sessions/{session}/revoke", sessions.revoke),
        ("POST", "/sessions/{session}/tokens", sessions.token),
        ("POST", "/sessions/{session}/tokens/{template}", sessions.token_of_template),
        ("GET", "/jwt_templates", templates.all),
        ("POST", "/jwt_templates", templates.create),
        ("GET", "/jwt_templates/{template}", templates.get),
        ("PATCH", "/jwt_templates/{template}", templates.update),
        ("DELETE", "/jwt_templates/{template}", templates.delete),
    ]
    return [
        Route(f"/v1{path}", _guarded(clerk, f"{method} {path}", serve), methods=[method])
        for method, path, serve in table
    ]


async def _instance(clerk: ClerkApi) -> Response:
    body = {"object": "instance", "id": clerk.webhooks.instance_id, "environment_type": clerk.environment}
    return JSONResponse({**body, "allowed_origins": None, "workspace_id": None})


def _guarded(
    clerk: ClerkApi, endpoint: str, serve: Callable[[Request], Awaitable[Response]]
) -> Callable[[Request], Awaitable[Response]]:
    """Wrap a handler with the checks of key, version and rate limits."""

    async def guarded(request: Request) -> Response:
        if request.headers.get("authorization") != f"Bearer {clerk.secret_key}":
            raise errors.key_invalid()
        version_of(request)
        if endpoint not in UNLIMITED:
            clerk.limiter.check(endpoint, subject_of(request.url.path) if request.method in LIMITED else "")
        return await serve(request)

    return guarded

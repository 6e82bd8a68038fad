"""Clerk's OpenAPI file, which is not shipped, and how what passes over the wire differs from it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from sync_worker.sandbox import clerk_routes
from sync_worker.sandbox.clerk import ClerkApi
from tests.contract.openapi import Specification
from tests.wire import Exchange

if TYPE_CHECKING:
    from collections.abc import Sequence


BESIDE = Path(__file__).parents[2].parent / "shared" / "vectors" / "clerk-bapi-2026-05-12.yml"
FILE = Path(os.environ.get("CLERK_OPENAPI", BESIDE))
if not FILE.exists():
    pytest.skip("set CLERK_OPENAPI to bapi/2026-05-12.yml of github.com/clerk/openapi-specs", allow_module_level=True)
CLERK = Specification(yaml.load(FILE.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
"""Clerk's own file, which is not ours to ship."""

ROUTES = [
    (method, route.path.removeprefix("/v1"))
    for route in clerk_routes.routes(ClerkApi())
    for method in (route.methods or set()) - {"HEAD"}
]
UNDOCUMENTED = {
    ("GET", "/organizations/{organization_id}/memberships"): {404},
    ("GET", "/users/{user_id}/organization_memberships"): {404},
}
"""Answers about somebody who is gone that the file leaves out, though it has them for the routes beside these."""
ANYWHERE = {400, 401, 409, 415, 429, 500, 502, 503}
"""What any route may answer by Clerk's error catalogue, whether the file repeats it there or not."""


def differences(exchanges: Sequence[Exchange]) -> list[str]:
    return [problem for exchange in exchanges for problem in CLERK.problems(without_version(exchange))]


def without_version(exchange: Exchange) -> Exchange:
    """Return the exchange with its path as the file has it."""
    return Exchange(**{**vars(exchange), "path": exchange.path.removeprefix("/v1")})


def route_of(method: str, path: str) -> str:
    """Return the stand-in's route of a request; routes with fewer placeholders go first in its table."""
    parts = path.removeprefix("/v1").split("/")
    for known, template in ROUTES:
        wanted = template.split("/")
        if known == method and len(wanted) == len(parts):
            pairs = zip(wanted, parts, strict=True)
            if all(w == p or w.startswith("{") for w, p in pairs):
                return template
    return path


def envelope_problems(exchange: Exchange) -> list[str]:
    return list(CLERK.schema_problems({"$ref": "#/components/schemas/ClerkErrors"}, exchange.answered))

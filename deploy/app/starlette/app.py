"""A small app with gated courses: what a session token says decides what is read from Sanity and shown.

Run it with `pip install starlette uvicorn httpx clerk-backend-api` and `uvicorn app:app`. It reads CLERK_JWT_KEY (the
JWKS public key, under API keys in Clerk's dashboard), APP_ORIGINS (such as https://app.example.com), SANITY_PROJECT_ID,
SANITY_DATASET and SANITY_READ_TOKEN.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import httpx
from clerk_backend_api.security import AuthenticateRequestOptions, authenticate_request
from starlette.applications import Starlette
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request

COURSES = '*[_type == "course" && slug.current in $courses] | order(title) {title, "slug": slug.current}'
API_VERSION = "2025-02-19"


@dataclass(frozen=True)
class Access:
    """What a person may see, by the claims of deploy/clerk/session-token.json."""

    plan: str | None
    courses: tuple[str, ...]

    @classmethod
    def of(cls, claims: Mapping[str, Any]) -> Access:
        """Read the claims. A claim of another type, such as an unresolved shortcode, gives nothing."""
        plan, courses = claims.get("plan"), claims.get("courseSlugs")
        known = courses if isinstance(courses, list) else []
        return cls(plan if isinstance(plan, str) else None, tuple(slug for slug in known if isinstance(slug, str)))


def claims_of(request: Request) -> Mapping[str, Any] | None:
    """Return the claims of a verified session; None for nobody, an expired token or another origin.

    The key makes it work without a call to Clerk. `authorized_parties` refuses tokens that were made for another site.
    """
    options = AuthenticateRequestOptions(
        jwt_key=os.environ["CLERK_JWT_KEY"],
        authorized_parties=os.environ["APP_ORIGINS"].split(","),
        accepts_token=["session_token"],
    )
    state = authenticate_request(request, options)
    return state.payload if state.is_signed_in else None


async def courses(access: Access) -> list[dict[str, str]]:
    """Read the courses of a person. The slugs are bound as a parameter, never written into the query."""
    project, dataset = os.environ["SANITY_PROJECT_ID"], os.environ.get("SANITY_DATASET", "production")
    base = os.environ.get("SANITY_API_URL") or f"https://{project}.api.sanity.io"
    query = {"query": COURSES, "$courses": json.dumps(access.courses), "perspective": "published"}
    headers = {"authorization": f"Bearer {os.environ['SANITY_READ_TOKEN']}"}
    async with httpx.AsyncClient() as client:
        response = await client.get(f"{base}/v{API_VERSION}/data/query/{dataset}", params=query, headers=headers)
        response.raise_for_status()
    found: list[dict[str, str]] = response.json()["result"]
    return found


async def overview(request: Request) -> Response:
    """List the courses of the person."""
    claims = claims_of(request)
    if claims is None:
        return page("Please sign in", "", 401)
    access = Access.of(claims)
    items = [f'<li><a href="/courses/{escape(c["slug"])}">{escape(c["title"])}</a></li>' for c in await courses(access)]
    return page(f"Your plan: {access.plan or 'none'}", f"<ul>{''.join(items)}</ul>")


async def course(request: Request) -> Response:
    """Show one course, if the person has it."""
    claims = claims_of(request)
    if claims is None:
        return page("Please sign in", "", 401)
    access, slug = Access.of(claims), request.path_params["slug"]
    if slug not in access.courses:
        return page("Not in your plan", "<p>Ask your administrator, or upgrade.</p>", 403)
    found = next((one for one in await courses(access) if one["slug"] == slug), None)
    return page(found["title"], "<p>Welcome to the course.</p>") if found else page("Not found", "", 404)


async def debug(request: Request) -> Response:
    """Show the claims of the person's own token, and what the app makes of them."""
    claims = claims_of(request)
    if claims is None:
        return page("Please sign in", "", 401)
    shown = escape(json.dumps(claims, indent=2, ensure_ascii=False))
    return page("Your claims", f"<pre>{shown}</pre><p>{escape(str(Access.of(claims)))}</p>")


def page(title: str, body: str, status: int = 200) -> Response:
    """Return a page that no cache keeps, because access may end within a minute."""
    html = f"<!doctype html><title>{escape(title)}</title><h1>{escape(title)}</h1>{body}"
    return HTMLResponse(html, status, {"cache-control": "private, no-store"})


app = Starlette(
    routes=[Route("/", overview), Route("/courses/{slug}", course), Route("/debug/claims", debug)],
)

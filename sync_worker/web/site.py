"""What all pages share: templates, who may see them, forms, and the headers of every response."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, urlencode
from zoneinfo import ZoneInfo, available_timezones

from starlette.responses import JSONResponse, RedirectResponse, Response

from sync_worker.domain.work import CauseKind
from sync_worker.errors import DatabaseUnavailable, InvalidSubject
from sync_worker.formatting import at, relative
from sync_worker.storage.database import patience
from sync_worker.transport import current_lane
from sync_worker.web.auth import SESSION_KEY
from sync_worker.webhooks.receiver import read_body

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator
    from datetime import tzinfo

    from jinja2 import Environment
    from starlette.requests import Request

    from sync_worker.clerk.directory import Directory
    from sync_worker.clerk.names import Names
    from sync_worker.diagnostics.explainer import Explainer
    from sync_worker.diagnostics.status import StatusReader
    from sync_worker.domain.clock import Clock
    from sync_worker.domain.timings import Timings
    from sync_worker.sanity.editors import Editors
    from sync_worker.storage.approvals import Approvals
    from sync_worker.storage.ledger import Entry
    from sync_worker.storage.queue import WorkQueue
    from sync_worker.web.auth import Authenticator

    Handler = Callable[["Pages", Request], Awaitable[Response]]

TEMPLATES = Path(__file__).parent / "templates"
SESSION = "sync_worker_session"
"""The cookie of a session."""
SIGN_OUT = "sign-out"
ZONE = "sync_worker_zone"
"""The cookie with the time zone that a browser chose."""
CLERK_DASHBOARD = "https://dashboard.clerk.com/last-active?path="
"""It opens in the instance that the browser saw last."""
NAMED = re.compile(r"(?:user|org|membership):\S+")
LANE = 2
"""Pages use the lowest lane, so that they never take calls from queued work."""
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


@dataclass(frozen=True, slots=True)
class Pages:
    """What the pages need."""

    authenticator: Authenticator
    status: StatusReader
    explainer: Explainer
    directory: Directory
    names: Names
    editors: Editors
    queue: WorkQueue
    approvals: Approvals
    studio_url: str
    clock: Clock
    timings: Timings

    async def show(self, request: Request, name: str, data: dict[str, Any], **view: Any) -> Response:
        """Answer as `answer` does, with the names of the subjects in it. `view` is for the page alone."""
        names = {} if wants_json(request) else await self.names.of(_keys_in([data, view]))
        return self.answer(request, name, data, names=names, view=view)

    def answer(  # noqa: PLR0917 - what a page has
        self,
        request: Request,
        name: str,
        data: dict[str, Any],
        status: int = 200,
        names: Mapping[str, str] | None = None,
        view: Mapping[str, Any] | None = None,
    ) -> Response:
        """Answer with `data`: as JSON if the client accepts it, else as the page `name`."""
        if wants_json(request):
            return JSONResponse(data, status)
        page = (
            _templates()
            .get_template(f"{name}.html")
            .render(
                data=data,
                view=view or {},
                names=names or {},
                zone=zone_of(request),
                now=self.clock.now(),
                studio_url=self.studio_url,
                sign_out_code=self.code(request, SIGN_OUT),
                page=name,
            )
        )
        return Response(page, status, media_type="text/html")

    def code(self, request: Request, purpose: str) -> str:
        """Return the code of a form, good for one purpose in this session; empty without a session."""
        signed_in = getattr(request.state, "signed_in", False)
        return self.authenticator.form_code(request.cookies[SESSION], purpose) if signed_in else ""

    def message(self, request: Request, headline: str, text: str, status: int) -> Response:
        """Answer with a message instead of content."""
        return self.answer(request, "message", {"headline": headline, "text": text}, status)

    async def editors_of(self, request: Request, entries: Iterable[Entry]) -> Mapping[str, str]:
        """Return the names of the editors behind changes, by id, for the page alone."""
        return (
            {} if wants_json(request) else await self.editors.of({entry.by for entry in entries if _is_editor(entry)})
        )

    async def session_key(self) -> str:
        """Return what sessions are signed with; empty until the first sign-out. Raises DatabaseUnavailable."""
        kept = await self.queue.recall(SESSION_KEY)
        return kept[0] if kept else ""

    async def is_signed_in(self, request: Request) -> bool:
        """Return whether the request has the cookie of a session. Raises DatabaseUnavailable."""
        cookie = request.cookies.get(SESSION, "")
        signed_in = bool(cookie) and self.authenticator.is_session(cookie, await self.session_key())
        request.state.signed_in = signed_in
        return signed_in


@cache
def _templates() -> Environment:
    """Return the templates, which are compiled once a process."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # noqa: PLC0415 - only where pages are on

    templates = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    filters = {"clock": _clock, "relative": _relative, "link": link, "studio": _studio, "clerk": clerk_link}
    templates.filters.update(filters, query=urlencode)
    return templates


@cache
def time_zones() -> frozenset[str]:
    """Return the names of all time zones, which are files to be looked for."""
    return frozenset(available_timezones())


def _clock(text: str, now: float, zone: tzinfo) -> str:
    """Format an RFC 3339 time for people, with the abbreviation of its time zone."""
    moment = datetime.fromisoformat(text)
    return f"{at(moment.timestamp(), now, zone)} {moment.astimezone(zone).tzname()}"


def _relative(text: str, now: float) -> str:
    """Format an RFC 3339 time as seen from `now`."""
    return relative(datetime.fromisoformat(text).timestamp(), now)


def _studio(document: str, studio_url: str) -> str:
    """Return the address of a document in the Studio."""
    return f"{studio_url}/intent/edit/id={quote(document, safe='')}"


def wants_json(request: Request) -> bool:
    """Return whether the client accepts JSON but not HTML."""
    accept = request.headers.get("accept", "")
    return "application/json" in accept and "text/html" not in accept


def _is_editor(entry: Entry) -> bool:
    return bool(entry.by) and not entry.cause.startswith((CauseKind.APPROVE, "drop"))


def zone_of(request: Request) -> tzinfo:
    """Return the time zone that a browser chose, else UTC."""
    name = request.cookies.get(ZONE, "")
    return ZoneInfo(name) if name in time_zones() else UTC


def clerk_link(key: str) -> str:
    """Return the address of a user or an organization in Clerk's dashboard; empty for other keys."""
    kind, _, id_ = key.partition(":")
    match kind:
        case "user":
            return f"{CLERK_DASHBOARD}users/{id_}"
        case "org":
            return f"{CLERK_DASHBOARD}organizations/{id_}"
        case _:
            return ""


def _keys_in(value: object) -> Iterator[str]:
    """Yield the subjects in a JSON value."""
    if isinstance(value, str):
        if NAMED.fullmatch(value):
            yield value
    elif isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _keys_in(item)


def link(key: str) -> str:
    """Return the path of the page about a subject or a document; empty for a masked address."""
    if "***" in key:
        return ""
    document = key.removeprefix("document:")
    return f"/documents/{quote(document, safe='')}" if document != key else f"/subjects/{quote(key, safe=':/')}"


def open_to_all(handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    """Wrap a handler that needs no authentication: map errors, and set the security headers."""

    async def answer(request: Request) -> Response:
        pages: Pages = request.app.state.pages
        lane = current_lane.set(LANE)
        try:
            async with patience(pages.timings.database_patience):
                response = await handler(pages, request)
        except InvalidSubject as error:
            response = pages.message(request, error.headline(), error.next_step(), 404)
        except DatabaseUnavailable as error:
            response = pages.message(request, error.headline(), error.next_step(), 503)
        finally:
            current_lane.reset(lane)
        response.headers.update(HEADERS)
        return response

    return answer


def guarded(handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    """Wrap a handler that needs a session or the token. Browsers without one go to the sign-in form."""

    async def answer(pages: Pages, request: Request) -> Response:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            refused = refusal(pages, request, token.strip().encode("latin-1"))
            if refused is None:
                return await handler(pages, request)
            status, reason = refused
            return JSONResponse({"error": reason}, status, headers={"WWW-Authenticate": "Bearer"})
        if await pages.is_signed_in(request):
            return await handler(pages, request)
        if wants_json(request):
            return JSONResponse({"error": "unauthorized"}, 401, headers={"WWW-Authenticate": "Bearer"})
        query = f"?{request.url.query}" if request.url.query else ""
        return RedirectResponse(f"/sign-in?next={quote(request.url.path + query, safe='/')}", 303)

    return open_to_all(answer)


def refusal(pages: Pages, request: Request, token: bytes) -> tuple[int, str] | None:
    """Check a token: return None if it is valid, else the HTTP status and the error code."""
    if pages.authenticator.is_token(token):
        return None
    client = request.client.host if request.client else ""
    exhausted = pages.authenticator.guesses.exhausted(client, token)
    return (429, "too_many_guesses") if exhausted else (401, "unauthorized")


async def form_of(request: Request) -> dict[str, str]:
    """Return the fields of a form; the first value of a repeated field."""
    body = await read_body(request) or b""
    return {name: values[0] for name, values in parse_qs(body.decode("utf-8", "replace")).items()}

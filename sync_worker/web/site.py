"""What all pages share: templates, who may see them, forms, and the headers of every response."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote

from starlette.responses import JSONResponse, RedirectResponse, Response

from sync_worker.errors import DatabaseUnavailable, InvalidSubject
from sync_worker.formatting import at
from sync_worker.transport import current_lane
from sync_worker.web.auth import SESSION_KEY
from sync_worker.webhooks.receiver import read_body

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from jinja2 import Environment
    from starlette.requests import Request

    from sync_worker.clerk.directory import Directory
    from sync_worker.diagnostics.explainer import Explainer
    from sync_worker.diagnostics.status import StatusReader
    from sync_worker.domain.clock import Clock
    from sync_worker.domain.timings import Timings
    from sync_worker.storage.approvals import Approvals
    from sync_worker.storage.queue import WorkQueue
    from sync_worker.web.auth import Authenticator

    Handler = Callable[["Pages", Request], Awaitable[Response]]

TEMPLATES = Path(__file__).parent / "templates"
SESSION = "sync_worker_session"
"""The cookie of a session."""
SIGN_OUT = "sign-out"
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
    queue: WorkQueue
    approvals: Approvals
    clock: Clock
    timings: Timings
    _templates: Environment = field(init=False)

    def __post_init__(self) -> None:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined  # noqa: PLC0415 - only where pages are on

        templates = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
        templates.filters["clock"] = self._clock
        templates.filters["link"] = link
        object.__setattr__(self, "_templates", templates)

    def answer(self, request: Request, name: str, data: dict[str, Any], status: int = 200) -> Response:
        """Answer with `data`: as JSON if the client accepts it, else as the page `name`."""
        if wants_json(request):
            return JSONResponse(data, status)
        signed_in = getattr(request.state, "signed_in", False)
        code = self.authenticator.form_code(request.cookies[SESSION], SIGN_OUT) if signed_in else ""
        page = self._templates.get_template(f"{name}.html").render(data=data, sign_out_code=code, page=name)
        return Response(page, status, media_type="text/html")

    def message(self, request: Request, headline: str, text: str, status: int) -> Response:
        """Answer with a message instead of content."""
        return self.answer(request, "message", {"headline": headline, "text": text}, status)

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

    def _clock(self, text: str) -> str:
        """Format an RFC 3339 time for people."""
        return at(datetime.fromisoformat(text).timestamp(), self.clock.now())


def wants_json(request: Request) -> bool:
    """Return whether the client accepts JSON but not HTML."""
    accept = request.headers.get("accept", "")
    return "application/json" in accept and "text/html" not in accept


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

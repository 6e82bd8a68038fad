"""The pages: the status, one subject, one document, who has what, and a held changeset, as HTML and as JSON.

They are read-only, need no scripts, and exist only when ADMIN_TOKEN is set.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote

from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from sync_worker.diagnostics.explainer import parse_target
from sync_worker.diagnostics.report import Wanted, holders, holding_json
from sync_worker.diagnostics.serialize import document_json, subject_json, without_addresses
from sync_worker.diagnostics.status import held_json
from sync_worker.domain.subjects import Subject
from sync_worker.errors import DatabaseUnavailable, InvalidSubject
from sync_worker.formatting import at
from sync_worker.transport import current_lane
from sync_worker.web.auth import SESSION_KEY, same
from sync_worker.webhooks.receiver import read_body

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from jinja2 import Environment
    from starlette.requests import Request

    from sync_worker.diagnostics.explainer import Explainer
    from sync_worker.diagnostics.status import StatusReader
    from sync_worker.domain.clock import Clock
    from sync_worker.domain.timings import Timings
    from sync_worker.storage.approvals import Approvals
    from sync_worker.storage.state import NamedValues
    from sync_worker.web.auth import Authenticator

    Handler = Callable[["Pages", Request], Awaitable[Response]]

TEMPLATES = Path(__file__).parent / "templates"
SESSION, FORM = "sync_worker_session", "sync_worker_form"
LANE = 2
"""Pages use the lowest lane, so that they never take calls from queued work."""
HELD_SHOWN = 500
HOLDERS_SHOWN = 500
WHO = ("plan", "role", "course")
"""The parameters of /who."""
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
    approvals: Approvals
    state: NamedValues
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
        code = self.authenticator.sign_out_code(request.cookies[SESSION]) if signed_in else ""
        page = self._templates.get_template(f"{name}.html").render(data=data, sign_out_code=code, page=name)
        return Response(page, status, media_type="text/html")

    def message(self, request: Request, headline: str, text: str, status: int) -> Response:
        """Answer with a message instead of content."""
        return self.answer(request, "message", {"headline": headline, "text": text}, status)

    async def session_key(self) -> str:
        """Return what sessions are signed with; empty until the first sign-out. Raises DatabaseUnavailable."""
        kept = await self.state.recall(SESSION_KEY)
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


def routes() -> list[Route]:
    """Return the routes. They expect a `Pages` in the state of the application."""
    return [
        Route("/status", _guarded(_status)),
        Route("/documents/{id}", _guarded(_document)),
        Route("/subjects/{subject:path}", _guarded(_subject)),
        Route("/held/{id}", _guarded(_held)),
        Route("/who", _guarded(_who)),
        Route("/look", _guarded(_look), methods=["POST"]),
        Route("/sign-in", _open(_sign_in), methods=["GET", "POST"]),
        Route("/sign-out", _open(_sign_out), methods=["POST"]),
        Route("/status.css", _open(_style)),
    ]


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


def _open(handler: Handler) -> Callable[[Request], Awaitable[Response]]:
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


def _guarded(handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    """Wrap a handler that needs a session or the token. Browsers without one go to the sign-in form."""

    async def answer(pages: Pages, request: Request) -> Response:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            refusal = _refusal(pages, request, token.strip().encode("latin-1"))
            if refusal is None:
                return await handler(pages, request)
            status, reason = refusal
            return JSONResponse({"error": reason}, status, headers={"WWW-Authenticate": "Bearer"})
        if await pages.is_signed_in(request):
            return await handler(pages, request)
        if wants_json(request):
            return JSONResponse({"error": "unauthorized"}, 401, headers={"WWW-Authenticate": "Bearer"})
        query = f"?{request.url.query}" if request.url.query else ""
        return RedirectResponse(f"/sign-in?next={quote(request.url.path + query, safe='/')}", 303)

    return _open(answer)


def _refusal(pages: Pages, request: Request, token: bytes) -> tuple[int, str] | None:
    """Check a token: return None if it is valid, else the HTTP status and the error code."""
    if pages.authenticator.is_token(token):
        return None
    client = request.client.host if request.client else ""
    exhausted = pages.authenticator.guesses.exhausted(client, token)
    return (429, "too_many_guesses") if exhausted else (401, "unauthorized")


async def _status(pages: Pages, request: Request) -> Response:
    return pages.answer(request, "status", await pages.status.status())


async def _document(pages: Pages, request: Request) -> Response:
    target = parse_target(f"document:{request.path_params['id']}")
    explained = await pages.explainer.document(str(target))
    data = document_json(explained)
    if wants_json(request):
        return JSONResponse(data)
    details = [subject_json(one) for one in explained.subjects]
    return pages.answer(request, "document", {**data, "details": details})


async def _subject(pages: Pages, request: Request) -> Response:
    return await _explained(pages, request, Subject.parse(request.path_params["subject"]))


async def _explained(pages: Pages, request: Request, subject: Subject) -> Response:
    return pages.answer(request, "subject", subject_json(await pages.explainer.subject(subject)))


async def _held(pages: Pages, request: Request) -> Response:
    held = await pages.approvals.find(request.path_params["id"])
    if held is None:
        text = "It was approved, has expired, or never existed. `sync-worker approve` lists all held changesets."
        return pages.message(request, "No changeset is held under this id.", text, 404)
    of = pages.approvals
    changes = await (of.all_changes(held.id) if wants_json(request) else of.changes(held.id, limit=HELD_SHOWN))
    data = without_addresses(held_json(held, changes))
    assert isinstance(data, dict)  # noqa: S101 - for the type checker
    return pages.answer(request, "held", data)


async def _who(pages: Pages, request: Request) -> Response:
    """List who has a plan, a role or a course, by what was last written."""
    given = {name: request.query_params.get(name, "").strip() for name in WHO}
    wanted = Wanted.of(**given)
    if not wanted.values and wants_json(request):
        return JSONResponse({"error": "no_filter"}, 400)
    limit = None if wants_json(request) else HOLDERS_SHOWN
    count, found = await holders(pages.status.ledger, wanted, limit) if wanted.values else (0, [])
    data = {"filter": {name: value for name, value in given.items() if value}, "count": count}
    people = [{key: value for key, value in holding_json(one).items() if key != "until"} for one in found]
    return pages.answer(request, "who", {**data, "subjects": without_addresses(people)})


async def _look(pages: Pages, request: Request) -> Response:
    """Redirect to the page about what was typed. An address is answered directly, so that no URL contains it."""
    target = parse_target((await _form(request)).get("what", ""))
    if isinstance(target, Subject) and target.is_address:
        return await _explained(pages, request, target)
    key = f"document:{target}" if isinstance(target, str) else str(target)
    return RedirectResponse(link(key), 303)


async def _sign_in(pages: Pages, request: Request) -> Response:
    if request.method != "POST":
        return _sign_in_form(pages, request, request.query_params.get("next", ""))
    form = await _form(request)
    code = request.cookies.get(FORM, "")
    if not code or not same(form.get("code", ""), code):
        return _sign_in_form(pages, request, form.get("next", ""), "The form has expired. Please try again.", 400)
    refusal = _refusal(pages, request, form.get("token", "").strip().encode())
    if refusal is not None:
        status, reason = refusal
        problems = {
            "unauthorized": "This token is invalid.",
            "too_many_guesses": "Too many attempts. Wait a minute.",
        }
        return _sign_in_form(pages, request, form.get("next", ""), problems[reason], status)
    response = RedirectResponse(_own_path(form.get("next", "")), 303)
    cookie = pages.authenticator.new_session(await pages.session_key())
    _set_cookie(response, request, SESSION, cookie, pages.timings.session_lifetime)
    response.delete_cookie(FORM)
    return response


def _sign_in_form(pages: Pages, request: Request, onward: str, problem: str = "", status: int = 200) -> Response:
    """Answer with the form and a matching cookie, which protects it against CSRF."""
    code = secrets.token_urlsafe(16)
    data = {"code": code, "next": _own_path(onward), "problem": problem}
    response = pages.answer(request, "sign_in", data, status)
    _set_cookie(response, request, FORM, code, pages.timings.form_lifetime)
    return response


async def _sign_out(pages: Pages, request: Request) -> Response:
    cookie = request.cookies.get(SESSION, "")
    if not same((await _form(request)).get("code", ""), pages.authenticator.sign_out_code(cookie)):
        return pages.message(request, "You were not signed out.", "The form is of another session.", 400)
    if await pages.is_signed_in(request):
        await pages.state.remember(SESSION_KEY, secrets.token_urlsafe(16))
    response = RedirectResponse("/sign-in", 303)
    response.delete_cookie(SESSION)
    return response


async def _style(_: Pages, __: Request) -> Response:
    return Response((TEMPLATES / "status.css").read_text(encoding="utf-8"), media_type="text/css")


async def _form(request: Request) -> dict[str, str]:
    """Return the fields of a form; the first value of a repeated field."""
    body = await read_body(request) or b""
    return {name: values[0] for name, values in parse_qs(body.decode("utf-8", "replace")).items()}


def _own_path(text: str) -> str:
    """Return `text` if it is a path of these pages, else /status: no redirects to other sites."""
    own = text.startswith(("/status", "/documents/", "/subjects/", "/held/", "/who"))
    return quote(text, safe="/:%?=&+") if own and text.isprintable() else "/status"


def _set_cookie(response: Response, request: Request, name: str, value: str, seconds: float) -> None:
    forwarded = request.headers.get("x-forwarded-proto", "").partition(",")[0].strip()
    secure = "https" in (request.url.scheme, forwarded)
    response.set_cookie(name, value, max_age=int(seconds), httponly=True, samesite="lax", secure=secure)

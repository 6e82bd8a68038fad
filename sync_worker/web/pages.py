"""What people look at in a browser: the status, one subject, one document, a held list; the same as JSON for programs.

Why it exists: an editor asks whether a publish has arrived, an operator what is wrong, and neither should need a shell.
The pages only read, work without scripts, and are there when ADMIN_TOKEN is set. Who may see them is `admission`, what
they say `status` and `inquiry`; approving what is held stays with the command line.
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
from sync_worker.diagnostics.serialize import document_json, subject_json, without_addresses
from sync_worker.diagnostics.status import held_json
from sync_worker.domain.subjects import Subject
from sync_worker.errors import DatabaseUnavailable, InvalidSubject
from sync_worker.formatting import at
from sync_worker.transport import current_lane
from sync_worker.web.auth import same
from sync_worker.webhooks.receiver import read_body

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from jinja2 import Environment
    from starlette.requests import Request

    from sync_worker.diagnostics.explainer import Explainer
    from sync_worker.diagnostics.status import StatusReader
    from sync_worker.domain.clock import Clock
    from sync_worker.domain.timings import Timings
    from sync_worker.storage.reconcile_runs import Runs
    from sync_worker.web.auth import Authenticator

    Handler = Callable[["Pages", Request], Awaitable[Response]]

TEMPLATES = Path(__file__).parent / "templates"
SESSION, FORM = "sync_worker_session", "sync_worker_form"
LANE = 2
"""People who look never take calls from work that is due."""
HELD_SHOWN = 500
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
    """The parts that pages are made of."""

    admission: Authenticator
    glance: StatusReader
    explainer: Explainer
    runs: Runs
    clock: Clock
    timings: Timings
    _templates: Environment = field(init=False)

    def __post_init__(self) -> None:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined  # noqa: PLC0415 - only where pages are on

        templates = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
        templates.filters["clock"] = self._clock
        templates.filters["link"] = link
        object.__setattr__(self, "_templates", templates)

    def answer(self, request: Request, name: str, told: dict[str, Any], status: int = 200) -> Response:
        """Answer with what is told: as JSON if that is asked for, else as the page `name`."""
        if wants_json(request):
            return JSONResponse(told, status)
        cookie = request.cookies.get(SESSION, "")
        signed_in = self.admission.is_session(cookie)
        code = self.admission.sign_out_code(cookie) if signed_in else ""
        page = self._templates.get_template(f"{name}.html").render(told=told, sign_out_code=code, page=name)
        return Response(page, status, media_type="text/html")

    def message(self, request: Request, headline: str, text: str, status: int) -> Response:
        """Answer in plain words that there is nothing to show."""
        return self.answer(request, "message", {"headline": headline, "text": text}, status)

    def _clock(self, text: str) -> str:
        """Put an RFC 3339 moment as people read it."""
        return at(datetime.fromisoformat(text).timestamp(), self.clock.now())


def routes() -> list[Route]:
    """Return the routes. The application has `Pages` in its state."""
    return [
        Route("/status", _guarded(_status)),
        Route("/documents/{id}", _guarded(_document)),
        Route("/subjects/{subject:path}", _guarded(_subject)),
        Route("/held/{id}", _guarded(_held)),
        Route("/look", _guarded(_look), methods=["POST"]),
        Route("/sign-in", _open(_sign_in), methods=["GET", "POST"]),
        Route("/sign-out", _open(_sign_out), methods=["POST"]),
        Route("/status.css", _open(_style)),
    ]


def wants_json(request: Request) -> bool:
    """Tell whether a program asks, not a browser."""
    accept = request.headers.get("accept", "")
    return "application/json" in accept and "text/html" not in accept


def link(key: str) -> str:
    """Return the path of the page about a subject or a document; none about somebody whose address is masked."""
    if "***" in key:
        return ""
    document = key.removeprefix("document:")
    return f"/documents/{quote(document, safe='')}" if document != key else f"/subjects/{quote(key, safe=':/')}"


def _open(handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    """Let everybody in, and keep what is answered out of caches and frames."""

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
    """Let in who has signed in, or sends the token; the others to the form, or away."""

    async def answer(pages: Pages, request: Request) -> Response:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            refusal = _refusal(pages, request, token.strip().encode("latin-1"))
            if refusal is None:
                return await handler(pages, request)
            status, reason = refusal
            return JSONResponse({"error": reason}, status, headers={"WWW-Authenticate": "Bearer"})
        if pages.admission.is_session(request.cookies.get(SESSION, "")):
            return await handler(pages, request)
        if wants_json(request):
            return JSONResponse({"error": "unauthorized"}, 401, headers={"WWW-Authenticate": "Bearer"})
        return RedirectResponse(f"/sign-in?next={quote(request.url.path, safe='/')}", 303)

    return _open(answer)


def _refusal(pages: Pages, request: Request, token: bytes) -> tuple[int, str] | None:
    """Judge a token that somebody sends: None when it is right, else a status and why."""
    client = request.client.host if request.client else ""
    guesses = pages.admission.guesses
    if guesses.exhausted(client):
        return 429, "too_many_guesses"
    if pages.admission.is_token(token):
        return None
    guesses.wrong(client)
    return 401, "unauthorized"


async def _status(pages: Pages, request: Request) -> Response:
    return pages.answer(request, "status", await pages.glance.status())


async def _document(pages: Pages, request: Request) -> Response:
    target = parse_target(f"document:{request.path_params['id']}")
    explained = await pages.explainer.document(str(target))
    told = document_json(explained)
    if wants_json(request):
        return JSONResponse(told)
    details = [subject_json(one) for one in explained.subjects]
    return pages.answer(request, "document", {**told, "details": details})


async def _subject(pages: Pages, request: Request) -> Response:
    return await _explained(pages, request, Subject.parse(request.path_params["subject"]))


async def _explained(pages: Pages, request: Request, subject: Subject) -> Response:
    return pages.answer(request, "subject", subject_json(await pages.explainer.subject(subject)))


async def _held(pages: Pages, request: Request) -> Response:
    held = await pages.runs.find(request.path_params["id"])
    if held is None:
        text = "It was approved, has expired, or never was. `sync-worker approve` lists what is held."
        return pages.message(request, "Nothing is held by this id.", text, 404)
    told = without_addresses(held_json(held))
    assert isinstance(told, dict)  # noqa: S101 - a dictionary stays one
    return pages.answer(request, "held", told if wants_json(request) else {**told, "shown": HELD_SHOWN})


async def _look(pages: Pages, request: Request) -> Response:
    """Go to the page about what was typed. An address is answered at once, so that it stands in no URL."""
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
        return _sign_in_form(pages, request, form.get("next", ""), "The form was too old. Please try again.", 400)
    refusal = _refusal(pages, request, form.get("token", "").strip().encode())
    if refusal is not None:
        status, reason = refusal
        words = {"unauthorized": "That is not the token.", "too_many_guesses": "Too many wrong tokens. Wait a minute."}
        return _sign_in_form(pages, request, form.get("next", ""), words[reason], status)
    response = RedirectResponse(_own_path(form.get("next", "")), 303)
    _set_cookie(response, request, SESSION, pages.admission.new_session(), pages.timings.session_lifetime)
    response.delete_cookie(FORM)
    return response


def _sign_in_form(pages: Pages, request: Request, onward: str, problem: str = "", status: int = 200) -> Response:
    """Answer with the form, and a cookie that only who got the form can send along with it."""
    code = secrets.token_urlsafe(16)
    told = {"code": code, "next": _own_path(onward), "problem": problem}
    response = pages.answer(request, "sign_in", told, status)
    _set_cookie(response, request, FORM, code, pages.timings.form_lifetime)
    return response


async def _sign_out(pages: Pages, request: Request) -> Response:
    cookie = request.cookies.get(SESSION, "")
    if not same((await _form(request)).get("code", ""), pages.admission.sign_out_code(cookie)):
        return pages.message(request, "You were not signed out.", "The form was not of this session.", 400)
    response = RedirectResponse("/sign-in", 303)
    response.delete_cookie(SESSION)
    return response


async def _style(_: Pages, __: Request) -> Response:
    return Response((TEMPLATES / "status.css").read_text(encoding="utf-8"), media_type="text/css")


async def _form(request: Request) -> dict[str, str]:
    """Read the fields of a form; of a field that is given twice the first."""
    body = await read_body(request) or b""
    return {name: values[0] for name, values in parse_qs(body.decode("utf-8", "replace")).items()}


def _own_path(text: str) -> str:
    """Return a path of these pages, whatever somebody put into a link to the form."""
    own = text.startswith(("/status", "/documents/", "/subjects/", "/held/"))
    return quote(text, safe="/:%") if own and text.isprintable() else "/status"


def _set_cookie(response: Response, request: Request, name: str, value: str, seconds: float) -> None:
    forwarded = request.headers.get("x-forwarded-proto", "").partition(",")[0].strip()
    secure = "https" in (request.url.scheme, forwarded)
    response.set_cookie(name, value, max_age=int(seconds), httponly=True, samesite="lax", secure=secure)

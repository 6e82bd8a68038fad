"""Signing in and out."""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING
from urllib.parse import quote

from starlette.responses import RedirectResponse, Response

from sync_worker.storage.state import PAGES_URL
from sync_worker.web.auth import SESSION_KEY, same
from sync_worker.web.site import SESSION, SIGN_OUT, form_of, refusal

if TYPE_CHECKING:
    from starlette.requests import Request

    from sync_worker.web.site import Pages

OWN_PATHS = ("/status", "/documents/", "/subjects/", "/held", "/who", "/issues", "/changes", "/time-zone")
FORM = "sync_worker_form"
"""The cookie that goes with a sign-in form."""
_HOST = re.compile(r"(?!127\.)([A-Za-z0-9-]+\.)+[A-Za-z0-9-]+(:\d{1,5})?")
"""A host that others may reach too."""


async def sign_in(pages: Pages, request: Request) -> Response:
    """Show the form, or start a session."""
    if request.method != "POST":
        return _sign_in_form(pages, request, request.query_params.get("next", ""))
    form = await form_of(request)
    code = request.cookies.get(FORM, "")
    if not code or not same(form.get("code", ""), code):
        return _sign_in_form(pages, request, form.get("next", ""), "The form has expired. Please try again.", 400)
    refused = refusal(pages, request, form.get("token", "").strip().encode())
    if refused is not None:
        status, reason = refused
        problems = {
            "unauthorized": "This token is invalid.",
            "too_many_guesses": "Too many attempts. Wait a minute.",
        }
        return _sign_in_form(pages, request, form.get("next", ""), problems[reason], status)
    await _remember_host(pages, request)
    response = RedirectResponse(_own_path(form.get("next", "")), 303)
    cookie = pages.authenticator.new_session(await pages.session_key())
    _set_cookie(response, request, SESSION, cookie, pages.timings.session_lifetime)
    response.delete_cookie(FORM)
    return response


async def _remember_host(pages: Pages, request: Request) -> None:
    """Keep the URL of the pages for the links in notices. A person who knows the token may say what it is."""
    host = request.headers.get("host", "")
    url = f"{'https' if _is_secure(request) else 'http'}://{host}"
    known = await pages.queue.recall(PAGES_URL)
    if _HOST.fullmatch(host) and (known is None or known[0] != url):
        await pages.queue.remember(PAGES_URL, url)


def _sign_in_form(pages: Pages, request: Request, onward: str, problem: str = "", status: int = 200) -> Response:
    """Answer with the form and a matching cookie, which protects it against CSRF."""
    code = secrets.token_urlsafe(16)
    data = {"code": code, "next": _own_path(onward), "problem": problem}
    response = pages.answer(request, "sign_in", data, status)
    _set_cookie(response, request, FORM, code, pages.timings.form_lifetime)
    return response


async def sign_out(pages: Pages, request: Request) -> Response:
    """End the session, and with it all others."""
    cookie = request.cookies.get(SESSION, "")
    if not same((await form_of(request)).get("code", ""), pages.authenticator.form_code(cookie, SIGN_OUT)):
        return pages.message(request, "You were not signed out.", "The form is of another session.", 400)
    if await pages.is_signed_in(request):
        await pages.queue.remember(SESSION_KEY, secrets.token_urlsafe(16))
    response = RedirectResponse("/sign-in", 303)
    response.delete_cookie(SESSION)
    return response


def _own_path(text: str) -> str:
    """Return `text` if it is a path of these pages, else /status: no redirects to other sites."""
    own = text.startswith(OWN_PATHS)
    return quote(text, safe="/:%?=&+") if own and text.isprintable() else "/status"


def _set_cookie(response: Response, request: Request, name: str, value: str, seconds: float) -> None:
    secure = _is_secure(request)
    response.set_cookie(name, value, max_age=int(seconds), httponly=True, samesite="lax", secure=secure)


def _is_secure(request: Request) -> bool:
    forwarded = request.headers.get("x-forwarded-proto", "").partition(",")[0].strip()
    return "https" in (request.url.scheme, forwarded)

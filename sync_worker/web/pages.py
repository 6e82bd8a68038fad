"""The pages: the status, one subject, one document and who has what, as HTML and as JSON.

They need no scripts, exist only when ADMIN_TOKEN is set, and change nothing; `approval` has the one page that does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from sync_worker.diagnostics.explainer import parse_target
from sync_worker.diagnostics.report import Wanted, holders, holding_json
from sync_worker.diagnostics.serialize import document_json, subject_json, without_addresses
from sync_worker.domain.subjects import Subject
from sync_worker.web.approval import decide, held_page
from sync_worker.web.people import organizations, people
from sync_worker.web.sign_in import sign_in, sign_out
from sync_worker.web.site import TEMPLATES, form_of, guarded, link, open_to_all, wants_json

if TYPE_CHECKING:
    from starlette.requests import Request

    from sync_worker.web.site import Pages

HOLDERS_SHOWN = 500
WHO = ("plan", "role", "course")
"""The parameters of /who."""


def routes() -> list[Route]:
    """Return the routes. They expect a `Pages` in the state of the application."""
    return [
        Route("/status", guarded(_status)),
        Route("/documents/{id}", guarded(_document)),
        Route("/subjects/{subject:path}", guarded(_subject)),
        Route("/held/{id}", guarded(held_page)),
        Route("/held/{id}", guarded(decide), methods=["POST"]),
        Route("/people", guarded(people)),
        Route("/organizations", guarded(organizations)),
        Route("/who", guarded(_who)),
        Route("/look", guarded(_look), methods=["POST"]),
        Route("/sign-in", open_to_all(sign_in), methods=["GET", "POST"]),
        Route("/sign-out", open_to_all(sign_out), methods=["POST"]),
        Route("/status.css", open_to_all(_style)),
    ]


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
    target = parse_target((await form_of(request)).get("what", ""))
    if isinstance(target, Subject) and target.is_address:
        return await _explained(pages, request, target)
    key = f"document:{target}" if isinstance(target, str) else str(target)
    return RedirectResponse(link(key), 303)


async def _style(_: Pages, __: Request) -> Response:
    return Response((TEMPLATES / "status.css").read_text(encoding="utf-8"), media_type="text/css")

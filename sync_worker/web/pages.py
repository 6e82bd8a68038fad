"""The pages: the status, one subject and one document, as HTML and as JSON; `lists` has the long ones.

They need no scripts, exist only when ADMIN_TOKEN is set, and change nothing; `approval` and `actions` have what does.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from sync_worker.diagnostics.explainer import parse_target
from sync_worker.diagnostics.look_up import LookUp
from sync_worker.diagnostics.serialize import document_json, entry_json, subject_json, without_addresses
from sync_worker.domain.subjects import Subject
from sync_worker.errors import CredentialsRefused, NobodyFound, RefusedError, RetryableError
from sync_worker.web.actions import retry_all, sync_now, sync_purpose
from sync_worker.web.approval import decide, held_page
from sync_worker.web.lists import changes, held, issues, who
from sync_worker.web.people import organizations, people
from sync_worker.web.sign_in import sign_in, sign_out
from sync_worker.web.site import TEMPLATES, ZONE, form_of, guarded, link, open_to_all, time_zones, wants_json, zone_of

if TYPE_CHECKING:
    from starlette.requests import Request

    from sync_worker.web.site import Pages

CHANGES_SHOWN = 10
REFRESH_SECONDS = "10"
LONGEST_ZONE = 365 * 24 * 3600


def routes() -> list[Route]:
    """Return the routes. They expect a `Pages` in the state of the application."""
    return [
        Route("/status", guarded(_status)),
        Route("/documents/{id}", guarded(_document)),
        Route("/subjects/{subject:path}", guarded(_subject)),
        Route("/subjects/{subject:path}", guarded(sync_now), methods=["POST"]),
        Route("/issues", guarded(issues)),
        Route("/issues", guarded(retry_all), methods=["POST"]),
        Route("/changes", guarded(changes)),
        Route("/held", guarded(held)),
        Route("/held/{id}", guarded(held_page)),
        Route("/held/{id}", guarded(decide), methods=["POST"]),
        Route("/people", guarded(people)),
        Route("/organizations", guarded(organizations)),
        Route("/who", guarded(who)),
        Route("/look", guarded(_look), methods=["POST"]),
        Route("/time-zone", guarded(_time_zone)),
        Route("/time-zone", guarded(_set_time_zone), methods=["POST"]),
        Route("/sign-in", open_to_all(sign_in), methods=["GET", "POST"]),
        Route("/sign-out", open_to_all(sign_out), methods=["POST"]),
        Route("/status.css", open_to_all(_style)),
    ]


async def _status(pages: Pages, request: Request) -> Response:
    return _refreshed(request, await pages.show(request, "status", await pages.status.status()))


async def _document(pages: Pages, request: Request) -> Response:
    target = parse_target(f"document:{request.path_params['id']}")
    explained = await pages.explainer.document(str(target))
    details = [] if wants_json(request) else [subject_json(one) for one in explained.subjects]
    data = document_json(explained)
    return _refreshed(request, await pages.show(request, "document", data, details=details))


async def _subject(pages: Pages, request: Request) -> Response:
    return await _explained(pages, request, Subject.parse(request.path_params["subject"]))


async def _explained(pages: Pages, request: Request, subject: Subject) -> Response:
    explained = await pages.explainer.subject(subject)
    key = str(explained.subject)
    entries = explained.facts.history[:CHANGES_SHOWN]
    view = {
        "history": [without_addresses(entry_json(entry)) for entry in entries],
        "editors": await pages.editors_of(request, entries),
        "code": "" if explained.subject.is_address else pages.code(request, sync_purpose(key)),
    }
    return _refreshed(request, await pages.show(request, "subject", subject_json(explained), **view))


def _refreshed(request: Request, response: Response) -> Response:
    """Let the browser load the page again every few seconds if its reader chose that; no script is needed."""
    if "refresh" in request.query_params:
        response.headers["Refresh"] = REFRESH_SECONDS
    return response


async def _look(pages: Pages, request: Request) -> Response:
    """Redirect to the page about what was typed, or list whom it may mean.

    An address is answered directly, so that no URL contains it; names never come into one.
    """
    try:
        target = await LookUp(pages.explainer, pages.directory).find((await form_of(request)).get("what", ""))
    except NobodyFound as error:
        return pages.message(request, error.headline(), error.next_step(), 404)
    except (RetryableError, RefusedError, CredentialsRefused, TimeoutError):
        text = "Look up an id instead, or try again in a minute."
        return pages.message(request, "Clerk does not answer, so nobody is found by name.", text, 503)
    if isinstance(target, list):
        return pages.answer(request, "matches", {"matches": [asdict(one) for one in target]})
    if isinstance(target, Subject) and target.is_address:
        return await _explained(pages, request, target)
    key = f"document:{target}" if isinstance(target, str) else str(target)
    return RedirectResponse(link(key), 303)


async def _time_zone(pages: Pages, request: Request) -> Response:
    zones = sorted(time_zones() - {"UTC"})
    return pages.answer(request, "time_zone", {"zone": str(zone_of(request)), "zones": ["UTC", *zones]})


async def _set_time_zone(_: Pages, request: Request) -> Response:
    """Keep the zone in a cookie of this browser. It is no secret, and another site gains nothing by setting it."""
    zone = (await form_of(request)).get("zone", "")
    response = RedirectResponse("/status", 303)
    if zone in time_zones():
        response.set_cookie(ZONE, zone, max_age=LONGEST_ZONE, httponly=True, samesite="lax")
    return response


async def _style(_: Pages, __: Request) -> Response:
    return Response((TEMPLATES / "status.css").read_text(encoding="utf-8"), media_type="text/css")

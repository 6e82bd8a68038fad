"""The buttons that are safe to press: sync a subject now, and retry what failed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
from starlette.responses import RedirectResponse

from sync_worker.domain.subjects import Subject
from sync_worker.domain.work import Cause, CauseKind
from sync_worker.storage.work_items import WorkItem
from sync_worker.web.auth import same
from sync_worker.web.site import form_of, link

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from sync_worker.web.site import Pages

log = structlog.get_logger("pages")

SYNC, RETRY_ALL = "sync", "retry-all"


def sync_purpose(key: str) -> str:
    """Return the purpose of the form that syncs a subject."""
    return f"{SYNC}/{key}"


async def sync_now(pages: Pages, request: Request) -> Response:
    """Enqueue a subject, as `sync-worker sync` does, and retry it if it had failed. The worker does the rest."""
    subject = Subject.parse(request.path_params["subject"])
    key = str(subject)
    if subject.is_address or not await _is_valid(pages, request, sync_purpose(key)):
        return _refused(pages, request, link(key))
    await pages.queue.revive([key])
    await pages.queue.enqueue([WorkItem(key, cause=Cause(CauseKind.OPERATOR))])
    log.info("sync_requested", subject=key)
    return RedirectResponse(link(key), 303)


async def retry_all(pages: Pages, request: Request) -> Response:
    """Retry everything that failed."""
    if not await _is_valid(pages, request, RETRY_ALL):
        return _refused(pages, request, "/issues")
    log.info("retry_requested", retried=await pages.queue.revive())
    return RedirectResponse("/issues", 303)


async def _is_valid(pages: Pages, request: Request, purpose: str) -> bool:
    code = pages.code(request, purpose)
    return bool(code) and same((await form_of(request)).get("code", ""), code)


def _refused(pages: Pages, request: Request, path: str) -> Response:
    text = f"The form has expired, or is of another session. Open `{path}` again."
    return pages.message(request, "Nothing was done.", text, 400)

"""The page of a held changeset, and its two buttons: approve and drop.

Each asks for a confirmation. A form is good for one session and for the list as it was shown.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import structlog
from starlette.responses import RedirectResponse

from sync_worker.diagnostics.serialize import without_addresses
from sync_worker.diagnostics.status import held_json
from sync_worker.domain.entitlements import ChangeKind
from sync_worker.domain.text import invisible_character
from sync_worker.domain.work import Cause, CauseKind
from sync_worker.storage.ledger import Entry, State
from sync_worker.storage.work_items import WorkItem
from sync_worker.web.auth import same
from sync_worker.web.lists import SHOWN, page_of, paging
from sync_worker.web.site import SESSION, form_of, wants_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import Request
    from starlette.responses import Response

    from sync_worker.storage.approvals import HeldChange, HeldChangeset
    from sync_worker.web.site import Pages

log = structlog.get_logger("pages")

LANE = 1
"""Approved losses give way to what editors publish."""
APPROVE, DROP = "approve", "drop"
LONGEST_NAME = 80


async def held_page(pages: Pages, request: Request) -> Response:
    """Show who would lose what, with the two buttons."""
    held = await pages.approvals.find(request.path_params["id"])
    if held is None:
        return _not_held(pages, request)
    changes = await pages.approvals.all_changes(held.id)
    view = paging(f"/held/{held.id}", {}, page_of(request), len(changes))
    start = (view["page"] - 1) * SHOWN
    shown = changes if wants_json(request) else changes[start : start + SHOWN]
    data = without_addresses(held_json(held, shown))
    assert isinstance(data, dict)  # noqa: S101 - for the type checker
    if wants_json(request):
        return pages.answer(request, "held", data)
    version = version_of(changes)
    form = {
        "version": version,
        "codes": {action: _code(pages, request, "ask", action, held.id, version) for action in (APPROVE, DROP)},
        "approved": await pages.queue.caused_by(_cause(held.id)),
    }
    return await pages.show(request, "held", {**data, "form": form}, **view)


async def decide(pages: Pages, request: Request) -> Response:
    """Approve or drop a list, after a confirmation that says how many subjects are on it."""
    form = await form_of(request)
    held = await pages.approvals.find(request.path_params["id"])
    if held is None:
        return _not_held(pages, request)
    action, version, given = form.get("action", ""), form.get("version", ""), form.get("code", "")
    asks = same(given, _code(pages, request, "ask", action, held.id, version))
    confirms = same(given, _code(pages, request, "confirm", action, held.id, version))
    changes = await pages.approvals.all_changes(held.id)
    if action not in (APPROVE, DROP) or not (asks or confirms):
        return _refused(pages, request, held, "The form has expired, or is of another session.", 400)
    if problem := await _problem(pages, held.id, shown=version, now=version_of(changes)):
        return _refused(pages, request, held, problem, 409)
    operator = form.get("operator", "").strip()
    if asks or not operator or len(operator) > LONGEST_NAME or invisible_character(operator):
        code = _code(pages, request, "confirm", action, held.id, version)
        data: dict[str, Any] = {"id": held.id, "action": action, "size": len(changes), "version": version, "code": code}
        return pages.answer(request, "confirm", {**data, "problem": confirms}, 400 if confirms else 200)
    if action == APPROVE:
        return await _approve(pages, held, changes, operator)
    return await _drop(pages, request, held, changes, operator)


async def _problem(pages: Pages, id_: str, *, shown: str, now: str) -> str:
    """Return why a list can no longer be decided; empty when it can."""
    if shown != now:
        return "The list has changed since the page was opened."
    if await pages.queue.caused_by(_cause(id_)):
        return "The list is approved already, and is being applied."
    return ""


async def _approve(pages: Pages, held: HeldChangeset, changes: Sequence[HeldChange], operator: str) -> Response:
    """Enqueue the subjects for the worker. The guard honours the approval for those that are still on the list."""
    await pages.queue.enqueue([WorkItem(change.subject, LANE, cause=_cause(held.id, operator)) for change in changes])
    log.warning("changeset_approved", changeset=held.id, subjects=len(changes), operator=operator)
    return RedirectResponse(f"/held/{held.id}", 303)


async def _drop(
    pages: Pages, request: Request, held: HeldChangeset, changes: Sequence[HeldChange], operator: str
) -> Response:
    """Forget the list. Whose loss was decided against, and by whom, is kept in the ledger."""
    if not await pages.approvals.drop(held.id, [_dropped(held.id, change, operator) for change in changes]):
        return _not_held(pages, request)
    log.warning("changeset_dropped", changeset=held.id, subjects=len(changes), operator=operator)
    text = f"{len(changes)} subjects keep their access for now. The next reconcile compares them again."
    return pages.message(request, "The list is dropped.", text, 200)


def version_of(changes: Sequence[HeldChange]) -> str:
    """Return a digest of a list, which differs as soon as anything on it does."""
    rows = [[change.subject, change.before, change.after] for change in changes]
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


def _cause(id_: str, by: str = "") -> Cause:
    return Cause(CauseKind.APPROVE, id_, by)


def _dropped(id_: str, change: HeldChange, by: str) -> Entry:
    """Return what the ledger keeps of a loss that somebody decided against."""
    kind = ChangeKind.UPDATE if change.after else ChangeKind.REVOKE
    cause = f"drop:{id_}"
    return Entry(cause, change.subject, kind, change.before, change.after, (), cause, by, state=State.ABANDONED)


def _code(pages: Pages, request: Request, *purpose: str) -> str:
    return pages.authenticator.form_code(request.cookies.get(SESSION, ""), "/".join(purpose))


def _not_held(pages: Pages, request: Request) -> Response:
    text = "It was approved or dropped, has expired, or never existed. `sync-worker approve` lists all held changesets."
    return pages.message(request, "No changeset is held under this id.", text, 404)


def _refused(pages: Pages, request: Request, held: HeldChangeset, reason: str, status: int) -> Response:
    text = f"{reason} Open `/held/{held.id}` again and review the list."
    return pages.message(request, "Nothing was done.", text, status)

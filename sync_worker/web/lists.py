"""Pages of long lists: issues, changes, holders and held changesets, each with filters and fifty on a page."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse

from sync_worker.diagnostics.issues import IssueKind, collect_issues, issue_json
from sync_worker.diagnostics.report import Wanted, holders, holding_json
from sync_worker.diagnostics.serialize import entry_json, without_addresses
from sync_worker.diagnostics.status import held_json
from sync_worker.domain.entitlements import ChangeKind
from sync_worker.domain.subjects import Subject
from sync_worker.web.actions import RETRY_ALL
from sync_worker.web.site import wants_json, zone_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from sync_worker.web.site import Pages

SHOWN = 50
"""Rows of a page: their names take one call."""
ISSUES_READ = 5_000
WHO = ("plan", "role", "course")
"""The parameters of /who."""
KINDS = [kind.value for kind in ChangeKind if kind is not ChangeKind.NONE]


async def who(pages: Pages, request: Request) -> Response:
    """List who has a plan, a role or a course, by what was last written."""
    given = {name: request.query_params.get(name, "").strip() for name in WHO}
    wanted = Wanted.of(**given)
    if not wanted.values and wants_json(request):
        return JSONResponse({"error": "no_filter"}, 400)
    page = page_of(request)
    limit, start = (None, 0) if wants_json(request) else (SHOWN, (page - 1) * SHOWN)
    count, found = await holders(pages.status.ledger, wanted, limit, start) if wanted.values else (0, [])
    filters = {name: value for name, value in given.items() if value}
    people = [{key: value for key, value in holding_json(one).items() if key != "until"} for one in found]
    data = {"filter": filters, "count": count, "subjects": without_addresses(people)}
    return await pages.show(request, "who", data, **paging("/who", filters, page, count))


async def changes(pages: Pages, request: Request) -> Response:
    """List what was written to Clerk, the newest first."""
    query = request.query_params
    kind = query.get("change", "") if query.get("change", "") in KINDS else ""
    subject = str(Subject.parse(query["subject"])) if query.get("subject", "").strip() else ""
    before = query.get("before", "")
    entries = await pages.status.ledger.history(
        subject or None, SHOWN + 1, int(before[:18]) if before.isdecimal() else None, kind or None
    )
    shown, more = entries[:SHOWN], len(entries) > SHOWN
    filters = {name: value for name, value in (("change", kind), ("subject", subject)) if value}
    data: dict[str, Any] = {
        "filter": filters,
        "changes": without_addresses([entry_json(entry) for entry in shown]),
        "older": shown[-1].id if more else None,
    }
    today = datetime.fromtimestamp(await pages.queue.now(), zone_of(request)).replace(hour=0, minute=0, second=0)
    counts = await pages.status.ledger.counted(today.timestamp())
    editors = await pages.editors_of(request, shown)
    view = {"editors": editors, "kinds": KINDS, "today": [(kind, counts.get(kind, 0)) for kind in KINDS]}
    return await pages.show(request, "changes", data, **view)


async def issues(pages: Pages, request: Request) -> Response:
    """List what needs attention, or waits."""
    state = request.query_params.get("state", "")
    rows = [*await pages.queue.failed(ISSUES_READ), *await pages.queue.noted(ISSUES_READ)]
    found = collect_issues(rows, await pages.approvals.changesets())
    chosen = [one for one in found if not state or one.kind.value == state]
    page = page_of(request)
    start = 0 if wants_json(request) else (page - 1) * SHOWN
    shown = chosen if wants_json(request) else chosen[start : start + SHOWN]
    filters = {"state": state} if state else {}
    data = {"filter": filters, "count": len(chosen), "issues": without_addresses([issue_json(one) for one in shown])}
    return await pages.show(
        request,
        "issues",
        data,
        states=list(map(str, IssueKind)),
        code=pages.code(request, RETRY_ALL),
        **paging("/issues", filters, page, len(chosen)),
    )


async def held(pages: Pages, request: Request) -> Response:
    """List the held changesets."""
    found = await pages.approvals.changesets()
    return await pages.show(request, "held_lists", {"held": [held_json(one, ()) for one in found]})


def page_of(request: Request) -> int:
    """Return the number of the page that is asked for, from 1."""
    text = request.query_params.get("page", "")
    return max(1, int(text[:6])) if text.isdecimal() else 1


def paging(path: str, filters: dict[str, str], page: int, count: int) -> dict[str, Any]:
    """Return what the links to the other pages of a list need."""
    last = max(1, -(-count // SHOWN))
    return {"path": path, "filters": filters, "page": min(page, last), "last": last}

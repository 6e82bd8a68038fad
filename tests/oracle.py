"""What access should be, told a second time and more simply than by the worker: plain loops over plain documents."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from sync_worker.sandbox.server import Sandbox

OWNED = ("plan", "role", "courseSlugs")


def slug(documents: Mapping[str, Mapping[str, Any]], reference: Any) -> str | None:
    target = documents.get((reference or {}).get("_ref", ""))
    found: str | None = (target or {}).get("slug", {}).get("current")
    return found


def rows_by_user(documents: Mapping[str, Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Return the published, active rows that name a user alone."""
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for row in documents.values():
        published = row["_type"] == "entitlement" and "." not in row["_id"]
        if published and not row.get("clerkOrganizationId") and row.get("status") in (None, "active"):
            rows.setdefault((row.get("clerkUserId") or "").strip(), []).append(row)
    return rows


def expected(documents: Mapping[str, Mapping[str, Any]], rows: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the public keys that `rows` give, without PLAN_ORDER: the row updated last wins, then by id."""
    if not rows:
        return {}
    access: dict[str, Any] = {"courseSlugs": sorted(set(courses(documents, rows)))}
    for row in sorted(sorted(rows, key=lambda r: r["_id"], reverse=True), key=lambda r: r["_updatedAt"]):
        plan = row.get("plan")
        plan = slug(documents, plan) if isinstance(plan, dict) else plan
        access.update({k: v for k, v in (("plan", plan), ("role", row.get("role"))) if v})
    return access


def courses(documents: Mapping[str, Mapping[str, Any]], rows: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    for row in rows:
        holders = [row, *(documents.get(c["_ref"], {}) for c in row.get("cohorts") or ())]
        if isinstance(row.get("plan"), dict):
            holders.append(documents.get(row["plan"]["_ref"], {}))
        for holder in holders:
            yield from (s for c in holder.get("courses") or () if (s := slug(documents, c)))


def wrong(box: Sandbox) -> list[str]:
    """Return the users whose owned keys in Clerk are not what the documents say."""
    rows = rows_by_user(box.lake.documents)
    return [
        user_id
        for user_id, user in box.clerk.users.items()
        if {k: v for k, v in user["public_metadata"].items() if k in OWNED}
        != expected(box.lake.documents, rows.get(user_id, []))
    ]


async def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait until `condition` holds; fail when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        await asyncio.sleep(0.05)


async def quiet(box: Sandbox, seconds: float = 0.6) -> None:
    """Wait until neither service has been asked anything for `seconds`: what was marked twice has run again."""
    last, since = -1, time.monotonic()
    while time.monotonic() - since < seconds:
        asked = box.clerk.requests.count() + box.lake.requests.count()
        if asked != last:
            last, since = asked, time.monotonic()
        await asyncio.sleep(0.05)

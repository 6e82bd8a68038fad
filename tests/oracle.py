"""What access should be, told a second time and more simply than by the worker: plain loops over plain documents."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from sync_worker.sandbox.server import Sandbox

Documents = "Mapping[str, Mapping[str, Any]]"
OWNED = ("plan", "role", "courseSlugs")


def slug(documents: Mapping[str, Mapping[str, Any]], reference: Any) -> str | None:
    target = documents.get((reference or {}).get("_ref", ""))
    return (target or {}).get("slug", {}).get("current")


def expected(documents: Mapping[str, Mapping[str, Any]], user_id: str) -> dict[str, Any]:
    """Return the public keys that one user must have, without PLAN_ORDER: the row updated last wins, then by id."""
    rows = [
        row
        for row in documents.values()
        if row["_type"] == "entitlement"
        and (row.get("clerkUserId") or "").strip() == user_id
        and not row.get("clerkOrganizationId")
        and row.get("status") in (None, "active")
        and "." not in row["_id"]
    ]
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
    return [
        user_id
        for user_id, user in box.clerk.users.items()
        if {k: v for k, v in user["public_metadata"].items() if k in OWNED} != expected(box.lake.documents, user_id)
    ]


async def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait until `condition` holds; fail when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        await asyncio.sleep(0.01)

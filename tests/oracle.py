"""What access should be, worked out a second time: plain loops over plain documents."""

from __future__ import annotations

import asyncio
import re
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from sync_worker.runtime.wiring import open_database
from tests.clock import CLOCK, TIMINGS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping

    from sync_worker.sandbox.server import Sandbox

T = TypeVar("T")
UNFINISHED = """
SELECT key FROM work WHERE lease_token IS NOT NULL
  OR (generation <> completed_generation AND dead = 0 AND visible_at <= NOW() + 10)
"""
"""What is being done, or will be soon. Clerk's events of our own writes wait for longer, and change nothing."""
GUARD = 120.0
"""Seconds after which a wait has failed. Nothing takes so long, on any machine."""
OWNED = ("plan", "role", "courseSlugs")


def slug(documents: Mapping[str, Mapping[str, Any]], reference: Any) -> str | None:
    target = documents.get((reference or {}).get("_ref", ""))
    found: str | None = ((target or {}).get("slug") or {}).get("current")
    return found


def is_active(row: Mapping[str, Any], now: float) -> bool:
    starts, ends = (datetime.fromisoformat(row[f]).timestamp() if row.get(f) else None for f in ("startsAt", "endsAt"))
    return row.get("status") in (None, "active") and (starts is None or starts <= now) and (ends is None or now < ends)


def has_address(user: Mapping[str, Any], address: str) -> bool:
    """Return whether it is the user's primary, verified and not reserved address."""
    return any(
        email["id"] == user["primary_email_address_id"]
        and (email["verification"] or {}).get("status") == "verified"
        and not email["reserved"]
        and email["email_address"].lower() == address.lower()
        for email in user["email_addresses"]
    )


def people(box: Sandbox, row: Mapping[str, Any]) -> list[str] | None:
    """Return the ids of the users that a row names; None when it names no user at all."""
    user_id, external, email = ((row.get(f) or "").strip(" ") for f in ("clerkUserId", "userExternalId", "userEmail"))
    users = box.clerk.users
    if user_id:
        return [user_id] if user_id in users else []
    if external:
        return [id_ for id_, user in users.items() if user["external_id"] == external]
    if email:
        return [id_ for id_, user in users.items() if has_address(user, email)]
    return None


def subject(box: Sandbox, row: Mapping[str, Any]) -> str | None:
    """Return whom a row is for: a user id, an organization id, `org/user`; None for nobody."""
    organization = (row.get("clerkOrganizationId") or "").strip(" ")
    if organization and not re.fullmatch(r"org_\w+", organization):
        return None
    named = people(box, row)
    if named is None:
        return organization or None
    if len(named) != 1:
        return None
    return f"{organization}/{named[0]}" if organization else named[0]


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
        holders = [row, *(documents.get(c["_ref"], {}) for c in row.get("cohorts") or () if c)]
        if isinstance(row.get("plan"), dict):
            holders.append(documents.get(row["plan"]["_ref"], {}))
        for holder in holders:
            yield from (s for c in holder.get("courses") or () if (s := slug(documents, c)))


def everybody(box: Sandbox) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield users, organizations and memberships with what Clerk holds of them."""
    yield from box.clerk.users.items()
    yield from box.clerk.organizations.items()
    for (organization, user), membership in box.clerk.memberships.items():
        yield f"{organization}/{user}", membership


def wrong(box: Sandbox) -> list[str]:
    """Return whose owned keys in Clerk are not what the documents say."""
    documents, now = box.lake.documents, time.time()
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for row in documents.values():
        if row["_type"] == "entitlement" and "." not in row["_id"] and is_active(row, now):
            rows.setdefault(subject(box, row) or "", []).append(row)
    return [
        id_
        for id_, held in everybody(box)
        if {k: v for k, v in held["public_metadata"].items() if k in OWNED} != expected(documents, rows.get(id_, []))
    ]


async def until_right(box: Sandbox) -> None:
    """Wait until everybody is in sync; fail when nobody more gets there in time."""
    fewest, deadline = len(wrong(box)) + 1, 0.0
    looked = time.monotonic()
    while left := len(wrong(box)):
        if left < fewest:
            fewest, deadline = left, time.monotonic() + GUARD
        assert time.monotonic() < deadline, wrong(box)
        await _rest_after(looked)
        looked = time.monotonic()


async def until(condition: Callable[[], bool], seconds: float = GUARD) -> None:
    """Wait until `condition` holds; fail when it does not in time."""
    looked = time.monotonic()
    deadline = looked + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        await _rest_after(looked)
        looked = time.monotonic()


async def _rest_after(looked: float) -> None:
    """Wait so long that looking takes a tenth of the time at most: what is looked at needs the rest."""
    await asyncio.sleep(max(0.05, 9 * (time.monotonic() - looked)))


async def until_seen(look: Callable[[], Awaitable[T]], is_so: Callable[[T], object] = bool) -> T:
    """Look until what is seen `is_so`, and return it; fail when it is not in time."""
    deadline = time.monotonic() + GUARD
    while not is_so(seen := await look()):
        assert time.monotonic() < deadline, seen
        await asyncio.sleep(0.02)
    return seen


async def until_idle(database_url: str, seconds: float = GUARD) -> None:
    """Wait until a worker, here or in other processes, has nothing left to do in this database."""
    database = open_database(database_url, CLOCK, TIMINGS)
    await database.start()
    try:
        deadline = time.monotonic() + seconds
        while unfinished := await database.read(lambda tx: tx.execute(UNFINISHED)):
            assert time.monotonic() < deadline, unfinished
            await asyncio.sleep(0.05)
    finally:
        await database.close()

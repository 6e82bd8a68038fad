"""Entitlements that name people by address, with the real parts: what follows from what, and where it ends."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from sync_worker.runtime.wiring import open_reconcile
from sync_worker.storage.work_items import WorkItem
from tests.builders import published
from tests.clock import TIMINGS, ShiftedClock
from tests.expected import stored
from tests.oracle import until, until_idle, until_right, until_seen, wrong
from tests.parts import working

if TYPE_CHECKING:
    from sync_worker.sandbox.server import Sandbox
    from tests.parts import Parts

pytestmark = pytest.mark.anyio
ADA = "ada@example.org"


async def enqueue(parts: Parts, *keys: str, **given: Any) -> None:
    await parts.store.queue.enqueue([WorkItem(key, **given) for key in keys])


async def comes_to_rest(parts: Parts) -> None:
    """Fail when the worker goes on asking although nothing happens any more."""
    await until_idle(parts.settings.database_url)


@pytest.mark.parametrize("name", [{"clerkUserId": "user_ada"}, {"userEmail": ADA}])
async def test_one_of_two_equal_entitlements_that_ends_is_looked_at_once(
    box: Sandbox, sqlite_url: str, name: dict[str, str]
) -> None:
    box.clerk.add_user("user_ada", email=ADA)
    rows = [published("e1", **name), published("e2", **name), published("e3", userEmail="nobody@example.org")]
    await box.lake.mutate(rows)
    async with working(box, sqlite_url) as parts:
        await enqueue(parts, "user:user_ada")
        await until(lambda: not wrong(box))
        await box.lake.mutate([published("e1", **name, status="paused")])
        await enqueue(parts, "user:user_ada", expected=stored(box, "e1"))
        await comes_to_rest(parts)


async def test_somebody_with_a_shared_address_who_is_no_member_is_not_tried_for_ever(
    box: Sandbox, sqlite_url: str
) -> None:
    for user in ("user_ada", "user_twin"):
        box.clerk.add_user(user, email=ADA)
    box.clerk.add_organization("org_1")
    rows = [
        published("e1", clerkOrganizationId="org_1", userEmail=ADA),
        published("e2", clerkOrganizationId="org_1", clerkUserId="user_ada"),
    ]
    await box.lake.mutate(rows)
    async with working(box, sqlite_url) as parts:
        await enqueue(parts, "membership:org_1/user_ada")
        await comes_to_rest(parts)


async def test_a_refused_write_to_somebody_with_a_shared_address_is_not_sent_for_ever(
    box: Sandbox, sqlite_url: str
) -> None:
    box.clerk.add_user("user_ada", email=ADA)
    await box.lake.mutate([published("e1", userEmail=ADA)])
    async with working(box, sqlite_url) as parts:
        await enqueue(parts, "user:user_ada")
        await until(lambda: not wrong(box))
        box.clerk.add_user("user_twin", email=ADA)
        box.clerk.faults.some("conflict", 1.0, method="PATCH")
        await enqueue(parts, "user:user_ada")
        await comes_to_rest(parts)
        box.clerk.faults.clear()


async def test_an_entitlement_that_names_the_same_person_by_address_now_takes_nothing_away(
    box: Sandbox, sqlite_url: str
) -> None:
    box.clerk.add_user("user_ada", email=ADA)
    await box.lake.mutate([published("e1", clerkUserId="user_ada")])
    async with working(box, sqlite_url) as parts:
        await enqueue(parts, "user:user_ada")
        await until(lambda: not wrong(box))
        await comes_to_rest(parts)
        box.lake.lag = 0.5
        await box.lake.mutate([published("e1", userEmail=ADA)])
        await enqueue(parts, "user:user_ada", expected=stored(box, "e1"))
        await until(lambda: box.lake.requests.count() > 3)
        await comes_to_rest(parts)
    assert box.clerk.requests.count("PATCH") == 1
    assert not wrong(box)


async def test_a_refused_revocation_of_an_entitlement_that_ended_is_not_sent_for_ever(
    box: Sandbox, sqlite_url: str
) -> None:
    box.clerk.add_user("user_ada")
    await box.lake.mutate([published("e1", clerkUserId="user_ada"), published("e2", userEmail="no@example.org")])
    async with working(box, sqlite_url) as parts:
        await enqueue(parts, "user:user_ada")
        await until(lambda: not wrong(box))
        await box.lake.mutate([published("e1", clerkUserId="user_ada", status="paused")])
        box.clerk.faults.some("conflict", 1.0, method="PATCH")
        await enqueue(parts, "user:user_ada", expected=stored(box, "e1"))
        await comes_to_rest(parts)
        box.clerk.faults.clear()


async def test_an_organization_with_many_members_by_address_costs_no_call_for_them(
    box: Sandbox, sqlite_url: str
) -> None:
    box.clerk.add_organization("org_1")
    members = [published(f"e{n:03}", clerkOrganizationId="org_1", userEmail=f"user{n}@example.org") for n in range(350)]
    await box.lake.mutate([*members, published("whole", clerkOrganizationId="org_1")])
    box.clerk.add_user("user_ada", email=ADA)
    async with working(box, sqlite_url) as parts:
        await enqueue(parts, "org:org_1", "user:user_ada")
        await until(lambda: not wrong(box))
        await comes_to_rest(parts)
    assert box.clerk.requests.count("GET") <= 4  # one of them asks for the instance, at the start


async def test_a_letter_outside_ascii_in_an_address_is_found_whatever_its_case(box: Sandbox, sqlite_url: str) -> None:
    box.clerk.add_user("user_ada", email="Äda@example.org")
    await box.lake.mutate([published("e1", userEmail="Äda@Example.org")])
    async with working(box, sqlite_url) as parts:
        await enqueue(parts, "document:e1")
        await until(lambda: not wrong(box))


async def test_shared_addresses_are_looked_at_again_a_hundred_at_a_time(box: Sandbox, sqlite_url: str) -> None:
    for n in range(60):
        for _ in range(2):
            box.clerk.add_user(email=f"user{n}@example.org")
    await box.lake.mutate([published(f"e{n}", userEmail=f"user{n}@example.org") for n in range(60)])
    clock = ShiftedClock()
    async with working(box, sqlite_url, clock=clock, timings=replace(TIMINGS, idle_interval=0.05)) as parts:
        await enqueue(parts, *(f"document:e{n}" for n in range(60)))
        await until(lambda: box.lake.requests.count() > 1)
        await comes_to_rest(parts)
        first = calls(box)
        clock.ahead += TIMINGS.shared_address_recheck
        await until(lambda: calls(box) > first)
        await comes_to_rest(parts)
    assert calls(box) - first <= first


def calls(box: Sandbox) -> int:
    return box.clerk.requests.count() + box.lake.requests.count()


BOB = "bob@example.org"


async def test_while_a_second_owner_of_an_address_is_unreadable_it_neither_gives_nor_takes(
    box: Sandbox, database_url: str
) -> None:
    box.clerk.add_user("user_ada", email=ADA)
    box.clerk.add_user("user_bob", email=BOB)
    await box.lake.mutate([published("e1", userEmail=ADA)])
    async with working(box, database_url) as parts:
        await enqueue(parts, "document:e1")
        await until_right(box)
        await comes_to_rest(parts)
        box.clerk.add_user("user_twin", email=ADA)
        box.clerk.users["user_twin"]["external_id"] = ["of another shape"]
        await box.lake.mutate([published("e2", userEmail=ADA, role="lead"), published("e3", userEmail=BOB)])
        async with open_reconcile(parts.settings, parts.store, Counter()) as run:
            findings = await run.find()
        await enqueue(parts, "user:user_ada", "user:user_bob", "document:e2")
        await until(lambda: box.clerk.users["user_bob"]["public_metadata"].get("plan") == "pro")
        for key in ("user:user_ada", "document:e2"):
            row = await until_seen(partial(parts.store.queue.get, key), lambda row: row and row.error_code)
            assert row
            assert row.error_code == "unreadable_answer"
    assert [str(d.change.subject) for d in findings.differences] == ["user:user_bob"]
    assert {"user:user_ada", "user:user_twin"} <= {refusal.document for refusal in findings.refused}
    assert box.clerk.users["user_ada"]["public_metadata"] == {"plan": "pro", "courseSlugs": []}


async def test_a_membership_by_address_is_kept_while_its_user_is_unreadable(box: Sandbox, sqlite_url: str) -> None:
    box.clerk.add_organization("org_1")
    box.clerk.add_user("user_ada", email=ADA)
    box.clerk.add_membership("org_1", "user_ada")
    await box.lake.mutate([published("e1", clerkOrganizationId="org_1", userEmail=ADA, plan="pro")])
    async with working(box, sqlite_url) as parts:
        await enqueue(parts, "document:e1")
        await until(lambda: not wrong(box))
        await comes_to_rest(parts)
        box.clerk.users["user_ada"]["external_id"] = ["of another shape"]
        await enqueue(parts, "membership:org_1/user_ada")
        async with open_reconcile(parts.settings, parts.store, Counter()) as run:
            findings = await run.find()
        get = partial(parts.store.queue.get, "membership:org_1/user_ada")
        await until_seen(get, lambda row: row and row.error_code)
    assert findings.losing == []
    assert box.clerk.memberships["org_1", "user_ada"]["public_metadata"]["plan"] == "pro"

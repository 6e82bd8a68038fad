"""Whom entitlements are for, with the real parts: lookups in bulk, and what is noted of those that wait."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from sync_worker.domain.subjects import Kind, Subject
from sync_worker.domain.work import Cause, CauseKind
from sync_worker.runtime.service import running_worker
from sync_worker.runtime.wiring import open_reconcile
from sync_worker.storage.work_items import WorkItem
from sync_worker.sync.address_resolution import PENDING
from sync_worker.webhooks.clerk_events import items_of, parse_event
from tests.builders import published
from tests.clock import CLOCK, PATIENT, TIMINGS, ShiftedClock
from tests.expected import delete, updated
from tests.oracle import until, until_idle, until_seen, wrong
from tests.parts import opened, working

if TYPE_CHECKING:
    from sync_worker.sandbox.server import Sandbox
    from tests.parts import Parts

pytestmark = pytest.mark.anyio


async def codes(parts: Parts) -> dict[str, str]:
    return {row.key: row.error_code for row in await parts.store.queue.noted(100)}


async def enqueue(parts: Parts, *keys: str) -> None:
    await parts.store.queue.enqueue([WorkItem(key) for key in keys])


async def test_two_hundred_entitlements_by_address_are_looked_up_a_hundred_a_call(
    box: Sandbox, sqlite_url: str
) -> None:
    users = [box.clerk.add_user(email=f"user{n}@example.org") for n in range(200)]
    await box.lake.mutate([published(f"e{n:03}", userEmail=f"user{n}@example.org") for n in range(200)])
    async with opened(box, sqlite_url, timings=PATIENT) as parts:
        await enqueue(parts, *(f"document:e{n:03}" for n in range(200)))
        async with running_worker(parts.settings, parts.store):
            await until(lambda: not wrong(box))
    lookups = box.clerk.requests.select("GET")
    assert box.clerk.requests.count("PATCH") == len(users)
    assert len(lookups) <= 2 + 3 * 2  # to resolve; to observe and to prove the addresses, in at most three runs


async def test_what_waits_for_a_sign_up_is_noted_until_it_does_not_wait_any_more(box: Sandbox, sqlite_url: str) -> None:
    await box.lake.mutate([published("e1", userEmail="ada@example.org"), published("e2", userExternalId="7")])
    async with working(box, sqlite_url) as parts:
        await enqueue(parts, "document:e1", "document:e2")
        await _until_codes(parts, {"document:e1": PENDING, "document:e2": PENDING})
        user = box.clerk.add_user(email="ada@example.org")
        await enqueue(parts, f"user:{user}")
        await _until_codes(parts, {"document:e2": PENDING})
        await box.lake.mutate([{"delete": {"id": "e2"}}])
        await enqueue(parts, "document:e2")
        await _until_codes(parts, {})


async def test_what_gave_access_waits_again_when_the_address_is_gone(box: Sandbox, sqlite_url: str) -> None:
    user = box.clerk.add_user(email="ada@example.org")
    await box.lake.mutate([published("e1", userEmail="ada@example.org")])
    async with working(box, sqlite_url) as parts:
        await enqueue(parts, "document:e1")
        await until(lambda: box.clerk.users[user]["public_metadata"].get("plan") == "pro")
        box.clerk.update_user(user, email_addresses=[], primary_email_address_id=None)
        await enqueue(parts, f"user:{user}")
        await _until_codes(parts, {"document:e1": PENDING})
    assert not wrong(box)


async def test_a_row_that_names_nobody_is_noted_with_its_reason(box: Sandbox, sqlite_url: str) -> None:
    await box.lake.mutate([published("e1", userEmail="no address")])
    async with working(box, sqlite_url) as parts:
        await enqueue(parts, "document:e1")
        await _until_codes(parts, {"document:e1": "row_refused"})
        (row,) = await parts.store.queue.noted(10)
    assert row.error_detail == "e1: userEmail: is not an e-mail address; write a single address without spaces"


async def test_an_organization_with_an_address_is_never_the_whole_organization(box: Sandbox, sqlite_url: str) -> None:
    box.clerk.add_organization("org_1")
    await box.lake.mutate([published("e1", clerkOrganizationId="org_1", userEmail="ada@example.org")])
    async with working(box, sqlite_url) as parts:
        await enqueue(parts, "document:e1", "org:org_1")
        await _until_codes(parts, {"document:e1": PENDING})
    assert box.clerk.organizations["org_1"]["public_metadata"] == {}


async def test_two_edits_in_one_second_do_not_keep_others_waiting_for_the_index(box: Sandbox, sqlite_url: str) -> None:
    box.clerk.add_user(email="ada@example.org")
    await box.lake.mutate([published("e1", userEmail="ada@example.org")])
    held = box.lake.documents["e1"]
    async with working(box, sqlite_url, timings=replace(TIMINGS, stale_read_waits=(30.0,))) as parts:
        both = [updated("e1", revision, held["_updatedAt"]) for revision in (held["_rev"], "another")]
        await parts.store.queue.enqueue([WorkItem("document:e1", expected=expected) for expected in both])
        await until(lambda: not wrong(box))


async def test_who_signs_up_just_after_they_were_looked_for_gets_their_access_without_another_event(
    box: Sandbox, sqlite_url: str
) -> None:
    await box.lake.mutate([published("e1", userEmail="ada@example.org")])
    clock = ShiftedClock()
    async with working(box, sqlite_url, clock=clock, timings=replace(TIMINGS, idle_interval=0.05)) as parts:
        await parts.store.queue.enqueue([WorkItem("document:e1", cause=Cause(CauseKind.WEBHOOK, "e1"))])
        await _until_codes(parts, {"document:e1": PENDING})
        box.clerk.add_user(email="ada@example.org")
        clock.ahead += TIMINGS.clerk_list_lag
        await until(lambda: not wrong(box))


async def test_who_does_not_sign_up_is_looked_for_twice(box: Sandbox, sqlite_url: str) -> None:
    await box.lake.mutate([published("e1", userEmail="ada@example.org")])
    async with working(box, sqlite_url, timings=replace(TIMINGS, clerk_list_lag=0.2)) as parts:
        await parts.store.queue.enqueue([WorkItem("document:e1", cause=Cause(CauseKind.WEBHOOK, "e1"))])
        await until(lambda: len(box.clerk.requests.select("GET", "/v1/users")) == 2)
        await until_idle(sqlite_url)
        (row,) = await parts.store.queue.noted(100)
        assert (row.error_code, row.visible_at) == (PENDING, None)


async def _until_codes(parts: Parts, wanted: dict[str, str]) -> None:
    await until_seen(lambda: codes(parts), wanted.__eq__)


def verified(box: Sandbox, user: str, email: str) -> None:
    """Give a user another address, as primary and verified."""
    held = box.clerk.users[user]["email_addresses"][0]
    proven = {"status": "verified", "strategy": "email_code"}
    box.clerk.update_user(user, email_addresses=[{**held, "email_address": email, "verification": proven}])


async def test_a_membership_by_address_moves_with_the_address(box: Sandbox, sqlite_url: str) -> None:
    box.clerk.add_organization("org_1")
    for name in ("ada", "ben"):
        box.clerk.add_user(f"user_{name}", email=f"{name}@example.org")
        box.clerk.add_membership("org_1", f"user_{name}")
    await box.lake.mutate([published("e1", clerkOrganizationId="org_1", userEmail="ada@example.org")])
    async with working(box, sqlite_url) as parts:
        await enqueue(parts, "document:e1")
        await until(lambda: not wrong(box))
        verified(box, "user_ada", "elsewhere@example.org")
        verified(box, "user_ben", "ada@example.org")
        assert wrong(box)
        await enqueue(parts, "members:user_ada", "members:user_ben")
        await until(lambda: not wrong(box))
        await _until_codes(parts, {})
    assert box.clerk.memberships["org_1", "user_ben"]["public_metadata"]["plan"] == "pro"


@pytest.mark.parametrize("joins", ["user.created", "organizationMembership.created"])
async def test_who_joins_gets_what_was_pasted_for_them_although_something_else_about_them_is_published_just_then(
    box: Sandbox, sqlite_url: str, joins: str
) -> None:
    box.clerk.add_organization("org_1")
    organization = {"clerkOrganizationId": "org_1"} if joins.startswith("organization") else {}
    await box.lake.mutate([published("e1", **organization, userEmail=" ADA@example.org ")])
    async with opened(box, sqlite_url) as parts:
        user = box.clerk.add_user("user_ada", email="ada@example.org")
        subject = Subject(Kind.USER, user)
        if organization:
            box.clerk.add_membership("org_1", user)
            subject = Subject.membership("org_1", user)
        ids = {"id": user, "organization": {"id": "org_1"}, "public_user_data": {"user_id": user}}
        event = parse_event(json.dumps({"type": joins, "data": ids}).encode())
        assert event is not None
        await parts.store.queue.enqueue(items_of(event, parts.settings.layout, CLOCK.now(), TIMINGS))
        await parts.store.queue.enqueue([WorkItem(str(subject), cause=Cause(CauseKind.WEBHOOK, "e0"))])
        async with running_worker(parts.settings, parts.store):
            await until(lambda: not wrong(box))


async def test_a_plan_set_by_hand_survives_the_end_of_an_entitlement_that_never_counted(
    box: Sandbox, sqlite_url: str
) -> None:
    user = box.clerk.add_user(email="ada@example.org", public_metadata={"plan": "vip"})
    later = {"userEmail": "ada@example.org", "startsAt": "2099-01-01T00:00:00Z"}
    await box.lake.mutate([published("e1", **later), published("other", userEmail="other@example.org")])
    async with working(box, sqlite_url) as parts:
        await enqueue(parts, "document:e1")
        await until_idle(sqlite_url)
        gone = await delete(box, "e1")
        await parts.store.queue.enqueue(
            [WorkItem(key, expected=gone) for key in ("document:e1", "email:ada@example.org")]
        )
        await until_idle(sqlite_url)
    assert box.clerk.users[user]["public_metadata"] == {"plan": "vip"}


async def test_a_new_holder_of_an_address_who_is_no_member_ends_the_membership_that_the_address_had(
    box: Sandbox, sqlite_url: str
) -> None:
    box.clerk.add_organization("org_1")
    box.clerk.add_user("user_ada", email="ada@example.org")
    box.clerk.add_user("user_ben", email="ben@example.org")
    box.clerk.add_membership("org_1", "user_ada")
    await box.lake.mutate([published("e1", clerkOrganizationId="org_1", userEmail="ada@example.org")])
    async with working(box, sqlite_url) as parts:
        await enqueue(parts, "document:e1")
        await until(lambda: not wrong(box))
        verified(box, "user_ben", "ada@example.org")
        await enqueue(parts, "members:user_ben")
        await until(lambda: "plan" not in box.clerk.memberships["org_1", "user_ada"]["public_metadata"])
    assert not wrong(box)


async def test_who_loses_an_address_in_the_moment_of_our_own_write_loses_its_access_at_once(
    box: Sandbox, sqlite_url: str
) -> None:
    box.clerk.add_user("user_ada", email="ada@example.org")
    await box.lake.mutate([published("e1", userEmail="ada@example.org")])
    async with working(box, sqlite_url) as parts:
        await enqueue(parts, "document:e1")
        await until(lambda: not wrong(box))
        verified(box, "user_ada", "elsewhere@example.org")
        assert wrong(box)
        await enqueue(parts, "members:user_ada")
        await until(lambda: not wrong(box))


async def test_where_nobody_is_named_by_address_a_changed_user_costs_clerk_nothing(
    box: Sandbox, sqlite_url: str
) -> None:
    user = box.clerk.add_user(email="ada@example.org")
    await box.lake.mutate([published("e1", clerkUserId="user_other")])
    async with working(box, sqlite_url) as parts:
        await enqueue(parts, f"members:{user}")
        await until_idle(sqlite_url)
    assert not box.clerk.requests.select("GET", "/v1/users")


async def test_a_membership_ends_with_the_entitlement_although_nobody_has_its_address_any_more(
    box: Sandbox, sqlite_url: str
) -> None:
    box.clerk.add_organization("org_1")
    box.clerk.add_user("user_ada", email="ada@example.org")
    box.clerk.add_membership("org_1", "user_ada")
    named = {"clerkOrganizationId": "org_1", "userEmail": "ada@example.org"}
    await box.lake.mutate([published("e1", **named), published("other", clerkUserId="user_other")])
    async with working(box, sqlite_url) as parts:
        await enqueue(parts, "document:e1")
        await until(lambda: not wrong(box))
        verified(box, "user_ada", "elsewhere@example.org")
        gone = await delete(box, "e1")
        await parts.store.queue.enqueue([WorkItem("email:org_1/ada@example.org", expected=gone)])
        await until(lambda: not wrong(box))
    assert box.clerk.memberships["org_1", "user_ada"]["public_metadata"] == {}


async def test_a_full_reconcile_has_a_document_looked_up_again_that_stops_counting_for_somebody(
    box: Sandbox, sqlite_url: str
) -> None:
    box.clerk.add_user("user_ada", email="ada@example.org")
    await box.lake.mutate([published("e1", userEmail="ada@example.org")])
    async with opened(box, sqlite_url) as parts:
        await reconcile(parts)
        verified(box, "user_ada", "elsewhere@example.org")
        await reconcile(parts)
        row = await parts.store.queue.get("document:e1")
    assert "plan" not in box.clerk.users["user_ada"]["public_metadata"]
    assert row is not None
    assert row.pending


async def reconcile(parts: Parts) -> None:
    async with open_reconcile(parts.settings, parts.store, Counter()) as run:
        await run.apply(await run.find())

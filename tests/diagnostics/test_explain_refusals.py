"""A document that gives no access says why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from sync_worker.diagnostics.explanation import RowStatus, SyncState
from sync_worker.diagnostics.issues import from_row
from tests.builders import publish, weak
from tests.diagnostics.explaining import ADA, ahead, document, subject, sync

if TYPE_CHECKING:
    from sync_worker.sandbox.server import Sandbox
    from tests.parts import Parts

pytestmark = pytest.mark.anyio


NOT_A_TIME = "is not a date and time; write one such as 2026-05-01T12:00:00Z, or a date such as 2026-05-01"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"plan": "gold"}, (RowStatus.REFUSED, SyncState.REFUSED, "'gold' is not one of basic, pro")),
        ({"role": 7 * [1]}, (RowStatus.REFUSED, SyncState.REFUSED, "role is invalid: must be a string")),
        ({"startsAt": ahead(3600)}, (RowStatus.SCHEDULED, SyncState.PENDING, "it starts")),
        ({"endsAt": ahead(-3600)}, (RowStatus.ENDED, SyncState.EXPIRED, "it ended")),
        ({"status": "paused"}, (RowStatus.INACTIVE, SyncState.INACTIVE, "its status is 'paused'")),
    ],
)
async def test_a_row_that_does_not_count_says_why(
    box: Sandbox, parts: Parts, fields: dict[str, Any], expected: tuple[RowStatus, SyncState, str]
) -> None:
    status, state, words = expected
    box.clerk.add_user("user_1")
    await publish(box, "e1", clerkUserId="user_1", **fields)
    result = await document(parts, "e1")
    (one,) = result.subjects
    assert (one.rows[0].status, one.verdict.state, result.verdict.state) == (status, state, state)
    assert words in one.verdict.headline
    assert words in result.verdict.headline
    assert result.verdict.next_step


async def test_an_entitlement_that_names_nobody_is_refused(box: Sandbox, parts: Parts) -> None:
    await publish(box, "e1", clerkUserId="../organizations/org_1")
    result = await document(parts, "e1")
    assert (result.verdict.state, result.subjects) == (SyncState.REFUSED, ())
    assert "clerkUserId" in result.verdict.headline


async def test_an_id_that_clerk_does_not_know_is_refused(box: Sandbox, parts: Parts) -> None:
    await publish(box, "e1", clerkUserId="user_nobody")
    result = await document(parts, "e1")
    assert result.verdict.state is SyncState.REFUSED
    assert "Clerk has nobody with this id" in result.verdict.headline


async def test_access_too_large_for_clerk_is_refused(box: Sandbox, parts: Parts) -> None:
    box.clerk.add_user("user_1")
    slugs = [
        {"create": {"_id": f"c{n}", "_type": "course", "slug": {"current": f"{n:03}{'x' * 90}"}}} for n in range(100)
    ]
    await box.lake.mutate(slugs)
    await publish(box, "e1", clerkUserId="user_1", courses=[{"_ref": f"c{n}"} for n in range(100)])
    result = await document(parts, "e1")
    assert result.verdict.state is SyncState.REFUSED
    assert "8 KB" in result.verdict.headline


async def test_a_second_row_that_is_refused_does_not_hide_behind_the_good_one(box: Sandbox, parts: Parts) -> None:
    box.clerk.add_user("user_1")
    await publish(box, "e1", clerkUserId="user_1")
    await publish(box, "e2", clerkUserId="user_1", plan="gold")
    await sync(parts, "user:user_1")
    result = await subject(parts, "user:user_1")
    assert result.verdict.state is SyncState.SYNCED
    assert "e2 does not count" in result.verdict.headline


@pytest.mark.parametrize(
    ("email", "reason"),
    [
        ({"verified": False}, "it is not verified"),
        ({"reserved": True}, "it is reserved by a sign-up that is not finished"),
        ({"primary": False}, "it is not the primary address"),
    ],
)
@pytest.mark.parametrize("published", [True, False])
async def test_an_address_that_does_not_count_says_who_has_it_and_why(
    box: Sandbox, parts: Parts, email: dict[str, bool], reason: str, published: bool
) -> None:
    box.clerk.add_user("user_1", email=ADA)
    change_address(box, **email)
    if published:
        await publish(box, "e1", userEmail=ADA)
    result = await subject(parts, ADA)
    assert result.verdict.headline == f"user:user_1 has this address, but it does not count because {reason}."
    assert result.verdict.state is (SyncState.PENDING if published else SyncState.UNKNOWN)
    assert "clerkUserId" in result.verdict.next_step


def change_address(box: Sandbox, *, verified: bool = True, reserved: bool = False, primary: bool = True) -> None:
    user = box.clerk.users["user_1"]
    (address,) = user["email_addresses"]
    address["reserved"] = reserved
    address["verification"] = {"status": "verified" if verified else "unverified", "strategy": "email_code"}
    if not primary:
        user["primary_email_address_id"] = "idn_another"


async def test_each_field_that_is_wrong_is_an_issue_of_its_own(box: Sandbox, parts: Parts) -> None:
    box.clerk.add_user("user_1")
    await publish(box, "e1", clerkUserId="user_1", endsAt=20270601)
    await publish(box, "e2", clerkUserId="user_1", plan="gold")
    await publish(box, "e3", clerkUserId="user_1", courses=[weak("nowhere")])
    await sync(parts, "user:user_1")
    (noted,) = await parts.store.queue.noted(10)
    found = [(one.kind.value, one.document, one.field, one.reason) for one in from_row(noted)]
    assert found == [
        ("refused", "e1", "endsAt", NOT_A_TIME),
        ("refused", "e2", "plan", "'gold' is not one of basic, pro"),
        (
            "incomplete",
            "e3",
            "unresolved",
            "1 reference leads to nothing usable; what is left: plan",
        ),
    ]

"""Settings that say where managed keys go: after a change and a reconcile, everybody has moved and nothing is left."""

from __future__ import annotations

import copy
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from sync_worker.runtime.wiring import installation_of, open_reconcile
from tests.parts import opened

if TYPE_CHECKING:
    from sync_worker.sandbox.server import Sandbox

pytestmark = pytest.mark.anyio
UNMANAGED: dict[str, Any] = {"theme": "dark", "nested": {"plan": "not ours"}, "access": {"theirs": 1}}
MARKER = "entitlementSync"


async def seed(box: Sandbox) -> None:
    """Two people with access, one without, one organization, one member, all with keys of other writers."""
    for name in ("user_ada", "user_ben", "user_eve"):
        box.clerk.add_user(name, public_metadata=copy.deepcopy(UNMANAGED), private_metadata={"crm": 1})
    box.clerk.add_organization("org_1", public_metadata=copy.deepcopy(UNMANAGED))
    box.clerk.add_membership("org_1", "user_ada", public_metadata=copy.deepcopy(UNMANAGED))
    rows: list[dict[str, Any]] = [
        {"clerkUserId": "user_ada", "plan": "pro", "role": "lead", "features": ["a", "b"], "onboardingStep": 2},
        {"clerkUserId": "user_ben", "plan": "basic"},
        {"clerkOrganizationId": "org_1", "plan": "team"},
        {"clerkOrganizationId": "org_1", "clerkUserId": "user_ada", "role": "seat"},
    ]
    await box.lake.mutate([{"create": {"_id": f"e{n}", "_type": "entitlement", **row}} for n, row in enumerate(rows)])


async def reconcile(box: Sandbox, database_url: str, **settings: Any) -> int:
    """Release these settings and run one reconcile; return how many it wrote."""
    async with opened(box, database_url, **settings) as parts:
        await installation_of(parts.settings, parts.store).record()
        calls: Counter[str] = Counter()
        async with open_reconcile(parts.settings, parts.store, calls) as run:
            await run.apply(await run.find())
    return calls["writes"]


def public(box: Sandbox, user: str) -> dict[str, Any]:
    return {k: v for k, v in box.clerk.users[user]["public_metadata"].items() if k not in UNMANAGED}


def private(box: Sandbox, user: str) -> dict[str, Any]:
    return {k: v for k, v in box.clerk.users[user]["private_metadata"].items() if k not in ("crm", MARKER)}


def foreign_is_untouched(box: Sandbox) -> bool:
    holders = [*box.clerk.users.values(), *box.clerk.organizations.values(), *box.clerk.memberships.values()]
    managed = {"plan", "role", "courseSlugs"}

    def cleaned(metadata: dict[str, Any]) -> dict[str, Any]:
        kept = {name: metadata.get(name) for name in UNMANAGED}
        kept["access"] = {k: v for k, v in (metadata.get("access") or {}).items() if k not in managed}
        return kept

    return all(cleaned(holder["public_metadata"]) == UNMANAGED for holder in holders)


ADA = {"plan": "pro", "role": "lead", "courseSlugs": []}


async def test_a_namespace_moves_everybody_into_it_and_back(box: Sandbox, sqlite_url: str) -> None:
    await seed(box)
    await reconcile(box, sqlite_url)
    assert public(box, "user_ada") == ADA
    assert await reconcile(box, sqlite_url, metadata_namespace="access") == 4
    assert public(box, "user_ada") == {}
    assert box.clerk.users["user_ada"]["public_metadata"]["access"] == {"theirs": 1, **ADA}
    assert await reconcile(box, sqlite_url, metadata_namespace="access") == 0
    assert await reconcile(box, sqlite_url) == 4
    assert (public(box, "user_ada"), box.clerk.users["user_ada"]["public_metadata"]["access"]) == (ADA, {"theirs": 1})
    assert foreign_is_untouched(box)


async def test_private_fields_leave_public_metadata(box: Sandbox, sqlite_url: str) -> None:
    await seed(box)
    await reconcile(box, sqlite_url)
    await reconcile(box, sqlite_url, private_fields="role,courseSlugs")
    assert (public(box, "user_ada"), private(box, "user_ada")) == (
        {"plan": "pro"},
        {"role": "lead", "courseSlugs": []},
    )
    await reconcile(box, sqlite_url)
    assert (public(box, "user_ada"), private(box, "user_ada")) == (ADA, {})
    assert foreign_is_untouched(box)


async def test_a_namespace_that_is_left_empty_does_not_stay(box: Sandbox, sqlite_url: str) -> None:
    await seed(box)
    await reconcile(box, sqlite_url, metadata_namespace="portal")
    assert public(box, "user_ben")["portal"]["plan"] == "basic"
    await box.lake.mutate([{"delete": {"id": "e1"}}])
    await reconcile(box, sqlite_url, metadata_namespace="portal", max_revocations="100%")
    assert public(box, "user_ben").get("portal", {}) == {}


async def test_a_baseline_is_what_remains_and_is_unmanaged_from_then_on(box: Sandbox, sqlite_url: str) -> None:
    await seed(box)
    await reconcile(box, sqlite_url)
    await box.lake.mutate([{"delete": {"id": "e1"}}])
    await reconcile(box, sqlite_url, baseline_plan="free")
    assert public(box, "user_ben") == {"plan": "free"}
    assert public(box, "user_eve") == {}
    assert await reconcile(box, sqlite_url) == 0
    assert public(box, "user_ben") == {"plan": "free"}
    assert MARKER not in box.clerk.users["user_ben"]["private_metadata"]


async def test_further_fields_come_with_their_setting_and_go_with_it(
    box: Sandbox, sqlite_url: str, groq_with_features: str
) -> None:
    await seed(box)
    more = {"extra_fields": "features=union,onboardingStep=latest", "groq_dir": groq_with_features}
    await reconcile(box, sqlite_url, **more)
    assert public(box, "user_ada") == ADA | {"features": ["a", "b"], "onboardingStep": 2}
    assert await reconcile(box, sqlite_url, **more) == 0
    await reconcile(box, sqlite_url)
    assert public(box, "user_ada") == ADA
    assert foreign_is_untouched(box)

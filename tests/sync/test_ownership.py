"""Whose key it is: the app's own values stay, and ours go, whatever happens to the marker."""

from __future__ import annotations

import copy
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from sync_worker.domain.ownership import Adoption
from sync_worker.errors import ConfigurationError, EveryoneLoses
from sync_worker.runtime.wiring import installation_of, open_reconcile
from sync_worker.storage.ledger import State
from sync_worker.storage.work_items import WorkItem
from tests.causes import cause_of
from tests.expected import delete
from tests.oracle import until, until_idle
from tests.parts import opened, working

if TYPE_CHECKING:
    from sync_worker.sandbox.server import Sandbox
    from sync_worker.worker.desired_state import Findings
    from sync_worker.worker.full_reconcile import Result
    from tests.parts import Parts

pytestmark = pytest.mark.anyio
APP = {"role": "admin", "plan": "team", "theme": "dark"}


async def reconcile(parts: Parts, **given: Any) -> tuple[Findings, Result]:
    async with open_reconcile(parts.settings, parts.store, Counter(), **given) as run:
        findings = await run.find()
        return findings, await run.apply(findings)


async def publish(box: Sandbox, id_: str, **fields: Any) -> None:
    await box.lake.mutate([{"createOrReplace": {"_id": id_, "_type": "entitlement", **fields}}])


async def course(box: Sandbox, id_: str, slug: str | None) -> dict[str, str]:
    fields = {} if slug is None else {"slug": {"current": slug}}
    await box.lake.mutate([{"createOrReplace": {"_id": id_, "_type": "course", **fields}}])
    return {"_type": "reference", "_ref": id_, "_key": id_}


def public(box: Sandbox, user: str = "user_1") -> dict[str, Any]:
    return copy.deepcopy(box.clerk.users[user]["public_metadata"])


async def test_a_course_for_a_user_with_a_plan_of_the_app_adds_the_course_alone(
    box: Sandbox, database_url: str
) -> None:
    box.clerk.add_user("user_1", public_metadata={**APP})
    await publish(box, "e1", clerkUserId="user_1", courses=[await course(box, "c1", "algebra")])
    async with opened(box, database_url) as parts:
        await reconcile(parts)
        assert public(box) == {**APP, "courseSlugs": ["algebra"]}
        await box.lake.mutate([{"delete": {"id": "e1"}}])
        await publish(box, "e2", clerkUserId="user_2")
        await reconcile(parts)
        assert public(box) == APP


@pytest.mark.parametrize("end", ["deleted", "cancelled", "moved"])
async def test_an_app_that_wipes_the_marker_keeps_nobodys_plan(box: Sandbox, database_url: str, end: str) -> None:
    box.clerk.add_user("user_1", public_metadata={"theme": "dark"})
    box.clerk.add_user("user_2")
    await publish(box, "e1", clerkUserId="user_1", plan="pro")
    await publish(box, "e2", clerkUserId="user_2", plan="pro")
    async with opened(box, database_url) as parts:
        await reconcile(parts)
        box.clerk.users["user_1"]["private_metadata"] = {"app": "replaced everything"}
        match end:
            case "deleted":
                await box.lake.mutate([{"delete": {"id": "e1"}}])
            case "cancelled":
                await publish(box, "e1", clerkUserId="user_1", plan="pro", status="cancelled")
            case "moved":
                await publish(box, "e1", clerkUserId="user_2", plan="pro")
        await reconcile(parts)
    assert public(box) == {"theme": "dark"}
    assert box.clerk.users["user_1"]["private_metadata"] == {"app": "replaced everything"}


async def test_a_wiped_marker_is_written_again(box: Sandbox, sqlite_url: str) -> None:
    box.clerk.add_user("user_1")
    await publish(box, "e1", clerkUserId="user_1", plan="pro")
    async with opened(box, sqlite_url) as parts:
        await reconcile(parts)
        box.clerk.users["user_1"]["private_metadata"] = {}
        findings, _ = await reconcile(parts)
        assert (len(findings.differences), findings.taken_over) == (1, 0)
        assert "entitlementSync" in box.clerk.users["user_1"]["private_metadata"]


@pytest.mark.parametrize("fields", [{"status": "paused"}, {"endsAt": "2020-01-01T00:00:00Z"}])
async def test_an_entitlement_that_never_counted_takes_nothing_of_the_app_with_it(
    box: Sandbox, database_url: str, fields: dict[str, Any]
) -> None:
    box.clerk.add_user("user_1", public_metadata={**APP})
    await publish(box, "other", clerkUserId="user_2", plan="pro")
    await publish(box, "e1", clerkUserId="user_1", plan="pro", **fields)
    async with working(box, database_url) as parts:
        await parts.store.queue.enqueue([WorkItem("user:user_1", cause=cause_of("webhook:e1"))])
        await until_idle(database_url)
        gone = await delete(box, "e1")
        await parts.store.queue.enqueue([WorkItem("user:user_1", cause=cause_of("webhook:e1"), expected=gone)])
        await until_idle(database_url)
    assert public(box) == APP


async def test_a_replayed_delete_takes_nothing_that_support_set_by_hand(box: Sandbox, sqlite_url: str) -> None:
    box.clerk.add_user("user_1")
    await publish(box, "other", clerkUserId="user_2", plan="pro")
    await publish(box, "e1", clerkUserId="user_1", plan="pro")
    async with working(box, sqlite_url) as parts:
        await parts.store.queue.enqueue([WorkItem("user:user_1", cause=cause_of("webhook:e1"))])
        await until_idle(sqlite_url)
        gone = await delete(box, "e1")
        await parts.store.queue.enqueue([WorkItem("user:user_1", cause=cause_of("webhook:e1"), expected=gone)])
        await until(lambda: public(box) == {})
        await until_idle(sqlite_url)
        box.clerk.users["user_1"]["public_metadata"]["plan"] = "by support"
        await parts.store.queue.enqueue([WorkItem("user:user_1", cause=cause_of("webhook:e1"), expected=gone)])
        await until_idle(sqlite_url)
    assert public(box) == {"plan": "by support"}


async def test_what_a_row_takes_over_is_counted_and_the_former_value_is_kept_in_the_ledger(
    box: Sandbox, sqlite_url: str
) -> None:
    box.clerk.add_user("user_1", public_metadata={**APP})
    await publish(box, "e1", clerkUserId="user_1", plan="pro")
    async with opened(box, sqlite_url) as parts:
        findings, result = await reconcile(parts)
        (entry,) = await parts.store.ledger.taken_over("user:user_1", 10)
    assert (findings.taken_over, result.taken_over) == (1, 1)
    assert (entry.taken_over, entry.state) == ({"plan": "team"}, State.APPLIED)


async def test_two_installations_leave_each_others_people_alone(box: Sandbox, sqlite_url: str, tmp_path: Any) -> None:
    box.clerk.add_user("user_1")
    await publish(box, "e1", clerkUserId="user_1", plan="pro")
    async with opened(box, sqlite_url) as parts:
        await reconcile(parts)
    theirs = public(box)
    other = f"sqlite:///{tmp_path / 'other.db'}"
    box.clerk.users["user_1"]["private_metadata"]["entitlementSync"]["source"] = "elsewhere/production"
    async with opened(box, other) as parts:
        findings, result = await reconcile(parts)
        assert (result.kinds.total(), [r.reason for r in findings.refused]) == (
            0,
            ["user:user_1 is managed by elsewhere/production"],
        )
        await publish(box, "e2", clerkUserId="user_2", plan="pro")
        await box.lake.mutate([{"delete": {"id": "e1"}}])
        await reconcile(parts, accept_fewer=True)
        assert public(box) == theirs
        await reconcile(parts, accept_fewer=True, adoption=Adoption(source="elsewhere/production"))
        assert public(box) == {}


async def test_another_namespace_than_the_recorded_one_writes_nothing_and_names_the_variable(
    box: Sandbox, database_url: str
) -> None:
    box.clerk.add_user("user_1")
    await publish(box, "e1", clerkUserId="user_1", plan="pro")
    async with opened(box, database_url) as parts:
        await reconcile(parts)
    before = copy.deepcopy(box.clerk.users["user_1"])
    async with opened(box, database_url, metadata_namespace="access") as parts:
        async with open_reconcile(parts.settings, parts.store, Counter(), dry_run=True) as preview:
            (difference,) = (await preview.find()).differences
        assert difference.drift == "moved by settings"
        with pytest.raises(ConfigurationError, match="METADATA_NAMESPACE"):
            await reconcile(parts)
        assert box.clerk.users["user_1"] == before
        await installation_of(parts.settings, parts.store).record()
        await reconcile(parts)
    assert public(box) == {"access": {"plan": "pro", "courseSlugs": []}}


async def test_a_field_that_is_added_to_the_settings_leaves_the_apps_key_of_that_name(
    box: Sandbox, sqlite_url: str, groq_with_features: str
) -> None:
    box.clerk.add_user("user_1", public_metadata={"onboardingStep": 7, "features": ["own"]})
    await publish(box, "e1", clerkUserId="user_1", plan="pro")
    more: dict[str, Any] = {"extra_fields": "features=union,onboardingStep=latest", "groq_dir": groq_with_features}
    async with opened(box, sqlite_url, **more) as parts:
        await reconcile(parts)
    assert public(box) == {"onboardingStep": 7, "features": ["own"], "plan": "pro", "courseSlugs": []}


async def test_a_namespace_named_like_a_key_of_the_app_is_refused(box: Sandbox, sqlite_url: str) -> None:
    box.clerk.add_user("user_1", public_metadata={"theme": "dark"})
    await publish(box, "e1", clerkUserId="user_1", plan="pro")
    async with opened(box, sqlite_url, metadata_namespace="theme") as parts:
        findings, _ = await reconcile(parts)
    assert [refusal.field for refusal in findings.refused] == ["namespace_occupied"]
    assert public(box) == {"theme": "dark"}


async def test_a_reconcile_in_which_everybody_would_lose_the_plan_stops(box: Sandbox, sqlite_url: str) -> None:
    reference = {"_type": "reference", "_ref": "p1"}
    await box.lake.mutate([{"create": {"_id": "p1", "_type": "plan", "slug": {"current": "pro"}}}])
    for number in range(3):
        box.clerk.add_user(f"user_{number}")
        await publish(box, f"e{number}", clerkUserId=f"user_{number}", plan=reference)
    async with opened(box, sqlite_url, max_revocations="1000") as parts:
        await reconcile(parts)
        await box.lake.mutate([{"patch": {"id": "p1", "unset": ["slug"]}}])
        with pytest.raises(EveryoneLoses, match="3 of 3 would lose plan"):
            await reconcile(parts)
        assert public(box)["plan"] == "pro"
        await reconcile(parts, accept_fewer=True)
        assert "plan" not in public(box)


async def test_the_last_entitlement_whose_delete_was_lost_can_be_taken_away(box: Sandbox, database_url: str) -> None:
    box.clerk.add_user("user_1")
    await publish(box, "e1", clerkUserId="user_1", plan="pro")
    async with opened(box, database_url) as parts:
        await reconcile(parts)
        await box.lake.mutate([{"delete": {"id": "e1"}}])
        _, result = await reconcile(parts, accept_fewer=True)
        assert (public(box), result.is_good) == ({}, True)


@pytest.mark.parametrize("namespace", [None, "access"])
async def test_the_marker_of_three_entitlements_takes_at_most_400_bytes_in_clerk(
    box: Sandbox, sqlite_url: str, namespace: str | None
) -> None:
    box.clerk.add_user("user_1")
    rows: list[dict[str, Any]] = [{"plan": "professional"}, {"role": "instructor"}, {"courses": []}]
    for number, fields in enumerate(rows):
        await publish(box, f"entitlement-0b8f5a52-3f0e-4c1d-9a52-{number:012}", clerkUserId="user_1", **fields)
    async with opened(box, sqlite_url, metadata_namespace=namespace) as parts:
        await reconcile(parts)
    private = box.clerk.users["user_1"]["private_metadata"]
    marker = (private[namespace] if namespace else private)["entitlementSync"]
    assert (len(marker["documents"]), len(marker["keys"])) == (3, 3)
    assert len(json.dumps(private).encode()) <= 400  # with the spaces that some encoders add


async def test_a_grant_that_never_arrived_makes_nothing_of_the_apps_ours(box: Sandbox, database_url: str) -> None:
    box.clerk.add_user("user_1", public_metadata={"plan": "pro"})
    await publish(box, "other", clerkUserId="user_2", plan="pro")
    await publish(box, "e1", clerkUserId="user_1", plan="pro")
    async with opened(box, database_url) as parts:
        box.clerk.faults.some("internal", 1.0, method="PATCH")
        _, result = await reconcile(parts)
        box.clerk.faults.clear()
        assert list(result.failed) == ["user:user_1"]
        await box.lake.mutate([{"delete": {"id": "e1"}}])
        async with open_reconcile(parts.settings, parts.store, Counter()) as run:
            assert (await run.find()).losing == []
    assert public(box) == {"plan": "pro"}


async def test_an_entitlement_that_is_only_invisible_is_not_taken_away_even_then(box: Sandbox, sqlite_url: str) -> None:
    box.clerk.add_user("user_1")
    await publish(box, "e1", clerkUserId="user_1", plan="pro")
    async with opened(box, sqlite_url) as parts:
        await reconcile(parts)
        await box.lake.mutate([{"createOrReplace": {**box.lake.documents["e1"], "_type": "renamed"}}])
        _, result = await reconcile(parts, accept_fewer=True)
        assert (public(box)["plan"], result.is_good) == ("pro", False)

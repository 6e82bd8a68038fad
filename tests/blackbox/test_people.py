"""Every way to name a person, on real processes: by id, by address, before and after the sign-up."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from sync_worker.cli.processes import install_clerk_hook
from sync_worker.runtime.wiring import open_store
from tests import nursery
from tests.builders import publish
from tests.oracle import until, until_idle, until_right, wrong
from tests.parts import RUNTIME, settings_of

if TYPE_CHECKING:
    from pathlib import Path

    from sync_worker.sandbox.server import Sandbox
    from tests.blackbox.conftest import Deployment

pytestmark = [pytest.mark.anyio]
ADA = "ada@example.org"
in_process = pytest.mark.full("every commit runs it in one process: tests/sync, tests/webhooks")


@pytest.fixture(autouse=True)
def clerk_hook(box: Sandbox, deployment: Deployment) -> None:
    install_clerk_hook(box, deployment.url)


def plan_of(box: Sandbox, user: str) -> Any:
    return box.clerk.users[user]["public_metadata"].get("plan")


def address(box: Sandbox, user: str) -> dict[str, Any]:
    found: dict[str, Any] = box.clerk.users[user]["email_addresses"][0]
    return found


def verify(box: Sandbox, user: str) -> None:
    changed = {
        **address(box, user),
        "reserved": False,
        "verification": {"status": "verified", "strategy": "email_code"},
    }
    box.clerk.update_user(user, email_addresses=[changed])


def logged(deployment: Deployment, event: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in deployment.log.read_text().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event]


async def settled(box: Sandbox, deployment: Deployment) -> None:
    await box.lake.hooks_idle()
    await until_idle(deployment.environment["DATABASE_URL"])


async def test_an_email_is_matched_whatever_its_case(box: Sandbox) -> None:
    ada = box.clerk.add_user(email="Ada@Example.org")
    await publish(box, "e1", userEmail=" ADA@example.ORG ")
    await until(lambda: plan_of(box, ada) == "pro")


@in_process
async def test_an_external_id_is_matched_exactly(box: Sandbox, deployment: Deployment) -> None:
    ada = box.clerk.add_user(external_id="Crm-7")
    ben = box.clerk.add_user(external_id="crm-7")
    await publish(box, "e1", userExternalId="Crm-7")
    await until(lambda: plan_of(box, ada) == "pro")
    await settled(box, deployment)
    assert plan_of(box, ben) is None


@in_process
@pytest.mark.parametrize("external_id", ["-7", "+7"])
async def test_an_external_id_with_a_sign_names_one_person_only(box: Sandbox, external_id: str) -> None:
    ada = box.clerk.add_user(external_id=external_id)
    others = [box.clerk.add_user(external_id=text) for text in ("7", "8")]
    await publish(box, "e1", userExternalId=external_id)
    await until(lambda: plan_of(box, ada) == "pro")
    assert [plan_of(box, other) for other in others] == [None, None]


async def test_a_verified_sign_up_has_access_at_once(box: Sandbox, deployment: Deployment) -> None:
    await publish(box, "e1", userEmail=ADA)
    await until(lambda: bool(logged(deployment, "entitlement_pending")))
    ada = box.clerk.add_user(email=ADA)
    await until(lambda: plan_of(box, ada) == "pro")


@in_process
@pytest.mark.parametrize("reserved", [False, True])
async def test_an_address_that_is_not_verified_gives_nothing_until_it_is(
    box: Sandbox, deployment: Deployment, reserved: bool
) -> None:
    await publish(box, "e1", userEmail=ADA)
    ada = box.clerk.add_user(email=ADA, verified=False, reserved=reserved)
    await settled(box, deployment)
    assert plan_of(box, ada) is None
    verify(box, ada)
    await until(lambda: plan_of(box, ada) == "pro")


@in_process
async def test_a_secondary_address_gives_nothing_until_it_is_primary(box: Sandbox, deployment: Deployment) -> None:
    ada = box.clerk.add_user(email="work@example.org")
    secondary = {**address(box, ada), "id": "idn_second", "email_address": ADA}
    box.clerk.update_user(ada, email_addresses=[address(box, ada), secondary])
    await publish(box, "e1", userEmail=ADA)
    await settled(box, deployment)
    assert plan_of(box, ada) is None
    box.clerk.update_user(ada, primary_email_address_id="idn_second")
    await until(lambda: plan_of(box, ada) == "pro")


async def test_an_address_that_moves_takes_its_access_along(box: Sandbox) -> None:
    ada, ben = box.clerk.add_user(email=ADA), box.clerk.add_user(email="ben@example.org")
    await publish(box, "e1", userEmail=ADA)
    await until(lambda: plan_of(box, ada) == "pro")
    box.clerk.update_user(ada, email_addresses=[{**address(box, ada), "email_address": "ada@new.example"}])
    box.clerk.update_user(ben, email_addresses=[{**address(box, ben), "email_address": ADA}])
    await until_right(box)
    assert (plan_of(box, ada), plan_of(box, ben)) == (None, "pro")


async def test_an_address_that_two_people_have_counts_for_neither(box: Sandbox, deployment: Deployment) -> None:
    ada = box.clerk.add_user(email=ADA)
    await publish(box, "e1", userEmail=ADA)
    await until(lambda: plan_of(box, ada) == "pro")
    twin = box.clerk.add_user(email=ADA)
    await publish(box, "e1", userEmail=ADA, role="member")
    await until(lambda: plan_of(box, ada) is None)
    await until(lambda: any("several" in line["detail"] for line in logged(deployment, "entitlement_refused")))
    await settled(box, deployment)
    assert plan_of(box, twin) is None


@in_process
async def test_an_entitlement_that_changes_its_address_leaves_the_first_person(box: Sandbox) -> None:
    ada, ben = box.clerk.add_user(email=ADA), box.clerk.add_user(external_id="7")
    await publish(box, "e1", userEmail=ADA)
    await until(lambda: plan_of(box, ada) == "pro")
    await box.lake.mutate([{"patch": {"id": "e1", "set": {"userExternalId": "7"}, "unset": ["userEmail"]}}])
    await until(lambda: (plan_of(box, ada), plan_of(box, ben)) == (None, "pro"))


async def test_a_deleted_entitlement_by_address_takes_access_away(box: Sandbox) -> None:
    ada = box.clerk.add_user(email=ADA)
    await publish(box, "e1", userEmail=ADA)
    await publish(box, "other", userEmail="nobody@example.org")
    await until(lambda: plan_of(box, ada) == "pro")
    await box.lake.mutate([{"delete": {"id": "e1"}}])
    await until(lambda: plan_of(box, ada) is None)


@in_process
async def test_a_member_who_joins_later_gets_the_access_then(box: Sandbox, deployment: Deployment) -> None:
    box.clerk.add_organization("org_1")
    ada, ben = box.clerk.add_user(email=ADA), box.clerk.add_user()
    await publish(box, "e1", clerkOrganizationId="org_1", userEmail=ADA)
    await publish(box, "e2", clerkOrganizationId="org_1", clerkUserId=ben, plan="team")
    await settled(box, deployment)
    box.clerk.add_membership("org_1", ada)
    box.clerk.add_membership("org_1", ben)
    await until(lambda: not wrong(box))
    assert box.clerk.memberships["org_1", ada]["public_metadata"]["plan"] == "pro"
    assert (plan_of(box, ada), box.clerk.organizations["org_1"]["public_metadata"]) == (None, {})


@in_process
async def test_an_organization_that_is_created_later_gets_its_access_then(box: Sandbox, deployment: Deployment) -> None:
    await publish(box, "e1", clerkOrganizationId="org_1")
    await settled(box, deployment)
    box.clerk.add_organization("org_1")
    await until(lambda: box.clerk.organizations["org_1"]["public_metadata"].get("plan") == "pro")


async def test_our_own_write_comes_back_and_ends_in_no_write(box: Sandbox, deployment: Deployment) -> None:
    ada = box.clerk.add_user(email=ADA)
    await settled(box, deployment)
    await publish(box, "e1", userEmail=ADA)
    await until(lambda: plan_of(box, ada) == "pro")
    await until(
        lambda: any(line.get("event_type") == "user.updated" for line in logged(deployment, "webhook_accepted"))
    )
    await settled(box, deployment)
    assert box.clerk.requests.count("PATCH") == 1


@in_process
async def test_an_edit_in_the_dashboard_is_undone_at_once(box: Sandbox) -> None:
    ada = box.clerk.add_user(email=ADA)
    await publish(box, "e1", userEmail=ADA)
    await until(lambda: plan_of(box, ada) == "pro")
    box.clerk.update_user(ada, public_metadata={**box.clerk.users[ada]["public_metadata"], "plan": "team"})
    await until(lambda: plan_of(box, ada) == "pro")


@in_process
async def test_the_reconcile_reports_what_is_pending(box: Sandbox, deployment: Deployment, tmp_path: Path) -> None:
    await publish(box, "e1", userEmail=ADA)
    ended = await nursery.run("reconcile", "--dry-run", cwd=tmp_path, environment=deployment.environment)
    assert "pending: e1: userEmail" in ended.err
    assert ADA not in ended.err + ended.out


async def test_no_address_is_logged_or_stays_in_the_database(
    box: Sandbox, deployment: Deployment, tmp_path: Path
) -> None:
    ada = box.clerk.add_user(email=ADA)
    await publish(box, "e1", userEmail=ADA)
    await publish(box, "e2", userEmail="pending@example.org")
    await until(lambda: plan_of(box, ada) == "pro")
    await box.lake.mutate([{"delete": {"id": "e1"}}])
    await until(lambda: plan_of(box, ada) is None)
    await settled(box, deployment)
    assert "@example.org" not in deployment.log.read_text()
    ended = await nursery.run("history", "--json", cwd=tmp_path, environment=deployment.environment)
    assert "@example.org" not in ended.out
    async with open_store(settings_of(box, deployment.environment["DATABASE_URL"]), RUNTIME) as store:
        assert await store.queue.get(f"email:{ADA}") is None


@in_process
async def test_of_two_people_with_one_address_the_one_who_keeps_it_gets_the_access(
    box: Sandbox, deployment: Deployment
) -> None:
    ada, twin = box.clerk.add_user(email=ADA), box.clerk.add_user(email=ADA)
    await publish(box, "e1", userEmail=ADA)
    await until(lambda: any(line["code"] == "ambiguous_address" for line in logged(deployment, "entitlement_refused")))
    box.clerk.update_user(twin, email_addresses=[{**address(box, twin), "email_address": "twin@example.org"}])
    await until(lambda: plan_of(box, ada) == "pro", 60)


@in_process
async def test_who_comes_to_an_address_that_somebody_has_already_ends_the_access_of_both(box: Sandbox) -> None:
    ada, ben = box.clerk.add_user(email=ADA), box.clerk.add_user(email="ben@example.org")
    await publish(box, "e1", userEmail=ADA)
    await until(lambda: plan_of(box, ada) == "pro")
    box.clerk.update_user(ben, email_addresses=[{**address(box, ben), "email_address": ADA}])
    await until(lambda: not wrong(box))
    assert (plan_of(box, ada), plan_of(box, ben)) == (None, None)

"""What doctor says of JWT templates, and of access near the budget of a session token."""

from __future__ import annotations

from random import Random

import pytest

from sync_worker.doctor import people_checks
from sync_worker.doctor.people_checks import SAMPLE
from sync_worker.doctor.runner import Finding, Status, open_installation
from tests.doctor.installations import Installation, reconcile
from tests.parts import RUNTIME

pytestmark = pytest.mark.anyio


async def test_a_jwt_template_that_no_app_can_read_is_a_problem(installed: Installation) -> None:
    template = {"id": "jtmp_1", "name": "convex", "lifetime": 60, "allowed_clock_skew": 5}
    claims = {"aud": "convex", "plan": "{{organization.public_metadata.plan}}"}
    installed.box.clerk.templates["jtmp_1"] = {**template, "claims": claims}
    finding = (await installed.examine())["claims"]
    assert finding == Finding(
        Status.PROBLEM,
        "JWT template convex, claim plan: {{organization.public_metadata.plan}} stays in the token as text",
        "Write {{org.public_metadata.plan}}.",
    )


async def test_a_jwt_template_that_misses_a_key_which_somebody_has_is_a_problem(installed: Installation) -> None:
    template = {"id": "jtmp_1", "name": "api", "lifetime": 60, "allowed_clock_skew": 5}
    installed.box.clerk.templates["jtmp_1"] = {**template, "claims": {"plan": "{{user.public_metadata.tier}}"}}
    finding = (await installed.examine())["claims"]
    assert (finding.status, finding.fix) == (Status.PROBLEM, "Write {{user.public_metadata.plan}}.")


async def test_access_near_the_claims_budget_is_a_warning(installed: Installation) -> None:
    installed.reconfigure(claims_budget=30)
    finding = (await installed.examine())["claims"]
    assert finding.status is Status.WARNING
    assert "the most has user:user_1" in finding.result
    assert "of 30 bytes" in finding.result
    assert "PRIVATE_FIELDS" in finding.fix


async def test_the_last_reconcile_says_how_many_are_over_the_budget_and_who_has_most(installed: Installation) -> None:
    installed.reconfigure(claims_budget=100)
    for number in range(3):
        user, courses = f"user_large_{number}", [f"course-{number}-{n}" for n in range(10 + number)]
        installed.box.clerk.add_user(user)
        await installed.box.lake.load([{"_id": c, "_type": "course", "slug": {"current": c}} for c in courses])
        references = [{"_key": c, "_type": "reference", "_ref": c} for c in courses]
        await installed.publish(f"ent-{number}", clerkUserId=user, courses=references)
    await reconcile(installed.settings)
    for number in range(SAMPLE):  # nobody above is among the users updated last any more
        installed.box.clerk.add_user(f"user_new_{number}")
    finding = (await installed.examine())["claims"]
    assert finding.status is Status.WARNING
    assert finding.result.startswith(
        "3 people were over 100 bytes at the last reconcile; the most has user:user_large_2"
    )
    installed.reconfigure(claims_budget=1000)
    finding = (await installed.examine())["claims"]
    assert (finding.status, "people were over" in finding.result) == (Status.OK, False)
    installed.box.clerk.delete_user("user_large_2")
    finding = (await installed.examine())["claims"]  # who has most now may not be among the ten
    assert (finding.status, "user_large_2" in finding.result) == (Status.OK, False)


async def test_others_than_the_users_updated_last_are_rendered_too(installed: Installation) -> None:
    installed.box.clerk.add_user("user_old", public_metadata={"plan": "pro"}, created_at=1, updated_at=1)
    await installed.publish("ent-old", clerkUserId="user_old", role="student")
    await reconcile(installed.settings)
    installed.box.clerk.update_user("user_1", public_metadata={"plan": "pro"})
    for number in range(SAMPLE):
        installed.box.clerk.add_user(f"user_new_{number}")
    async with open_installation(installed.settings, {}, RUNTIME) as examined:
        seen = {
            person.observed["user"].subject.id
            for seed in range(20)
            for person in await people_checks.some_people(examined, Random(seed))
        }
    assert seen == {"user_old", "user_1"}

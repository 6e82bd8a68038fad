"""What the program exists for, on real processes: nobody has access that is not published, and everybody what is."""

from __future__ import annotations

import copy
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from tests.blackbox.conftest import ON_BOTH
from tests.builders import entitlement, reference
from tests.oracle import until, until_idle, until_right, wrong
from tests.sizes import sizes

if TYPE_CHECKING:
    from sync_worker.sandbox.server import Sandbox
    from tests.blackbox.conftest import Deployment

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("deployment")]
UNMANAGED: dict[str, Any] = {"theme": "dark", "nested": {"a": [1, {"b": None}], "plan": "not ours"}}


def course(number: int) -> dict[str, Any]:
    return {"create": {"_id": f"course-{number}", "_type": "course", "slug": {"current": f"slug-{number}"}}}


def add_users(box: Sandbox, count: int) -> list[str]:
    return [
        box.clerk.add_user(f"user_{n:04}", public_metadata=copy.deepcopy(UNMANAGED), private_metadata={"crm": n})
        for n in range(count)
    ]


def assert_foreign_keys_untouched(box: Sandbox) -> None:
    for number, user in enumerate(box.clerk.users.values()):
        assert {k: user["public_metadata"].get(k) for k in UNMANAGED} == UNMANAGED
        assert user["private_metadata"].get("crm") == number


async def everybody_is_right(box: Sandbox) -> None:
    await until_right(box)
    await box.lake.hooks_idle()
    await until_right(box)
    assert_foreign_keys_untouched(box)


@pytest.mark.parametrize("count", sizes(20, 200))
async def test_publishes_that_follow_each_other_at_once_are_all_right(box: Sandbox, count: int) -> None:
    users = add_users(box, count)
    await box.lake.mutate([course(0)])
    for user in users:
        row = entitlement(f"ent-{user}", user, plan="pro", role="member", courses=[reference("course-0")])
        await box.lake.mutate([{"create": row}])
    await everybody_is_right(box)


@ON_BOTH
@pytest.mark.parametrize("count", sizes(10, 100))
async def test_after_the_deletes_no_access_is_left(box: Sandbox, count: int) -> None:
    users = add_users(box, count)
    await box.lake.mutate([{"create": entitlement(f"ent-{u}", u, plan="pro")} for u in users])
    await everybody_is_right(box)
    for user in users:
        await box.lake.mutate([{"delete": {"id": f"ent-{user}"}}])
    await everybody_is_right(box)
    assert all("entitlementSync" not in user["private_metadata"] for user in box.clerk.users.values())


@pytest.mark.parametrize("count", sizes(120, 1000))
async def test_a_renamed_course_reaches_all_its_holders_with_few_calls(
    box: Sandbox, deployment: Deployment, count: int
) -> None:
    users = add_users(box, count)
    await box.lake.mutate([course(0)])
    holders = [entitlement(f"ent-{u}", u, courses=[reference("course-0")]) for u in users]
    await box.lake.mutate([{"create": row} for row in holders])
    await everybody_is_right(box)
    await until_idle(deployment.environment["DATABASE_URL"])
    box.lake.requests.clear()
    box.clerk.requests.clear()
    await box.lake.mutate([{"patch": {"id": "course-0", "set": {"slug.current": "renamed"}}}])
    await everybody_is_right(box)
    assert box.clerk.requests.count("PATCH") <= count
    assert box.clerk.requests.count("GET") <= 12
    assert box.lake.requests.count() <= 14


async def test_a_renamed_course_is_followed_through_plans_and_cohorts(box: Sandbox) -> None:
    (direct, by_plan, by_cohort) = add_users(box, 3)
    await box.lake.mutate(
        [
            course(0),
            {
                "create": {
                    "_id": "plan-1",
                    "_type": "plan",
                    "slug": {"current": "team"},
                    "courses": [reference("course-0")],
                }
            },
            {"create": {"_id": "cohort-1", "_type": "cohort", "courses": [reference("course-0")]}},
            {"create": entitlement("e1", direct, courses=[reference("course-0")])},
            {"create": entitlement("e2", by_plan, plan=reference("plan-1"))},
            {"create": entitlement("e3", by_cohort, cohorts=[reference("cohort-1")])},
        ]
    )
    await everybody_is_right(box)
    await box.lake.mutate([{"patch": {"id": "course-0", "set": {"slug.current": "renamed"}}}])
    await until(lambda: all(u["public_metadata"]["courseSlugs"] == ["renamed"] for u in box.clerk.users.values()))
    assert_foreign_keys_untouched(box)


@ON_BOTH
async def test_an_entitlement_that_moves_takes_its_access_along(box: Sandbox) -> None:
    ada, ben = add_users(box, 2)
    await box.lake.mutate([{"create": entitlement("e1", ada, plan="pro")}])
    await everybody_is_right(box)
    await box.lake.mutate([{"patch": {"id": "e1", "set": {"clerkUserId": ben}}}])
    await everybody_is_right(box)
    assert "plan" not in box.clerk.users[ada]["public_metadata"]
    assert box.clerk.users[ben]["public_metadata"]["plan"] == "pro"


@pytest.mark.parametrize("count", sizes(40, 1000))
async def test_users_with_several_entitlements_edited_at_random(box: Sandbox, count: int) -> None:
    random = Random(7)
    users = add_users(box, count)
    await box.lake.mutate([course(n) for n in range(20)])
    rows = [
        entitlement(f"ent-{n:05}", random.choice(users), plan=random.choice(["basic", "pro"]), courses=[])
        for n in range(3 * count)
    ]
    await box.lake.mutate([{"create": row} for row in rows])
    ids = [row["_id"] for row in rows]
    for _ in range(count):
        document = random.choice(ids)
        match random.randrange(4):
            case 0:
                ids.remove(document)
                await box.lake.mutate([{"delete": {"id": document}}])
            case 1:
                await box.lake.mutate([{"patch": {"id": document, "set": {"clerkUserId": random.choice(users)}}}])
            case 2:
                courses = [reference(f"course-{random.randrange(20)}") for _ in range(2)]
                await box.lake.mutate([{"patch": {"id": document, "set": {"courses": courses}}}])
            case _:
                await box.lake.mutate(
                    [{"patch": {"id": document, "set": {"status": random.choice(["active", "off"])}}}]
                )
    await everybody_is_right(box)


@pytest.mark.parametrize("count", sizes(8, 50))
async def test_queries_that_lag_behind_the_webhooks_are_not_believed(box: Sandbox, count: int) -> None:
    box.lake.lag = 0.15
    users = add_users(box, count)
    for user in users:
        await box.lake.mutate([{"create": entitlement(f"ent-{user}", user, plan="pro")}])
    await everybody_is_right(box)
    for user in users:
        await box.lake.mutate([{"patch": {"id": f"ent-{user}", "set": {"plan": "basic"}}}])
    await everybody_is_right(box)
    for user in users:
        await box.lake.mutate([{"delete": {"id": f"ent-{user}"}}])
    await everybody_is_right(box)


async def test_odd_documents_have_their_outcome_and_hold_up_nobody(box: Sandbox, deployment: Deployment) -> None:
    users = add_users(box, 5)
    box.clerk.add_organization("org_1")
    before = copy.deepcopy(box.clerk.organizations["org_1"]["public_metadata"])
    slugs = [
        {"create": {"_id": f"long-{n}", "_type": "course", "slug": {"current": f"{n:03}{'x' * 90}"}}}
        for n in range(100)
    ]
    await box.lake.mutate(slugs)
    await box.lake.mutate(
        [
            {"create": entitlement("path", "../organizations/org_1", plan="pro")},
            {"create": entitlement("spaces", f"  {users[0]} ", plan="pro")},
            {"create": entitlement("null-course", users[1], courses=[None, {"_ref": "nowhere", "_weak": True}])},
            {"create": entitlement("too-long", users[2], courses=[reference(f"long-{n}") for n in range(100)])},
            {"create": entitlement("nobody", "user_nobody", plan="pro")},
            {"create": entitlement("good", users[3], plan="pro")},
        ]
    )
    await until(lambda: wrong(box) == [users[2]])
    assert box.clerk.users[users[0]]["public_metadata"]["plan"] == "pro"
    assert box.clerk.organizations["org_1"]["public_metadata"] == before
    await until(lambda: all(code in deployment.log.read_text() for code in ("no_such_subject", "access_too_large")))
    assert_foreign_keys_untouched(box)

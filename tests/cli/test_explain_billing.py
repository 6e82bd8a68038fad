"""`explain` shows what Clerk Billing says of a person beside what Sanity grants, and never needs it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from sync_worker.sandbox import sample
from sync_worker.sandbox.clerk_billing import subscribe

if TYPE_CHECKING:
    from tests.cli.terminal import Operator

pytestmark = pytest.mark.anyio
PATH = "/v1/users/user_ada/billing/subscription"
LINE = "Clerk Billing        "


@pytest.fixture
async def school(operator: Operator) -> Operator:
    await sample.load_sample(operator.box)
    return operator


async def explained(operator: Operator, subject: str = "user_ada") -> tuple[str, Any]:
    """Return the line on billing, and the same as JSON."""
    text, found = [await operator.run("explain", subject, *more) for more in ([], ["--json"])]
    assert (text.code, found.code, text.err) == (0, 0, "")
    lines = [line for line in text.out.splitlines() if line.startswith(LINE)]
    return "\n".join(lines).removeprefix(LINE), json.loads(found.out)["billing"]


async def test_explain_shows_the_subscription_of_a_person(school: Operator) -> None:
    subscribe(school.box.clerk, "user_ada", gold="active")
    assert await explained(school) == (
        "gold (active)",
        {"summary": "gold (active)", "status": "active", "plans": [{"plan": "gold", "status": "active"}]},
    )
    assert await explained(school, "ada@example.com") == await explained(school)
    assert school.box.clerk.requests.writes == []


async def test_plans_that_begin_later_are_shown_and_those_that_are_over_are_not(school: Operator) -> None:
    subscribe(school.box.clerk, "user_ada", "past_due", basic="ended", gold="past_due", team="upcoming")
    text, found = await explained(school)
    assert text == "gold (past_due), team (upcoming)"
    assert (found["status"], len(found["plans"])) == ("past_due", 2)


async def test_a_subscription_without_any_plan_is_shown_by_its_status(school: Operator) -> None:
    subscribe(school.box.clerk, "user_ada", "ended", gold="ended")
    assert await explained(school) == (
        "no plan (ended)",
        {"summary": "no plan (ended)", "status": "ended", "plans": []},
    )


async def test_an_organization_has_its_own_subscription(school: Operator) -> None:
    subscribe(school.box.clerk, "org_school", team="active")
    assert (await explained(school, "org_school"))[0] == "team (active)"
    assert await explained(school, "membership:org_school/user_alan") == ("", None)


@pytest.mark.parametrize("fault", ["", "forbidden"], ids=["not_found", "forbidden"])
async def test_an_instance_without_billing_is_no_error(school: Operator, fault: str) -> None:
    if fault:
        school.box.clerk.faults.some(fault, 1.0, path_prefix=PATH)
    assert await explained(school) == ("", None)


@pytest.mark.parametrize("fault", ["internal", "bad_gateway", "truncated", "error_in_ok"])
async def test_billing_that_cannot_be_read_takes_nothing_from_the_explanation(school: Operator, fault: str) -> None:
    subscribe(school.box.clerk, "user_ada", gold="active")
    school.box.clerk.faults.some(fault, 1.0, path_prefix=PATH)
    text, found = await explained(school)
    assert text == "cannot be read right now"
    assert found == {"summary": text, "status": "unknown", "plans": []}
    explanation = json.loads((await school.run("explain", "user_ada", "--json")).out)
    assert (explanation["state"], bool(explanation["rows"])) == ("late", True)


@pytest.mark.parametrize(
    "broken", [{"subscription_items": None}, {"status": 7}, {"subscription_items": [{"plan": []}]}]
)
async def test_an_answer_of_another_shape_is_not_believed(school: Operator, broken: dict[str, Any]) -> None:
    subscription = subscribe(school.box.clerk, "user_ada", gold="active")
    subscription |= broken
    assert (await explained(school))[0] == "cannot be read right now"


async def test_documents_are_explained_without_asking_billing(school: Operator) -> None:
    await school.run("explain", "entitlement-ada-pro")
    assert school.box.clerk.requests.count(path_prefix=PATH) == 0

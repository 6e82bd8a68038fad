"""`claims install` as an operator runs it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.terminal import Operator

pytestmark = pytest.mark.anyio


async def test_a_template_is_created_and_then_up_to_date(operator: Operator) -> None:
    created = await operator.run("claims", "install", "--template", "convex", "--yes")
    (template,) = operator.box.clerk.templates.values()
    assert (created.code, template["name"], template["claims"]["aud"]) == (0, "convex", "convex")
    assert template["claims"]["plan"] == "{{user.public_metadata.plan}}"
    assert "There is no JWT template convex" in created.out
    operator.box.clerk.requests.clear()
    again = await operator.run("claims", "install", "--template", "convex")
    assert (again.code, again.out.strip()) == (0, "JWT template convex is up to date.")
    assert operator.box.clerk.requests.count("POST") + operator.box.clerk.requests.count("PATCH") == 0


async def test_a_template_is_repaired_and_keeps_its_other_claims_and_its_lifetime(operator: Operator) -> None:
    await operator.run("claims", "install", "--template", "api", "--recipe", "plain", "--yes")
    (template,) = operator.box.clerk.templates.values()
    template["claims"] = {"plan": "{{organization.public_metadata.plan}}", "mine": 1}
    template["lifetime"] = 600
    repaired = await operator.run("claims", "install", "--template", "api", "--yes", "--json")
    report = json.loads(repaired.out)
    assert (report["action"], report["applied"], report["id"]) == ("change", True, template["id"])
    assert report["differences"][0] == {
        "claim": "plan",
        "current": "{{organization.public_metadata.plan}}",
        "expected": "{{user.public_metadata.plan}}",
    }
    assert (template["claims"]["plan"], template["claims"]["mine"], template["lifetime"]) == (
        "{{user.public_metadata.plan}}",
        1,
        600,
    )


async def test_a_dry_run_shows_the_difference_and_changes_nothing(operator: Operator) -> None:
    shown = await operator.run("claims", "install", "--template", "hasura", "--dry-run", "--json")
    assert (shown.code, operator.box.clerk.templates) == (2, {})
    assert "https://hasura.io/jwt/claims.x-hasura-user-id" in [d["claim"] for d in json.loads(shown.out)["differences"]]


async def test_without_a_terminal_nothing_is_changed_unconfirmed(operator: Operator) -> None:
    refused = await operator.run("claims", "install", "--template", "convex")
    assert (refused.code, "--yes" in refused.err, operator.box.clerk.templates) == (1, True, {})


async def test_the_session_token_is_printed_to_be_entered(operator: Operator) -> None:
    printed = await operator.run("claims", "install", METADATA_NAMESPACE="access")
    assert printed.code == 0
    assert '"plan": "{{user.public_metadata.access.plan}}"' in printed.out
    assert 'clerk config patch --json \'{"session":{"claims":{"plan":' in printed.out
    assert operator.box.clerk.requests.count() == 0

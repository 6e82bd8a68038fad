"""Each thing that can be wrong with claims, planted and named."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from sync_worker.clerk.claims import Finding, Person, Rendering, Template, compare, default_template, examine
from sync_worker.domain.entitlements import CORE_FIELDS, Field, Layout, MergeRule, Observed, Placement
from sync_worker.domain.subjects import Kind, Subject
from tests.kits import DEPLOY

if TYPE_CHECKING:
    from collections.abc import Mapping

LAYOUT = Layout(CORE_FIELDS, claims_budget=200, source="p/d")
HELD = {"plan": "pro", "courseSlugs": ["algebra", "geometry"]}


def person(public: Mapping[str, Any] = HELD, private: Mapping[str, Any] | None = None) -> Person:
    observed = Observed(Subject(Kind.USER, "user_1"), public, private or {})
    return Person({"user": {"id": "user_1", "public_metadata": dict(public)}}, {"user": observed})


def found(claims: Mapping[str, Any], someone: Person | None = None, layout: Layout = LAYOUT) -> Rendering:
    return examine(Template(claims), someone or person(), layout)


def only(rendering: Rendering) -> Finding:
    (finding,) = rendering.findings
    return finding


def test_the_default_claims_are_those_of_the_kit() -> None:
    assert default_template(LAYOUT).claims == json.loads((DEPLOY / "clerk" / "session-token.json").read_text())


def test_the_default_claims_follow_the_namespace_and_leave_out_private_keys() -> None:
    fields = (Field("plan", MergeRule.HIGHEST), Field("seats", MergeRule.LATEST, Placement.PRIVATE))
    claims = default_template(Layout(fields, namespace="access")).claims
    assert claims == {"plan": "{{user.public_metadata.access.plan}}"}


def test_right_claims_have_no_finding_and_count_their_bytes() -> None:
    rendering = found(default_template(LAYOUT).claims)
    assert rendering.claims == {"plan": "pro", "role": None, "courseSlugs": ["algebra", "geometry"]}
    assert rendering.size == len('{"plan":"pro","role":null,"courseSlugs":["algebra","geometry"]}')
    assert (rendering.budget, rendering.findings) == (200, ())


def test_a_shortcode_that_clerk_leaves_unresolved_is_named_with_the_right_one() -> None:
    rendering = found({"plan": "{{organization.public_metadata.plan}}"})
    assert rendering.claims == {"plan": "{{organization.public_metadata.plan}}"}
    assert only(rendering).fix == "Write {{org.public_metadata.plan}}."
    nested = only(found({"https://hasura.io/jwt/claims": {"x-plan": "is {{plan}}"}}))
    assert (nested.claim, "stays in the token as text" in nested.problem) == (
        "https://hasura.io/jwt/claims.x-plan",
        True,
    )


def test_braces_that_are_not_closed_are_named() -> None:
    assert "no shortcode" in only(found({"plan": "{{user.public_metadata.plan}"})).problem


@pytest.mark.parametrize(
    ("claim", "shortcode"),
    [
        ("plan", "{{user.public_metadata.tier}}"),
        ("courses", "{{user.public_metadata.course_slugs}}"),
        ("plan", "{{user.public_metadata.access.plan || 'free'}}"),
    ],
)
def test_a_claim_that_misses_a_key_which_the_person_has_is_named(claim: str, shortcode: str) -> None:
    finding = only(found({claim: shortcode}))
    assert (finding.claim, "finds nothing, but the user has" in finding.problem) == (claim, True)
    assert finding.fix.startswith("Write {{user.public_metadata.")


def test_a_claim_that_misses_the_namespace_is_shown_the_whole_path() -> None:
    layout = Layout(CORE_FIELDS, namespace="access", source="p/d")
    someone = person({"access": {"plan": "pro"}})
    finding = only(found({"plan": "{{user.public_metadata.plan}}"}, someone, layout))
    assert finding.fix == "Write {{user.public_metadata.access.plan}}."


def test_a_claim_of_a_key_that_is_stored_privately_is_named() -> None:
    layout = Layout((Field("plan", MergeRule.HIGHEST, Placement.PRIVATE),), source="p/d")
    finding = only(found({"plan": "{{user.public_metadata.plan}}"}, person({}, {"plan": "pro"}), layout))
    assert "PRIVATE_FIELDS" in finding.fix


def test_null_is_fine_for_what_the_person_does_not_have() -> None:
    assert found({"plan": "{{user.public_metadata.plan}}"}, person({})).findings == ()
    assert found({"x": "{{user.public_metadata.theme}}"}).findings == ()


def test_private_metadata_in_a_claim_is_named() -> None:
    assert "which no token shows" in only(found({"x": "{{user.private_metadata.stripe}}"})).problem


@pytest.mark.parametrize("name", ["sub", "sid", "pla", "o"])
def test_a_name_that_clerk_uses_itself_is_named_and_not_rendered(name: str) -> None:
    rendering = found({name: "x", "plan": "{{user.public_metadata.plan}}"})
    assert only(rendering).claim == name
    assert rendering.claims == {"plan": "pro"}


def test_claims_over_the_budget_are_named_by_the_largest() -> None:
    someone = person({"plan": "pro", "courseSlugs": [f"course-{n:02}" for n in range(20)]})
    finding = only(found(default_template(LAYOUT).claims, someone))
    assert finding.claim == "courseSlugs"
    assert "the budget is 200" in finding.problem


def test_a_jwt_template_has_no_budget_because_no_cookie_holds_its_token() -> None:
    rendering = examine(Template({"text": "x" * 5000}, "convex"), person(), LAYOUT)
    assert (rendering.budget, rendering.findings) == (None, ())


def test_claims_of_the_organization_are_null_without_an_active_one() -> None:
    rendering = found({"orgPlan": "{{org.public_metadata.plan}}"})
    assert (rendering.claims, rendering.findings) == ({"orgPlan": None}, ())


def test_a_real_token_with_the_same_claims_proves_them() -> None:
    template = Template({"plan": "{{user.public_metadata.plan}}"})
    signed = {"plan": "pro", "sub": "user_1", "sid": "sess_1", "v": 2, "iat": 1}
    proof = compare(examine(template, person(), LAYOUT), signed, template)
    assert (proof.verified, proof.differs, proof.findings) == (True, (), ())


@pytest.mark.parametrize(
    ("signed", "differs"),
    [({"plan": "free"}, "plan"), ({}, "plan"), ({"plan": "pro", "extra": 1}, "extra"), ({"plan": True}, "plan")],
)
def test_a_real_token_with_other_claims_is_a_finding(signed: dict[str, Any], differs: str) -> None:
    template = Template({"plan": "{{user.public_metadata.plan}}"})
    proof = compare(examine(template, person(), LAYOUT), signed, template)
    assert proof.differs == (differs,)
    assert [finding.claim for finding in proof.findings] == [differs]


def test_a_token_that_cannot_be_verified_proves_nothing() -> None:
    template = Template({"plan": "{{user.public_metadata.plan}}"})
    proof = compare(examine(template, person(), LAYOUT), None, template)
    assert (proof.verified, proof.claims, len(proof.findings)) == (False, None, 1)

"""The recipes hold what each service requires, and repairing a template keeps the claims that others added."""

from __future__ import annotations

import pytest

from sync_worker.clerk.claims import Person, Template, examine
from sync_worker.clerk.recipes import HASURA, ClaimDifference, Recipe, differences, merged, recipe_claims
from sync_worker.domain.entitlements import CORE_FIELDS, Layout, Observed
from sync_worker.domain.subjects import Kind, Subject

LAYOUT = Layout(CORE_FIELDS, source="p/d")
HELD = {"plan": "pro", "role": "student", "courseSlugs": ["algebra"]}
USER = {"id": "user_1", "full_name": "Ada", "primary_email_address": "ada@example.com", "public_metadata": HELD}
ADA = Person({"user": USER}, {"user": Observed(Subject(Kind.USER, "user_1"), HELD)})


@pytest.mark.parametrize("recipe", Recipe)
@pytest.mark.parametrize("namespace", [None, "access"])
def test_no_recipe_has_a_finding(recipe: Recipe, namespace: str | None) -> None:
    layout = Layout(CORE_FIELDS, namespace=namespace, source="p/d")
    public = {namespace: HELD} if namespace else HELD
    user = {**USER, "public_metadata": public}
    someone = Person({"user": user}, {"user": Observed(Subject(Kind.USER, "user_1"), public)})
    assert examine(Template(recipe_claims(recipe, layout), recipe), someone, layout).findings == ()


def test_convex_gets_its_audience() -> None:
    claims = examine(Template(recipe_claims(Recipe.CONVEX, LAYOUT), "convex"), ADA, LAYOUT).claims
    assert claims == {"aud": "convex", "name": "Ada", "email": "ada@example.com", **HELD}


def test_supabase_gets_the_role_of_postgres_and_ours_beside_it() -> None:
    claims = examine(Template(recipe_claims(Recipe.SUPABASE, LAYOUT), "supabase"), ADA, LAYOUT).claims
    assert claims == {"role": "authenticated", "app_metadata": HELD}


@pytest.mark.parametrize(("public", "plan"), [(HELD, "pro"), ({}, "none")])
def test_hasura_gets_only_texts_in_its_namespace(public: dict[str, object], plan: str) -> None:
    someone = Person({"user": {**USER, "public_metadata": public}})
    claims = examine(Template(recipe_claims(Recipe.HASURA, LAYOUT), "hasura"), someone, LAYOUT).claims[HASURA]
    assert claims.pop("x-hasura-allowed-roles") == ["user"]
    assert claims == {"x-hasura-default-role": "user", "x-hasura-user-id": "user_1", "x-hasura-plan": plan}


def test_a_template_of_another_name_is_plain() -> None:
    assert (Recipe.named("convex"), Recipe.named("my-service")) == (Recipe.CONVEX, Recipe.PLAIN)


def test_repairing_keeps_the_claims_that_the_recipe_does_not_name() -> None:
    current = {"aud": "x", "mine": 1, "nested": {"a": 1, "b": 2}}
    wanted = {"aud": "convex", "nested": {"b": 3}}
    assert merged(current, wanted) == {"aud": "convex", "mine": 1, "nested": {"a": 1, "b": 3}}
    assert differences(current, wanted) == (ClaimDifference("aud", "x", "convex"), ClaimDifference("nested.b", 2, 3))
    assert differences(merged(current, wanted), wanted) == ()

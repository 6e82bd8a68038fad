"""The problems that are reported for a projection, with rows as real GROQ returns them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from sync_worker.domain.entitlements import CORE_FIELDS, Field, MergeRule
from sync_worker.sanity.client import Queries
from sync_worker.sanity.row_checks import empty_fields, empty_warning, field_names, refused_warnings, shape_problems
from sync_worker.settings import packaged_groq
from tests.builders import reference

if TYPE_CHECKING:
    from sync_worker.sandbox.server import Sandbox

pytestmark = pytest.mark.anyio
FEATURES = Field("features", MergeRule.UNION)
SLUG = "plan->slug.current"
COURSES = "courses[]->slug.current"


@pytest.fixture
async def dataset(box: Sandbox) -> Sandbox:
    """A plan, a course, and three entitlements, one of them with nothing but its user."""
    slug = {"_type": "slug", "current": "algebra"}
    full = {"plan": reference("plan-1"), "role": "member", "courses": [reference("course-1")], "status": "active"}
    await box.lake.mutate(
        [
            {"create": {"_id": "plan-1", "_type": "plan", "slug": {"_type": "slug", "current": "pro"}}},
            {"create": {"_id": "course-1", "_type": "course", "slug": slug}},
            {"create": {"_id": "ent-1", "_type": "entitlement", "clerkUserId": "user_1", **full}},
            {"create": {"_id": "ent-2", "_type": "entitlement", "clerkUserId": "user_2", **full}},
            {"create": {"_id": "ent-3", "_type": "entitlement", "clerkUserId": "user_3"}},
        ]
    )
    return box


async def problems(box: Sandbox, old: str = "", new: str = "", *more: Field) -> tuple[str, ...]:
    """Return the problems of our own projection after `old` is replaced by `new` in it."""
    query = Queries.load(packaged_groq()).everything
    assert old in query
    result = await box.lake.query(query.replace(old, new) if old else query, {"after": ""})
    assert len(result["entitlements"]) == 3
    return shape_problems(result["entitlements"], (*CORE_FIELDS, *more))


async def test_our_own_projection_has_no_problems(dataset: Sandbox) -> None:
    assert await problems(dataset) == ()


@pytest.mark.parametrize("name", ["endsAt", "status", "role", "clerkOrganizationId"])
async def test_a_misspelt_field_is_missing(dataset: Sandbox, name: str) -> None:
    (problem,) = await problems(dataset, f"  {name}", f'  "{name}s": {name}')
    assert problem == f'"{name}" is missing; add "{name}": null if your model has no such field'


@pytest.mark.parametrize("name", ["_rev", "_updatedAt"])
async def test_the_fields_of_every_document_must_be_returned(dataset: Sandbox, name: str) -> None:
    assert await problems(dataset, f"  {name},", "") == (f'"{name}" is missing',)
    assert await problems(dataset, f"  {name},", f'  "{name}": null,') == (f'"{name}" is missing',)


async def test_an_extra_field_must_be_returned_too(dataset: Sandbox) -> None:
    (problem,) = await problems(dataset, "", "", FEATURES)
    assert problem.startswith('"features" is missing')
    assert await problems(dataset, "  status", '  "features": tags,\n  status', FEATURES) == ()


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            f"select(defined(plan._ref) => {SLUG}, plan)",
            "plan",
            '"plan" is an object, but must be a single value; follow the reference with ->',
        ),
        (
            f"select(defined(plan._ref) => {SLUG}, plan)",
            "plan->slug",
            '"plan" is an object, but must be a single value; append .current to the slug',
        ),
        (
            f"coalesce({COURSES}, [])",
            "coalesce(courses, [])",
            '"courseSlugs" is a list with an object in it, but must be a list of strings; follow the reference with ->',
        ),
        ("  role", '  "role": [role]', '"role" is a list with a string in it, but must be a single value'),
        ("  status", '  "status": defined(status)', '"status" is a boolean, but must be a string'),
    ],
)
async def test_a_wrong_type_is_reported_with_the_usual_fix(dataset: Sandbox, old: str, new: str, problem: str) -> None:
    assert await problems(dataset, old, new) == (problem,)


async def test_rows_without_any_subject_are_reported(dataset: Sandbox) -> None:
    (problem,) = await problems(dataset, "  clerkUserId,", '  "clerkUserId": user,')
    assert problem.startswith("no row names a subject: clerkUserId")


async def test_one_invalid_document_is_not_a_problem_of_the_projection(dataset: Sandbox) -> None:
    await dataset.lake.mutate([{"patch": {"id": "ent-2", "set": {"role": {"name": "member"}, "clerkUserId": 7}}}])
    assert await problems(dataset) == ()


async def test_an_invalid_value_of_a_field_that_only_one_document_has_is_not_either(dataset: Sandbox) -> None:
    await dataset.lake.mutate([{"patch": {"id": "ent-3", "set": {"startsAt": 7}}}])
    assert await problems(dataset) == ()


def test_a_single_row_is_enough_to_report_a_wrong_type() -> None:
    assert shape_problems([row(plan={"_ref": "plan-1"})], CORE_FIELDS) == (
        '"plan" is an object, but must be a single value; follow the reference with ->',
    )


def test_one_document_without_a_subject_is_not_a_problem_of_the_projection() -> None:
    without_subject = row(clerkUserId=None)
    assert shape_problems([without_subject], CORE_FIELDS) == ()
    assert len(shape_problems([without_subject, without_subject], CORE_FIELDS)) == 1


def test_without_rows_there_are_no_problems() -> None:
    assert shape_problems([], CORE_FIELDS) == ()


def row(**fields: Any) -> dict[str, Any]:
    strings = dict.fromkeys(["clerkOrganizationId", "userEmail", "userExternalId", "startsAt", "endsAt", "status"])
    core = {"plan": "pro", "role": None, "courseSlugs": ["a", None]}
    return {
        "_id": "e",
        "_rev": "r",
        "_updatedAt": "2026-05-01T12:00:00Z",
        "clerkUserId": "user_1",
        **strings,
        **core,
        **fields,
    }


def test_nulls_among_the_courses_are_not_a_problem() -> None:
    assert shape_problems([row()], CORE_FIELDS) == ()


def test_a_count_of_unresolved_references_must_be_a_number_if_there_is_one() -> None:
    assert shape_problems([row(unresolved=None)], CORE_FIELDS) == ()
    assert shape_problems([row(unresolved="2")], CORE_FIELDS) == (
        '"unresolved" is a string, but must be a whole number',
    )


def many(**fields: Any) -> list[dict[str, Any]]:
    full = {"role": "member", "startsAt": "2026-01-01", "endsAt": "2027-01-01", "status": "active"}
    return [row(**{**full, **fields}) for _ in range(3)]


def warning_of(rows: list[dict[str, Any]], query: str = "{role}") -> str:
    return empty_warning(empty_fields(rows, field_names(CORE_FIELDS)), len(rows), query)


@pytest.mark.parametrize("name", ["plan", "role", "courseSlugs", "endsAt", "status"])
def test_a_field_that_is_empty_in_every_row_is_suspicious_unless_it_is_meant(name: str) -> None:
    rows = many(**{name: [] if name == "courseSlugs" else None})
    meant = f'"{name}": null'
    assert warning_of(rows) == f'"{name}" is empty in all 3 rows; write {meant} if your model has no such field'
    assert warning_of(rows, f"{{ {meant} }}") == ""
    assert warning_of([*rows, *many()]) == ""


def test_a_list_of_nulls_is_empty_as_that_of_a_slug_with_another_path() -> None:
    assert warning_of(many(courseSlugs=[None, None])).startswith('"courseSlugs" is empty in all 3 rows')


def test_fields_that_are_empty_in_every_row_are_reported_together() -> None:
    assert warning_of(many(plan=None, startsAt=None)) == (
        '"plan", "startsAt" are empty in all 3 rows; write "plan": null if your model has no such field'
    )


def test_a_single_row_is_not_suspicious() -> None:
    assert warning_of([row(plan=None)]) == ""


def test_values_that_are_on_no_list_are_counted_and_the_list_is_named() -> None:
    ordered = (Field("plan", MergeRule.HIGHEST, order=("basic", "pro")), *CORE_FIELDS[1:])
    ((text, fix),) = refused_warnings([*many(), *many(plan="gold"), row(plan="Pro")], ordered)
    assert text == "\"plan\" is 'gold' (3 of 7 rows), 'Pro' (1 of 7 rows), which is not one of PLAN_ORDER=basic,pro"
    assert fix == "Add it to PLAN_ORDER or correct the documents. Until then they grant nothing."
    assert refused_warnings(many(), ordered) == ()


def test_rows_that_are_refused_are_counted_and_the_first_is_named() -> None:
    ((text, _),) = refused_warnings([*many(), *many(endsAt="2027")], CORE_FIELDS)
    assert text.startswith("3 of 6 rows are refused; the first is e: endsAt: is not a date and time"), text

"""References that lead nowhere, with rows as real GROQ returns them: what is usable counts, the rest is reported."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from sync_worker.domain.entitlements import CORE_FIELDS, Entitlement
from sync_worker.sanity.client import Queries
from sync_worker.sanity.rows import read_row
from sync_worker.settings import packaged_groq
from tests.builders import created, reference, weak

if TYPE_CHECKING:
    from sync_worker.sandbox.server import Sandbox

pytestmark = pytest.mark.anyio
COURSES = "courses[]->slug.current"
FOUND, NOWHERE = reference("course-1"), weak("course-9")


def document(id_: str, type_: str, **fields: Any) -> dict[str, Any]:
    return {"create": {"_id": id_, "_type": type_, **fields}}


def slug(current: object) -> dict[str, Any]:
    return {"_type": "slug", "current": current}


@pytest.fixture
async def content(box: Sandbox) -> Sandbox:
    """A course, drafts, and documents whose slug is missing, localized or of another shape."""
    await box.lake.mutate(
        [
            document("course-1", "course", slug=slug("algebra")),
            document("drafts.course-2", "course", slug=slug("biology")),
            document("course-3", "course"),
            document("course-4", "course", slug={"en": slug("chemistry"), "de": slug("chemie")}),
            document("course-5", "course", slug=slug({"en": "drawing"})),
            document("course-6", "course", slug=[{"_key": "en", "value": slug("english")}]),
            document("plan-1", "plan", slug=slug("pro"), courses=[FOUND, NOWHERE]),
            document("plan-2", "plan"),
            document("cohort-1", "cohort", courses=[FOUND, NOWHERE]),
            document("cohort-2", "cohort"),
        ]
    )
    return box


async def read(content: Sandbox, edits: dict[str, str] | None = None, **fields: Any) -> Entitlement:
    await content.lake.mutate([created("ent-1", "user_1", **fields)])
    query = Queries.load(packaged_groq()).everything
    for old, new in (edits or {}).items():
        assert old in query
        query = query.replace(old, new)
    page = await content.lake.query(query, {"after": ""})
    _, result = read_row(page["entitlements"][0], CORE_FIELDS)
    assert isinstance(result, Entitlement), result
    return result


async def test_references_that_lead_to_a_slug_leave_nothing_to_tell(content: Sandbox) -> None:
    found = await read(content, plan="pro", courses=[FOUND], cohorts=[reference("cohort-2")])
    assert (found.values, found.unresolved) == ({"plan": "pro", "courseSlugs": ("algebra",)}, None)


@pytest.mark.parametrize(
    "lost",
    [
        NOWHERE,
        weak("course-2"),
        reference("course-3"),
        reference("course-4"),
        reference("course-5"),
        {**weak("course-9"), "_type": "crossDatasetReference", "_dataset": "catalogue", "_projectId": "p"},
        {"_type": "item", "_key": "x", "course": reference("course-1")},
        "algebra",
    ],
    ids=[
        "dangling",
        "draft only",
        "no slug",
        "localized",
        "localized within",
        "another dataset",
        "nested",
        "no reference",
    ],
)
async def test_a_course_that_leads_nowhere_is_counted_and_the_rest_is_granted(content: Sandbox, lost: Any) -> None:
    found = await read(content, plan="pro", courses=[FOUND, lost])
    assert found.values == {"plan": "pro", "courseSlugs": ("algebra",)}
    assert found.unresolved is not None
    assert (found.unresolved.document, found.unresolved.number) == ("ent-1", 1)


async def test_cohorts_and_plans_that_lead_nowhere_are_counted(content: Sandbox) -> None:
    cohorts = [reference("cohort-1"), reference("cohort-2"), weak("cohort-9")]
    found = await read(content, plan=reference("plan-2"), cohorts=cohorts)
    assert found.values == {"courseSlugs": ("algebra",)}
    assert found.unresolved is not None
    assert found.unresolved.number == 3  # a course of cohort-1, cohort-9, and the plan without a slug


async def test_courses_of_the_plan_that_lead_nowhere_are_counted(content: Sandbox) -> None:
    found = await read(content, plan=reference("plan-1"))
    assert found.values == {"plan": "pro", "courseSlugs": ("algebra",)}
    assert found.unresolved is not None
    assert found.unresolved.number == 1


@pytest.mark.parametrize(
    ("course", "expression"),
    [
        (reference("course-4"), "courses[]->slug.en.current"),
        (reference("course-5"), "courses[]->slug.current.en"),
        (reference("course-6"), 'courses[]->slug[_key == "en"][0].value.current'),
        ({"_type": "item", "_key": "x", "course": reference("course-1")}, "courses[].course->slug.current"),
    ],
    ids=["localized", "localized within", "internationalized array", "nested"],
)
async def test_the_mapping_can_follow_other_shapes(content: Sandbox, course: Any, expression: str) -> None:
    counted = "courses[], [])[defined(@) && !defined(@->slug.current)])"
    edits = {f"coalesce({COURSES}, [])\n": f"coalesce({expression}, [])\n"}
    tail = expression.removeprefix("courses[]").removeprefix("->").removeprefix(".")
    edits |= {counted: f"courses[], [])[defined(@) && !defined({'@->' if '->' not in tail else '@.'}{tail})])"}
    found = await read(content, edits, courses=[course])
    assert len(found.values["courseSlugs"]) == 1  # type: ignore[arg-type]  # a tuple
    assert found.unresolved is None


async def test_a_query_of_ones_own_need_not_count(content: Sandbox) -> None:
    query = (packaged_groq() / "entitlement.groq").read_text()
    counting = query[query.index('  "unresolved"') : query.index("  startsAt")]
    for replacement in ("", '"unresolved": null,'):
        found = await read(content, {counting: replacement}, courses=[FOUND, NOWHERE])
        assert (found.values, found.unresolved) == ({"courseSlugs": ("algebra",)}, None)
        await content.lake.mutate([{"delete": {"id": "ent-1"}}])

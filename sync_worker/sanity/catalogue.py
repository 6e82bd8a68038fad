"""Looks up published courses and plans by slug, for the import."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sync_worker.errors import UnreadableAnswer

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from sync_worker.sanity.client import Sanity

SLUGS_PER_CALL = 1000


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan document: its id, and the slugs of its courses."""

    id: str
    courses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The published courses, by id, and plans, both by slug. Several documents may have one slug by mistake."""

    courses: Mapping[str, Sequence[str]] = field(default_factory=dict)
    plans: Mapping[str, Sequence[Plan]] = field(default_factory=dict)


class _Course(BaseModel):
    model_config = ConfigDict(strict=True)
    id: str = Field(alias="_id")
    slug: str


class _Plan(_Course):
    courseSlugs: list[str]  # noqa: N815 - the name is that of the query


class _Result(BaseModel):
    model_config = ConfigDict(strict=True)
    courses: list[_Course]
    plans: list[_Plan]


async def read_catalogue(source: Sanity, query: str, courses: Collection[str], plans: Collection[str]) -> Catalogue:
    """Read the courses and plans with these slugs, a thousand slugs per query. Raises UnreadableAnswer."""
    found_courses: dict[str, list[str]] = {}
    found_plans: dict[str, list[Plan]] = {}
    slugs = [*(("courses", slug) for slug in sorted(courses)), *(("plans", slug) for slug in sorted(plans))]
    for start in range(0, len(slugs), SLUGS_PER_CALL):
        batch = slugs[start : start + SLUGS_PER_CALL]
        parameters = {kind: [slug for of, slug in batch if of == kind] for kind in ("courses", "plans")}
        result = _parsed(await source.lookup(query, parameters))
        for course in result.courses:
            found_courses.setdefault(course.slug, []).append(course.id)
        for plan in result.plans:
            found_plans.setdefault(plan.slug, []).append(Plan(plan.id, tuple(plan.courseSlugs)))
    return Catalogue(found_courses, found_plans)


def _parsed(result: Mapping[str, Any]) -> _Result:
    try:
        return _Result.model_validate(result)
    except ValidationError:
        raise UnreadableAnswer("import.groq did not return courses and plans with their ids and slugs") from None

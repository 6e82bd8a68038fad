"""The filter for agents lets a person's own courses through, evaluated by real GROQ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from sync_worker.sandbox import sample
from tests.kits import DEPLOY
from tests.node import Thrown, evaluate

if TYPE_CHECKING:
    from sync_worker.sandbox.server import Sandbox

pytestmark = pytest.mark.anyio
MODULE = (DEPLOY / "context" / "groqFilter.ts").as_uri()


async def filter_of(claims: Any) -> str:
    text = await evaluate(f"return (await import('{MODULE}')).groqFilter(given)", claims)
    assert isinstance(text, str)
    return text


async def seen(box: Sandbox, claims: Any) -> set[str]:
    await sample.load_sample(box)
    found = await box.lake.query(f"*[{await filter_of(claims)}]._id", {}, perspective="published")
    return set(found)


async def test_an_agent_sees_the_persons_courses_and_no_entitlement(box: Sandbox) -> None:
    assert await seen(box, {"courseSlugs": ["algebra", "drawing"]}) == {"course-algebra", "course-drawing"}


@pytest.mark.parametrize("claims", [None, {}, {"courseSlugs": None}, {"courseSlugs": []}, {"courseSlugs": "algebra"}])
async def test_without_courses_an_agent_sees_nothing(box: Sandbox, claims: Any) -> None:
    assert await seen(box, claims) == set()


@pytest.mark.parametrize("slug", ['x"] || true || "" in ["', 'x\\"] || true || "" in ["', "x\n] || true"])
async def test_a_slug_cannot_widen_the_filter(box: Sandbox, slug: str) -> None:
    assert await seen(box, {"courseSlugs": [slug]}) == set()


async def test_a_filter_that_sanity_would_refuse_is_an_error() -> None:
    with pytest.raises(Thrown, match="Too many courses"):
        await filter_of({"courseSlugs": [f"course-{n}" for n in range(2000)]})

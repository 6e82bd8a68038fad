from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sync_worker.sandbox.groq import Groq, GroqError
from tests.sizes import examples

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

NOW = "2026-01-01T00:00:00Z"


def _entitlement(number: int) -> dict[str, Any]:
    return {
        "_id": f"{'drafts.' if number % 7 == 0 else ''}e{number:03}",
        "_type": "entitlement",
        "_rev": f"r{number}",
        "clerkUserId": f"user_{number % 9}",
        "userEmail": f"Person{number % 5}@Example.com" if number % 2 else None,
        "rank": number % 4,
        "plan": {"_ref": f"p{number % 3}"} if number % 3 else "free",
        "courses": [{"_key": str(k), "_ref": f"c{(number + k) % 6}"} for k in range(number % 4)],
        "tags": ["a", number % 3, None] if number % 5 else None,
    }


DOCUMENTS = [
    *(_entitlement(number) for number in range(60)),
    *({"_id": f"c{n}", "_type": "course", "_rev": "r", "slug": {"current": f"course-{n}"}} for n in range(5)),
    *({"_id": f"p{n}", "_type": "plan", "_rev": "r", "courses": [{"_ref": f"c{n}"}]} for n in range(3)),
    {"_id": "versions.release.e001", "_type": "entitlement", "_rev": "r", "clerkUserId": "user_1"},
]
PARAMS = {"ids": ["e001", "e002", "nobody"], "id": "c1", "user": "user_3", "users": ["user_1", "user_2"], "last": "e02"}


@pytest.fixture(scope="module")
async def shared_groq() -> AsyncIterator[Groq]:
    async with Groq("project", "production") as evaluator:
        yield evaluator


@pytest.fixture
async def groq(shared_groq: Groq) -> Groq:
    """An evaluator with the documents above, and no others."""
    await shared_groq.clear()
    await shared_groq.apply(DOCUMENTS)
    return shared_groq


async def answer(groq: Groq, query: str, perspective: str = "published", **params: Any) -> Any:
    return json.loads(await groq.query(query, params, perspective, NOW))


async def both(groq: Groq, query: str, perspective: str) -> tuple[Any, Any]:
    params = PARAMS | {"n": 3}
    fast = await groq.query(query, params, perspective, NOW)
    plain = await groq.query(query, params, perspective, NOW, is_plain=True)
    return json.loads(fast), json.loads(plain)


@pytest.mark.anyio
@pytest.mark.parametrize("perspective", ["published", "raw", "release,drafts"])
@pytest.mark.parametrize(
    "query",
    [
        "*",
        "*[]._id",
        '*[_type == "entitlement"]{_id}',
        'count(*[_type == "entitlement" && !(_id in path("drafts.**"))])',
        "*[_id in $ids]{_id, _rev}",
        "*[_id == $ids[0]][0]",
        '*[_type == "entitlement" && clerkUserId in $users && _id > $last]._id',
        '*[_type == "entitlement"][rank > 1][clerkUserId == $user]{_id, rank}',
        '*[_type == "entitlement" && (clerkUserId == $user || lower(userEmail) in ["person1@example.com"])]._id',
        "*[references($id)]._id",
        '*[_type == "plan" && references(["c0", "c2"])]{_id, "n": count(*[references(^._id)])}',
        "*[$id in courses[]._ref]{_id, courses}",
        '*[plan._ref == "p1" || plan == "free"]{_id, "plan": select(plan == "free" => plan, plan->_id)}',
        '*[_type == "entitlement"] | order(_id) [0...$n]{_id, "c": courses[]->slug.current}',
        '*[_type == "entitlement" && _id > $last] | order(_id asc) [1..$n]._id',
        '*[_type == "entitlement"] | order(rank desc, _id) [0...5]._id',
        '*[_type == "entitlement"] | order(_id desc) [0...2]._id',
        '*[_type == "entitlement"] | order(_id) [-2..-1]._id',
        '*[_type == "course"] | order(_id) {"id": _id, "holders": *[references(^._id)] | order(_id)[0...2]._id}',
        '{"a": *[_id in $ids]{_id}, "visible": count(*[_type == "entitlement"]), "p": *[_type == "plan"][0]->slug}',
        '*[_type == "course" && slug.current match "course-*"]._id',
        '*[rank in [1, 2] && defined(tags)]{_id, tags, "first": tags[0]}',
        '*["a" in tags && 2 in tags]._id',
        "*[tags == null && rank != 2]._id",
        "*[_id >= $last && _id < 'e03']._id",
        "*[rank in 1..2]._id",
        "*[clerkUserId in [null, $user]]._id",
        "*[select(rank == 1 => true, false) == references($id)]._id",
        "*[references($id) == defined(rank)]._id",
        "*[defined(rank) in [references($id)]]._id",
        'array::unique(*[_type == "entitlement"].clerkUserId)',
        'fn x::slug($d) = $d{"s": slug.current}; *[_type == "course"]{"v": x::slug(@)}',
        "*[_type == $missing.field]._id",
    ],
)
async def test_a_rewritten_query_answers_what_the_plain_one_does(groq: Groq, query: str, perspective: str) -> None:
    if "$missing" in query:
        query = query.replace("$missing.field", "$ids[9]")
    fast, plain = await both(groq, query, perspective)
    assert fast == plain


ATOMS = st.sampled_from(
    [
        '_type == "entitlement"',
        '_type == "course"',
        "_id in $ids",
        "_id > $last",
        '"e04" <= _id',
        "clerkUserId in $users",
        "clerkUserId == $user",
        "$user == clerkUserId",
        "rank == $n",
        "rank > 1",
        "references($id)",
        "$id in courses[]._ref",
        "defined(courses[0])",
        "count(courses) > 1",
        'plan->_type == "plan"',
        '_id in path("drafts.**")',
        "coalesce(userEmail, clerkUserId) == $user",
        "courses[]->slug.current match '*1'",
        "true",
        "null",
    ]
)
FILTERS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda two: f"({two[0]} && {two[1]})"),
        st.tuples(inner, inner).map(lambda two: f"({two[0]} || {two[1]})"),
        inner.map(lambda one: f"!({one})"),
    ),
    max_leaves=6,
)
SHAPES = st.sampled_from(
    [
        "*[%s]._id",
        "count(*[%s])",
        "*[%s] | order(_id) [0...4]{_id, rank}",
        "*[%s] | order(_id) [2..$n]._id",
        "*[%s][0]._id",
        '{"x": *[%s] | order(_id asc)[0...$n]._id}',
        '*[_type == "plan"]{"x": *[%s && references(^._id)] | order(_id)[0...2]._id}',
    ]
)


@pytest.mark.anyio
@given(filter_=FILTERS, shape=SHAPES, perspective=st.sampled_from(["published", "raw", "drafts"]))
@settings(
    max_examples=examples(150),
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
async def test_any_rewritten_filter_answers_what_the_plain_one_does(
    groq: Groq, filter_: str, shape: str, perspective: str
) -> None:
    fast, plain = await both(groq, shape % filter_, perspective)
    assert fast == plain


@pytest.mark.anyio
async def test_indexes_follow_every_change(groq: Groq) -> None:
    by_user = "*[clerkUserId == $user]._id"
    before = await answer(groq, by_user, user="user_3")
    await groq.apply([{"_id": "e999", "_type": "entitlement", "clerkUserId": "user_3"}], [])
    assert await answer(groq, by_user, user="user_3") == [*before, "e999"]
    await groq.apply([{"_id": "e999", "_type": "entitlement", "clerkUserId": "user_4"}], [before[0]])
    assert await answer(groq, by_user, user="user_3") == before[1:]
    assert "e999" in await answer(groq, by_user, user="user_4")


@pytest.mark.anyio
async def test_a_large_change_reaches_views_that_are_in_use(groq: Groq) -> None:
    assert await answer(groq, 'count(*[_type == "bulk"])') == 0
    await groq.apply([{"_id": f"bulk-{n:05}", "_type": "bulk"} for n in range(6_000)])
    assert await answer(groq, 'count(*[_type == "bulk"])') == 6_000
    assert await answer(groq, '*[_type == "bulk"] | order(_id)[5999...6001]._id') == ["bulk-05999"]


@pytest.mark.anyio
async def test_published_shows_no_drafts_and_no_versions(groq: Groq) -> None:
    shown = await answer(groq, '*[_type == "entitlement"]._id')
    assert shown
    assert not [id_ for id_ in shown if id_.startswith(("drafts.", "versions."))]


@pytest.mark.anyio
async def test_a_reference_to_a_draft_is_dangling_when_published(groq: Groq) -> None:
    draft = {"_id": "drafts.c9", "_type": "course", "slug": {"current": "nine"}}
    await groq.apply([draft, {"_id": "x", "_type": "t", "courses": [{"_ref": "c9"}, {"_ref": "c1"}]}])
    query = '*[_id == "x"][0].courses[]->slug.current'
    assert await answer(groq, query) == [None, "course-1"]
    assert await answer(groq, query, "drafts") == ["nine", "course-1"]


@pytest.mark.anyio
async def test_drafts_are_laid_over_what_is_published(groq: Groq) -> None:
    await groq.apply([{"_id": "a", "_type": "t", "v": 1}, {"_id": "drafts.a", "_type": "t", "v": 2}])
    assert await answer(groq, '*[_type == "t"]{_id, _originalId, v}', "drafts") == [
        {"_id": "a", "_originalId": "drafts.a", "v": 2}
    ]
    await groq.apply([], ["drafts.a"])
    assert await answer(groq, '*[_type == "t"]{_originalId, v}', "drafts") == [{"_originalId": "a", "v": 1}]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("query", "start", "end", "text"),
    [
        ("*[_type ==", 9, 10, "Syntax error"),
        ("nothing(1)", 0, 10, "Undefined function"),
        ("*[_id == $id]", 9, 12, "param $id referenced, but not provided"),
    ],
)
async def test_a_wrong_query_is_a_parse_error_with_its_place(
    groq: Groq, query: str, start: int, end: int, text: str
) -> None:
    with pytest.raises(GroqError, match=text.replace("$", r"\$")) as caught:
        await answer(groq, query)
    assert caught.value.details["type"] == "queryParseError"
    assert (caught.value.details["start"], caught.value.details["end"]) == (start, end)


@pytest.mark.anyio
async def test_what_groq_js_cannot_do_is_an_error_and_no_empty_answer(groq: Groq) -> None:
    with pytest.raises(GroqError, match="not implemented"):
        await answer(groq, 'documents::get("x")')


@pytest.mark.anyio
async def test_answers_belong_to_their_questions_when_sent_together(groq: Groq) -> None:
    answers = await asyncio.gather(*(answer(groq, "$n + 1", n=number) for number in range(50)))
    assert answers == list(range(1, 51))


@pytest.mark.anyio
async def test_changed_only_does_not_count_system_fields(groq: Groq) -> None:
    before = {"_id": "a", "_type": "t", "_rev": "1", "_updatedAt": "2026-01-01T00:00:00Z", "plan": "x"}
    after = {**before, "_rev": "2", "_updatedAt": "2026-01-02T00:00:00Z", "plan": "y"}
    assert await groq.delta("delta::changedOnly(plan)", "_rev", before, after, NOW) == (True, "2")
    assert await groq.delta("delta::changedOnly(role)", "_rev", before, after, NOW) == (False, None)

"""People and organizations by name: whom a search finds, what is shown of them, and what never is."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from sync_worker.cli.processes import settings_for
from sync_worker.storage.rate_limit import Budget
from sync_worker.transport import ssl_context
from tests.clock import CLOCK, TIMINGS
from tests.nursery import listening
from tests.web.pages import TOKEN, Web, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from sync_worker.sandbox.server import Sandbox

pytestmark = pytest.mark.anyio
ADA = {"id": "user_ada", "name": "Ada Lovelace", "email": "a***@example.org"}


@pytest.fixture
async def web(box: Sandbox, sqlite_url: str) -> AsyncIterator[Web]:
    box.clerk.add_user("user_ada", email="ada@example.org", first_name="Ada", last_name="Lovelace")
    box.clerk.add_user("user_alan", username="turing")
    box.clerk.add_organization("org_1", name="Analytical Engines", slug="engines")
    async with serving(box, sqlite_url) as web:
        yield web


def without_image(answer: list[dict[str, Any]]) -> list[dict[str, Any]]:
    assert all(one.pop("image").startswith("https://") for one in answer)
    return answer


@pytest.mark.parametrize("text", ["ada", "love", "ada%20lo", "ada%40example.org", "user_ada"])
async def test_a_person_is_found_by_name_address_or_id_and_the_address_is_masked(web: Web, text: str) -> None:
    assert without_image(await web.json(f"/people?q={text}")) == [ADA]


async def test_an_organization_is_found_by_name(web: Web) -> None:
    found = [{"id": "org_1", "name": "Analytical Engines", "email": ""}]
    assert without_image(await web.json("/organizations?q=analytical")) == found
    assert without_image(await web.json("/organizations?id=org_1,org_gone")) == found


async def test_a_search_answers_ten_at_most_with_one_call(web: Web) -> None:
    for number in range(12):
        web.box.clerk.add_user(f"user_{number}", username=f"student{number}")
    web.box.clerk.requests.clear()
    assert len(await web.json("/people?q=student")) == 10
    assert web.box.clerk.requests.count() == 1


async def test_a_hundred_stored_ids_are_named_with_one_call_and_those_who_are_gone_are_left_out(web: Web) -> None:
    users = [web.box.clerk.add_user(f"user_{number}", username=f"student{number}") for number in range(99)]
    web.box.clerk.requests.clear()
    named = await web.json(f"/people?id={','.join([*users, 'user_gone'])}")
    assert {one["id"]: one["name"] for one in named} == {user: user.replace("user_", "student") for user in users}
    assert web.box.clerk.requests.count() == 1


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("", "bad_query"),
        ("q=", "bad_query"),
        ("q=%20", "bad_query"),
        ("q=a%00b", "bad_query"),
        (f"q={'a' * 101}", "bad_query"),
        ("id=", "bad_id"),
        ("id=org_1", "bad_id"),
        ("id=user_1,../x", "bad_id"),
        (f"id={','.join(f'user_{n}' for n in range(101))}", "bad_id"),
    ],
)
async def test_what_cannot_be_searched_costs_no_call(web: Web, query: str, code: str) -> None:
    assert await web.json(f"/people?{query}", 400) == {"error": code}
    assert web.box.clerk.requests.count() == 0


@pytest.mark.parametrize("path", ["/people?q=ada", "/organizations?q=ada"])
async def test_only_the_token_opens_the_directory(web: Web, path: str) -> None:
    for headers in ({"Accept": "application/json"}, {"Authorization": "Bearer wrong"}):
        response = await web.client.get(path, headers=headers)
        assert (response.status_code, response.json()) == (401, {"error": "unauthorized"})
    assert web.box.clerk.requests.count() == 0


async def test_a_search_takes_no_call_that_queued_work_needs(box: Sandbox, sqlite_url: str) -> None:
    async with serving(box, sqlite_url, clerk_budget=20) as web:
        pages = web.app.state.pages
        web.app.state.pages = replace(pages, timings=replace(TIMINGS, page_patience=0.5))
        budget = Budget(web.store.database, "clerk", 20, CLOCK, TIMINGS)
        while await budget.left(2):
            await budget.take(2)
        assert await web.json("/people?q=ada", 503) == {"error": "unavailable"}
        assert (await budget.left(0), box.clerk.requests.count()) == (1, 0)


async def test_a_refused_key_is_an_answer_without_details(web: Web) -> None:
    web.box.clerk.faults.some("unauthorized", 1.0)
    response = await web.client.get("/people?q=ada", headers={"Authorization": f"Bearer {TOKEN}"})
    assert (response.status_code, response.json()) == (503, {"error": "unavailable"})
    assert response.headers["retry-after"]


async def test_an_image_that_is_no_https_url_is_left_out_and_so_is_a_person_who_cannot_be_read(web: Web) -> None:
    web.box.clerk.update_user("user_alan", first_name=7)
    (ada,) = await web.json("/people?id=user_ada,user_alan")
    assert ada["id"] == "user_ada"


async def test_nothing_that_was_searched_or_found_is_logged_or_stored(
    box: Sandbox, sqlite_url: str, tmp_path: Path
) -> None:
    box.clerk.add_user("user_ada", email="ada@example.org", first_name="Ada", last_name="Lovelace")
    async with (
        listening("web", {**settings_for(box, sqlite_url), "ADMIN_TOKEN": TOKEN}, tmp_path / "log") as url,
        httpx.AsyncClient(verify=ssl_context(), base_url=url) as client,
    ):
        for path in ("/people?q=lovelace", "/people?q=ada%40example.org", "/people?id=user_ada"):
            (found,) = (await client.get(path, headers={"Authorization": f"Bearer {TOKEN}"})).json()
            assert found["name"] == "Ada Lovelace"
    kept = await asyncio.to_thread(everything_in, tmp_path)
    assert b"listening" in kept
    assert b"lovelace" not in kept.lower()
    assert b"ada@" not in kept
    assert b"ada%40" not in kept


def everything_in(folder: Path) -> bytes:
    """Return what is in all files of a folder: the log and the database."""
    return b"".join(file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file())

"""The Studio's pickers: editors search by name through the proxy, and only ids are stored."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from sync_worker.cli.processes import free_port
from tests.deploy.test_receipts import ADMIN_TOKEN, STUDIO, play, working
from tests.node import evaluate

if TYPE_CHECKING:
    from sync_worker.sandbox.server import Sandbox

pytestmark = pytest.mark.anyio
ADA: dict[str, Any] = {
    "id": "user_ada",
    "name": "Ada Lovelace",
    "email": "a***@example.org",
    "image": "https://img.example.test/ada.png",
}
LISTING = f"const {{readListings, titleOf}} = await import('{(STUDIO / 'people' / 'listing.ts').as_uri()}');"
DIRECTORY = f"""
  const {{Directory}} = await import('{(STUDIO / "people" / "ask.ts").as_uri()}');
  const {{url, close}} = await serve(answer);
  const directory = new Directory(url, client);
"""


async def test_an_editor_finds_a_person_by_name(box: Sandbox) -> None:
    script = DIRECTORY + "const found = await directory.search('people', 'ada l&v'); close(); return found;"
    async with working([ADA]) as worker:
        assert await play(box, worker.url, script) == [ADA]
    (requested,) = worker.requested
    assert requested.startswith("GET /people?q=ada+l%26v HTTP/1.1\r\n")
    assert f"authorization: bearer {ADMIN_TOKEN}" in requested.lower()


async def test_the_names_of_all_fields_of_a_form_take_one_request_for_each_kind(box: Sandbox) -> None:
    script = (
        DIRECTORY
        + """
      const names = await Promise.all([
        ...['user_ada', 'user_gone', 'user_ada'].map((id) => directory.name('people', id)),
      ]);
      close();
      return names;
    """
    )
    async with working([ADA]) as worker:
        assert await play(box, worker.url, script) == [ADA, None, ADA]
    (requested,) = worker.requested
    assert requested.startswith("GET /people?id=user_ada%2Cuser_gone HTTP/1.1\r\n")


async def test_a_worker_that_cannot_be_reached_is_no_missing_person(box: Sandbox) -> None:
    script = (
        DIRECTORY
        + """
      const named = await directory.name('people', 'user_ada');
      const found = await directory.search('people', 'ada');
      close();
      return {unknown: named === undefined, found};
    """
    )
    down = f"http://127.0.0.1:{free_port()}"
    assert await play(box, down, script) == {"unknown": True, "found": None}


async def test_without_a_pass_nobody_is_searched(box: Sandbox) -> None:
    async with working([ADA]) as worker:
        reported = await play(box, worker.url, "return payload(await ask('0'.repeat(64), 'find=people&q=ada'))")
    assert (reported["status"], json.loads(reported["body"])) == (401, {"error": "not_an_editor"})
    assert worker.requested == []


async def test_what_is_no_search_does_not_reach_the_worker(box: Sandbox) -> None:
    script = """
      const {text} = await issuePass(client);
      return Promise.all(given.queries.map(async (query) => (await ask(text, query)).status));
    """
    queries = [
        *("find=", "find=people", "find=people&q=%20", "find=status&q=x", "find=../status&q=x"),
        *(f"find=people&q={'a' * 101}", "find=people&id=../x", "find=people&id=user_1,", "find=people&id=user_1/x"),
        f"find=people&id={','.join(f'user_{n}' for n in range(101))}",
    ]
    async with working([ADA]) as worker:
        assert await play(box, worker.url, script, queries=queries) == [400] * len(queries)
    assert worker.requested == []


async def test_what_else_the_worker_says_of_a_person_stays_on_the_server(box: Sandbox) -> None:
    async with working([{**ADA, "phone": "+1", "token": ADMIN_TOKEN}]) as worker:
        reported = await play(
            box, worker.url, "return payload(await ask((await issuePass(client)).text, 'find=people&q=a'))"
        )
    assert json.loads(reported["body"]) == [ADA]


async def test_a_title_is_the_name_or_what_there_is() -> None:
    people = [ADA, {**ADA, "name": ""}, {"id": "user_1"}, {"name": "nobody"}, None]
    script = f"{LISTING} return readListings(given).map(titleOf)"
    assert await evaluate(script, people) == ["Ada Lovelace", "a***@example.org", "user_1"]


async def test_an_image_that_is_no_https_url_is_not_loaded() -> None:
    (one,) = await evaluate(f"{LISTING} return readListings(given)", [{**ADA, "image": "javascript:alert(1)"}])
    assert one["image"] == ""

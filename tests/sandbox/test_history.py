"""The transaction log, as the worker and the Studio read it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from sync_worker.sandbox.server import Sandbox
from sync_worker.sandbox.transaction_log import DAY
from sync_worker.transport import ssl_context
from tests.sandbox.test_control import ordered, steer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio
LOG = "/v2025-02-19/data/history/production/transactions"
MUTATE = "/v2025-02-19/data/mutate/production"
NOON = 1_798_718_400.0
"""2026-12-31T12:00:00Z."""


def lines_of(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


async def log(client: httpx.AsyncClient, path: str = LOG, **params: str) -> list[dict[str, Any]]:
    return lines_of(await client.get(path, params={"excludeContent": "true", **params}))


async def ids(client: httpx.AsyncClient, path: str = LOG, **params: str) -> list[str]:
    return [line["id"] for line in await log(client, path, **params)]


async def create(box: Sandbox, transaction: str, *documents: str, author: str | None = None) -> None:
    mutations = [{"create": {"_id": id_, "_type": "entitlement", "plan": "pro"}} for id_ in documents or (transaction,)]
    await box.lake.mutate(mutations, transaction_id=transaction, author=author)


async def test_a_line_has_the_fields_of_the_service(box: Sandbox, sanity: httpx.AsyncClient) -> None:
    await create(box, "t", "a", "b", author="p-ada")
    answer = await sanity.get(LOG, params={"excludeContent": "true"})
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    (line,) = lines_of(answer)
    assert line == {
        "id": "t",
        "timestamp": box.lake.documents["a"]["_updatedAt"],
        "author": "p-ada",
        "documentIDs": ["a", "b"],
        "sequenceNumber": line["sequenceNumber"],
        "mutations": [{"create": {"_id": "a"}}, {"create": {"_id": "b"}}],
    }


async def test_mutations_have_ids_and_no_content(box: Sandbox, sanity: httpx.AsyncClient) -> None:
    await create(box, "t", "e")
    await box.lake.mutate([{"patch": {"id": "e", "set": {"plan": "secret"}}}, {"delete": {"id": "nobody"}}])
    await box.lake.mutate([{"createOrReplace": {"_id": "e", "_type": "entitlement", "plan": "secret"}}])
    await box.lake.mutate([{"delete": {"query": '*[_id == "e"]'}}])
    assert [line["mutations"] for line in await log(sanity)][1:] == [
        [{"patch": {"id": "e"}}],
        [{"createOrReplace": {"_id": "e"}}],
        [{"delete": {"id": "e", "purge": False}}],
    ]


async def test_effects_show_what_was_created_and_deleted(box: Sandbox, sanity: httpx.AsyncClient) -> None:
    await create(box, "t", "e")
    await box.lake.mutate([{"delete": {"id": "e"}}])
    created, deleted = await log(sanity, effectFormat="mendoza", excludeMutations="true")
    assert created["effects"]["e"]["revert"] == deleted["effects"]["e"]["apply"] == [0, None]
    assert "mutations" not in created


async def test_what_changes_nothing_is_not_in_the_log(box: Sandbox, sanity: httpx.AsyncClient) -> None:
    await box.lake.mutate([{"delete": {"id": "nobody"}}])
    assert await ids(sanity) == []


@pytest.mark.parametrize("params", [{}, {"excludeContent": "false"}])
async def test_content_cannot_be_read(sanity: httpx.AsyncClient, params: dict[str, str]) -> None:
    answer = await sanity.get(LOG, params=params)
    assert answer.status_code == 403
    assert answer.json()["message"] == "This API requires excludeContent to be true"


async def test_a_viewer_reads_the_log(box: Sandbox, sanity: httpx.AsyncClient) -> None:
    headers = {"authorization": f"Bearer {box.lake.viewer_token}"}
    answer = await sanity.get(LOG, params={"excludeContent": "true"}, headers=headers)
    assert answer.status_code == 200


@pytest.mark.parametrize("public", [False, True])
async def test_the_log_needs_a_token(public: bool) -> None:
    async with (
        Sandbox(public=public) as box,
        httpx.AsyncClient(verify=ssl_context(), base_url=box.sanity_url) as client,
    ):
        assert (await client.get(LOG, params={"excludeContent": "true"})).status_code == 401


@pytest.mark.parametrize(
    ("params", "found"),
    [
        ({}, ["a", "b", "c"]),
        ({"limit": "2"}, ["a", "b"]),
        ({"reverse": "true", "limit": "2"}, ["c", "b"]),
        ({"fromTransaction": "b"}, ["b", "c"]),
        ({"toTransaction": "b"}, ["a", "b"]),
        ({"fromTransaction": "b", "toTransaction": "b"}, ["b"]),
        ({"fromTransaction": "unknown"}, []),
        ({"authors": "p-ada"}, ["b"]),
        ({"authors": "p-ada,p-sandbox"}, ["a", "b", "c"]),
        ({"fromTime": "2000-01-01T00:00:00Z", "toTime": "2001-01-01T00:00:00Z"}, []),
    ],
)
async def test_transactions_are_selected(
    box: Sandbox, sanity: httpx.AsyncClient, params: dict[str, str], found: list[str]
) -> None:
    await create(box, "a")
    await create(box, "b", author="p-ada")
    await create(box, "c")
    assert await ids(sanity, **params) == found


async def test_documents_are_selected_by_id(box: Sandbox, sanity: httpx.AsyncClient) -> None:
    await create(box, "t", "a", "drafts.b")
    await create(box, "u", "c")
    (line,) = await log(sanity, f"{LOG}/drafts.b,other")
    assert line["documentIDs"] == ["a", "drafts.b"]
    (line,) = await log(sanity, f"{LOG}/drafts.b,other", includeIdentifiedDocumentsOnly="true")
    assert (line["documentIDs"], line["mutations"]) == (["drafts.b"], [{"create": {"_id": "drafts.b"}}])


@pytest.mark.parametrize("params", [{"limit": "many"}, {"fromTime": "noon"}, {"toTime": "2026-01-01T00:00:00"}])
async def test_a_selection_that_cannot_be_read_is_refused(sanity: httpx.AsyncClient, params: dict[str, str]) -> None:
    assert (await sanity.get(LOG, params={"excludeContent": "true", **params})).status_code == 400


@pytest.fixture
async def timed() -> AsyncIterator[tuple[Sandbox, httpx.AsyncClient, list[float]]]:
    """A sandbox, its client, and its clock: a list with one element."""
    now = [NOON]
    async with Sandbox(clock=lambda: now[0]) as box:
        headers = {"authorization": f"Bearer {box.lake.token}"}
        async with httpx.AsyncClient(verify=ssl_context(), base_url=box.sanity_url, headers=headers) as client:
            yield box, client, now


Timed = tuple[Sandbox, httpx.AsyncClient, list[float]]


async def test_pages_overlap_where_transactions_share_a_second(timed: Timed) -> None:
    box, client, now = timed
    for name in ("a", "b", "c"):
        await create(box, name)
        now[0] += 0.3
    now[0] += 5
    await create(box, "d")
    first = await log(client, limit="2")
    assert [(line["id"], line["timestamp"]) for line in first] == [
        ("a", "2026-12-31T12:00:00Z"),
        ("b", "2026-12-31T12:00:00Z"),
    ]
    assert await ids(client, limit="2", fromTime=first[-1]["timestamp"]) == ["a", "b"]
    assert await ids(client, limit="3", fromTransaction="b") == ["b", "c", "d"]
    assert await ids(client, toTime="2026-12-31T12:00:00Z") == ["a", "b", "c"]


async def test_the_log_keeps_transactions_for_its_retention(timed: Timed) -> None:
    box, client, now = timed
    await create(box, "old")
    now[0] += 3 * DAY + 1
    await create(box, "new")
    assert await ids(client) == ["new"]
    await ordered(client, "/log", {"retention": 90 * DAY})
    assert await ids(client) == ["old", "new"]


async def test_a_purged_document_is_in_no_line(box: Sandbox, sanity: httpx.AsyncClient) -> None:
    await create(box, "t", "a", "b")
    await create(box, "u", "c")
    await box.lake.mutate([{"delete": {"id": "a", "purge": True}}, {"delete": {"id": "c", "purge": True}}])
    (line,) = await log(sanity, effectFormat="mendoza")
    assert (line["documentIDs"], line["mutations"], list(line["effects"])) == (["b"], [{"create": {"_id": "b"}}], ["b"])
    await create(box, "v", "a")
    assert await ids(sanity) == ["t", "v"]


async def test_a_reset_and_an_import_leave_the_log_empty(box: Sandbox, sanity: httpx.AsyncClient) -> None:
    await create(box, "a")
    await box.reset()
    await box.lake.load([{"_id": "a", "_type": "entitlement"}])
    assert await ids(sanity) == []


async def test_the_author_is_the_user_of_the_token(sanity: httpx.AsyncClient) -> None:
    await ordered(sanity, "/authors", {"author": "p-grace"})
    await ordered(sanity, "/authors", {"author": "p-ada", "token": "sk-ada"})
    for id_, headers in (("a", {}), ("b", {"authorization": "Bearer sk-ada"})):
        mutations = [{"create": {"_id": id_, "_type": "t"}}]
        assert (await sanity.post(MUTATE, json={"mutations": mutations}, headers=headers)).status_code == 200
    assert [line["author"] for line in await log(sanity)] == ["p-grace", "p-ada"]


async def test_webhooks_can_project_the_author(box: Sandbox) -> None:
    box.lake.add_hook("http://127.0.0.1:9/", projection="{'by': identity()}")
    box.lake.webhooks.deliveries.pause()
    await box.lake.mutate([{"create": {"_id": "a", "_type": "t"}}], author="p-ada")
    await box.lake.webhooks.matched()
    assert [message.body for message in box.lake.webhooks.deliveries.messages] == [b'{"by":"p-ada"}']


async def test_a_garbled_line(box: Sandbox, sanity: httpx.AsyncClient) -> None:
    for name in ("a", "b", "c"):
        await create(box, name)
    box.lake.faults.next("garbled", path_prefix=LOG)
    first, second, third = (await sanity.get(LOG, params={"excludeContent": "true"})).text.splitlines()
    assert [json.loads(line)["id"] for line in (first, third)] == ["a", "c"]
    with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
        json.loads(second)


async def test_an_error_after_half_of_the_lines(box: Sandbox, sanity: httpx.AsyncClient) -> None:
    for name in ("a", "b"):
        await create(box, name)
    await ordered(sanity, "/faults", {"fault": "error_line", "path_prefix": LOG})
    first, last = await log(sanity)
    assert first["id"] == "a"
    assert last["error"]["description"]


async def test_a_log_that_is_cut_in_the_middle(box: Sandbox, sanity: httpx.AsyncClient) -> None:
    await create(box, "a")
    box.lake.faults.next("truncated", path_prefix=LOG)
    with pytest.raises(httpx.RemoteProtocolError):
        await log(sanity)


async def test_control_routes_are_not_logged(box: Sandbox, sanity: httpx.AsyncClient) -> None:
    await sanity.get(steer(sanity, "/listeners"))
    await log(sanity)
    assert [request.path for request in box.lake.requests.requests] == [LOG]

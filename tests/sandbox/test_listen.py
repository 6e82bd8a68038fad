"""What a listener receives, as it is on the wire."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from sync_worker.sandbox.listeners import ListenSettings
from sync_worker.sandbox.server import Sandbox
from sync_worker.transport import ssl_context
from tests.oracle import GUARD
from tests.sandbox.events import LISTEN, connected, listening

if TYPE_CHECKING:
    from tests.sandbox.events import Stream

pytestmark = pytest.mark.anyio
ENTITLEMENT = {"_id": "e", "_type": "entitlement", "plan": "pro"}
CREATE = [{"create": ENTITLEMENT}]
DELETE = [{"delete": {"id": "e"}}]


def patch(plan: str, id_: str = "e") -> list[dict[str, Any]]:
    return [{"patch": {"id": id_, "set": {"plan": plan}}}]


async def transitions(stream: Stream, count: int) -> list[tuple[str, str]]:
    return [(event["documentId"], event["transition"]) for event in await stream.mutations(count)]


async def test_a_new_listener_is_welcomed(sanity: httpx.AsyncClient) -> None:
    async with connected(sanity) as stream:
        welcome = await stream.next()
    assert (welcome.name, welcome.id) == ("welcome", "")
    assert isinstance(welcome.data["listenerName"], str)
    assert stream.answer.headers["content-type"].startswith("text/event-stream")


async def test_an_event_has_the_fields_of_the_service(box: Sandbox, sanity: httpx.AsyncClient) -> None:
    await box.lake.mutate(CREATE, transaction_id="before")
    async with listening(sanity, includeResult="true", includePreviousRevision="true") as stream:
        await box.lake.mutate(patch("max"), transaction_id="now", author="p-ada")
        event = await stream.next()
    after = box.lake.documents["e"]
    assert event.id == "now#e"
    assert event.data == {
        "documentId": "e",
        "eventId": "now#e",
        "identity": "p-ada",
        "transactionId": "now",
        "transition": "update",
        "timestamp": after["_updatedAt"],
        "visibility": "transaction",
        "transactionTotalEvents": 1,
        "transactionCurrentEvent": 1,
        "previousRev": "before",
        "resultRev": "now",
        "mutations": patch("max"),
        "previous": {**after, "_rev": "before", "_updatedAt": event.data["previous"]["_updatedAt"], "plan": "pro"},
        "result": after,
    }


async def test_documents_are_left_out_unless_they_are_requested(box: Sandbox, sanity: httpx.AsyncClient) -> None:
    async with listening(sanity, includeMutations="false") as stream:
        await box.lake.mutate(CREATE)
        (event,) = await stream.mutations(1)
    assert {"mutations", "previous", "result", "effects"}.isdisjoint(event)


async def test_a_created_document_has_no_previous_revision(box: Sandbox, sanity: httpx.AsyncClient) -> None:
    async with listening(sanity, includePreviousRevision="true") as stream:
        revision = await box.lake.mutate(CREATE)
        (event,) = await stream.mutations(1)
    assert (event["transition"], event["previous"], event["resultRev"]) == ("appear", None, revision)
    assert "previousRev" not in event


async def test_a_deleted_document_is_seen_as_it_was(box: Sandbox, sanity: httpx.AsyncClient) -> None:
    revision = await box.lake.mutate(CREATE)
    options = {"includePreviousRevision": "true", "includeResult": "true", "effectFormat": "mendoza"}
    async with listening(sanity, **options) as stream:
        await box.lake.mutate(DELETE)
        (event,) = await stream.mutations(1)
    assert (event["transition"], event["previousRev"], event["previous"]["plan"]) == ("disappear", revision, "pro")
    assert event["effects"]["apply"] == [0, None]
    assert event["resultRev"] == event["transactionId"]  # by it the Studio puts events in order
    assert "result" not in event


async def test_a_document_appears_and_disappears_with_the_filter(box: Sandbox, sanity: httpx.AsyncClient) -> None:
    async with listening(sanity, query='*[plan == "pro"]', params={}) as stream:
        await box.lake.mutate([{"create": {**ENTITLEMENT, "plan": "starter"}}])
        for plan in ("pro", "max"):
            await box.lake.mutate(patch(plan))
        assert await transitions(stream, 2) == [("e", "appear"), ("e", "disappear")]


async def test_a_type_is_replaced(box: Sandbox, sanity: httpx.AsyncClient) -> None:
    await box.lake.mutate(CREATE)
    async with listening(sanity) as stream:
        await box.lake.mutate([{"createOrReplace": {"_id": "e", "_type": "course"}}])
        assert await transitions(stream, 1) == [("e", "disappear")]


async def test_each_document_of_a_transaction_is_one_event(box: Sandbox, sanity: httpx.AsyncClient) -> None:
    async with listening(sanity) as stream:
        documents = [{**ENTITLEMENT, "_id": "a"}, {"_id": "other", "_type": "course"}, {**ENTITLEMENT, "_id": "b"}]
        await box.lake.mutate([{"create": document} for document in documents], transaction_id="t")
        events = await stream.mutations(2)
    assert [event["eventId"] for event in events] == ["t#a", "t#b"]
    assert [(event["transactionCurrentEvent"], event["transactionTotalEvents"]) for event in events] == [(1, 2), (2, 2)]
    assert [event["mutations"][0]["create"]["_id"] for event in events] == ["a", "b"]


@pytest.mark.parametrize(
    "query", ['*[_type == "entitlement"] | order(_id)[0...1]{plan}', '*[_type == "entitlement"][0].plan', "*"]
)
async def test_order_slices_and_projections_do_not_count(box: Sandbox, sanity: httpx.AsyncClient, query: str) -> None:
    await box.lake.mutate([{"create": {**ENTITLEMENT, "_id": "a"}}])
    async with listening(sanity, query=query, params={}) as stream:
        await box.lake.mutate(CREATE)
        assert await transitions(stream, 1) == [("e", "appear")]


async def test_a_join_finds_nothing(box: Sandbox, sanity: httpx.AsyncClient) -> None:
    await box.lake.mutate([{"create": {"_id": "course", "_type": "course", "slug": "logic"}}])
    course = {"_type": "reference", "_ref": "course"}
    async with listening(sanity, query='*[course->slug == "logic" || _id == "end"]', params={}) as stream:
        await box.lake.mutate([{"create": {**ENTITLEMENT, "course": course}}])
        await box.lake.mutate([{"create": {"_id": "end", "_type": "course"}}])
        assert await transitions(stream, 1) == [("end", "appear")]


@pytest.mark.parametrize(
    ("version", "options", "seen"),
    [
        ("2025-02-19", {}, ["e"]),
        ("X", {}, ["e"]),
        ("2025-02-19", {"includeAllVersions": "true"}, ["drafts.e", "versions.r.e", "e"]),
        ("2021-06-07", {}, ["drafts.e", "versions.r.e", "e"]),
    ],
)
async def test_drafts_and_versions_depend_on_the_api_version(
    box: Sandbox, sanity: httpx.AsyncClient, version: str, options: dict[str, str], seen: list[str]
) -> None:
    async with listening(sanity, f"/v{version}/data/listen/production", **options) as stream:
        for id_ in ("drafts.e", "versions.r.e", "e"):
            await box.lake.mutate([{"create": {**ENTITLEMENT, "_id": id_}}])
        assert [id_ for id_, _ in await transitions(stream, len(seen))] == seen


async def test_an_event_is_sent_before_queries_see_the_change(box: Sandbox, sanity: httpx.AsyncClient) -> None:
    box.lake.lag = 300
    async with listening(sanity) as stream:
        await box.lake.mutate(CREATE)
        (event,) = await stream.mutations(1)
        assert await box.lake.query("count(*)") == 0
    assert event["visibility"] == "transaction"


async def test_an_event_can_wait_until_queries_see_the_change(box: Sandbox, sanity: httpx.AsyncClient) -> None:
    box.lake.lag = 300
    async with listening(sanity, visibility="query") as late, listening(sanity) as early:
        await box.lake.mutate(CREATE)
        await early.mutations(1)
        assert box.lake.listeners.sent == 1
        box.lake.lag = 0
        (event,) = await late.mutations(1)
        assert await box.lake.query("count(*)") == 1
    assert event["visibility"] == "query"


@pytest.mark.parametrize(
    ("query", "fragment"),
    [
        ("*[_type ==", "Syntax error"),
        ("*[_id == $id]", "param $id referenced, but not provided"),
        ("now()", "starts with a filter"),
    ],
)
async def test_a_bad_query_is_refused_on_the_channel(sanity: httpx.AsyncClient, query: str, fragment: str) -> None:
    async with connected(sanity, query=query, params={}) as stream:
        refused, parting = await stream.next(), await stream.next()
        with pytest.raises(EOFError):
            await stream.next()
    assert stream.answer.status_code == 200
    assert (refused.name, parting.name) == ("channelError", "disconnect")
    assert fragment in refused.data["error"]["description"]
    assert refused.data["error"]["query"] == query
    assert parting.data["reason"]


@pytest.mark.parametrize(
    ("path", "options", "status"),
    [
        (LISTEN, {"query": ""}, 400),
        (LISTEN, {"visibility": "soon"}, 400),
        (LISTEN, {"params": {"$types": "not json"}}, 400),
        ("/v2025-02-19/data/listen/other", {}, 404),
        ("/vlatest/data/listen/production", {}, 400),
    ],
)
async def test_a_wrong_request_is_refused_by_its_status(
    sanity: httpx.AsyncClient, path: str, options: dict[str, Any], status: int
) -> None:
    async with connected(sanity, path, **options) as stream:
        assert stream.answer.status_code == status


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer wrong"}])
async def test_a_listener_needs_a_token_that_exists(box: Sandbox, headers: dict[str, str]) -> None:
    async with (
        httpx.AsyncClient(verify=ssl_context(), base_url=box.sanity_url, headers=headers) as client,
        connected(client) as stream,
    ):
        assert stream.answer.status_code == 401


async def test_a_viewer_may_listen(box: Sandbox) -> None:
    headers = {"authorization": f"Bearer {box.lake.viewer_token}"}
    async with (
        httpx.AsyncClient(verify=ssl_context(), base_url=box.sanity_url, headers=headers) as client,
        listening(client) as stream,
    ):
        await box.lake.mutate(CREATE)
        assert await transitions(stream, 1) == [("e", "appear")]


async def test_without_a_token_a_public_dataset_hides_ids_with_a_dot() -> None:
    async with (
        Sandbox(public=True) as box,
        httpx.AsyncClient(verify=ssl_context(), base_url=box.sanity_url) as client,
        listening(client, "/v2021-06-07/data/listen/production") as stream,
    ):
        for id_ in ("drafts.e", "a.b", "e"):
            await box.lake.mutate([{"create": {**ENTITLEMENT, "_id": id_}}])
        assert await transitions(stream, 1) == [("e", "appear")]


async def test_a_silent_channel_is_kept_alive_by_comments(box: Sandbox, sanity: httpx.AsyncClient) -> None:
    box.lake.listeners.settings = ListenSettings(keep_alive=0.01)
    async with listening(sanity) as stream:
        assert (await stream.next()).name == ""


async def test_a_connection_ends_after_its_lifetime(box: Sandbox, sanity: httpx.AsyncClient) -> None:
    box.lake.listeners.settings = ListenSettings(lifetime=0.05, keep_alive=30)
    async with listening(sanity) as stream:
        with pytest.raises(EOFError):
            await stream.next()
    assert box.lake.listeners.connected == 0


async def test_a_client_that_leaves_is_forgotten(box: Sandbox, sanity: httpx.AsyncClient) -> None:
    async with listening(sanity):
        assert box.lake.listeners.connected == 1
    async with asyncio.timeout(GUARD):
        await box.lake.listeners.wait_connected(0)
    assert box.lake.listeners.opened == 1

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httpx
import pytest

from sync_worker.sandbox.server import Sandbox
from sync_worker.transport import ssl_context
from tests.oracle import GUARD

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

V = "/v2025-02-19/data"
QUERY = f"{V}/query/production"
MUTATE = f"{V}/mutate/production"
ENTITLEMENT = {"_id": "e", "_type": "entitlement", "plan": "pro"}


@pytest.fixture
async def filled(box: Sandbox) -> Sandbox:
    await box.lake.mutate([{"create": ENTITLEMENT}, {"create": {**ENTITLEMENT, "_id": "drafts.e", "plan": "draft"}}])
    return box


@pytest.mark.anyio
@pytest.mark.usefixtures("filled")
async def test_a_get_query_takes_json_parameters(sanity: httpx.AsyncClient) -> None:
    params = {"query": "*[_id == $id]{plan}", "$id": '"e"', "perspective": "published"}
    answer = (await sanity.get(QUERY, params=params)).json()
    assert answer["result"] == [{"plan": "pro"}]
    assert answer["query"] == "*[_id == $id]{plan}"
    assert isinstance(answer["ms"], int)


@pytest.mark.anyio
@pytest.mark.usefixtures("filled")
async def test_a_post_query_takes_native_parameters(sanity: httpx.AsyncClient) -> None:
    body = {"query": "*[_id in $ids]{plan}", "params": {"ids": ["e", "f"]}}
    answer = await sanity.post(QUERY, params={"returnQuery": "false"}, json=body)
    assert {key: value for key, value in answer.json().items() if key != "ms"} == {"result": [{"plan": "pro"}]}


@pytest.mark.anyio
@pytest.mark.parametrize(("version", "count"), [("2025-02-19", 1), ("X", 1), ("2021-10-04", 2), ("1", 2)])
@pytest.mark.usefixtures("filled")
async def test_the_default_perspective_depends_on_the_api_version(
    sanity: httpx.AsyncClient, version: str, count: int
) -> None:
    answer = await sanity.get(f"/v{version}/data/query/production", params={"query": "count(*)"})
    assert answer.json()["result"] == count


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("address", "params", "status", "fragment"),
    [
        (QUERY, {"query": "*[_type =="}, 400, '"type":"queryParseError"'),
        (QUERY, {"query": "*[_id == $id]"}, 400, "param $id referenced, but not provided"),
        (QUERY, {"query": "*", "$id": "not json"}, 400, "unable to parse"),
        (QUERY, {}, 400, "is required"),
        (QUERY, {"query": "*", "tag": "not a tag!"}, 400, "Tag"),
        (QUERY, {"query": "*", "perspective": "raw,drafts"}, 400, "perspective"),
        (f"{V}/query/other", {"query": "*"}, 404, "not found for project ID"),
        ("/v20250219/data/query/production", {"query": "*"}, 400, "API version"),
    ],
)
async def test_wrong_requests_are_refused_in_sanitys_words(
    sanity: httpx.AsyncClient, address: str, params: dict[str, str], status: int, fragment: str
) -> None:
    answer = await sanity.get(address, params=params)
    assert answer.status_code == status
    assert fragment in answer.text


@pytest.mark.anyio
@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer wrong"}, {"authorization": "sk-sandbox"}])
async def test_a_private_dataset_needs_a_token_that_exists(box: Sandbox, headers: dict[str, str]) -> None:
    async with httpx.AsyncClient(verify=ssl_context(), base_url=box.sanity_url, headers=headers) as client:
        answer = await client.get(QUERY, params={"query": "*"})
    assert answer.status_code == 401
    assert answer.json() == {"errorCode": "SIO-401-ANF", "error": "Unauthorized", "message": "Session not found"}


@pytest.fixture
async def public() -> AsyncIterator[Sandbox]:
    async with Sandbox(public=True) as box:
        await box.lake.mutate(
            [{"create": {"_id": id_, "_type": "t"}} for id_ in ("plain", "dotted.id", "drafts.plain")]
        )
        yield box


@pytest.mark.anyio
async def test_a_public_dataset_without_a_token_answers_with_fewer_documents(public: Sandbox) -> None:
    async with httpx.AsyncClient(verify=ssl_context(), base_url=public.sanity_url) as client:
        answer = await client.get(QUERY, params={"query": "*._id", "perspective": "raw"})
        docs = await client.get(f"{V}/doc/production/plain,dotted.id,nobody")
    assert answer.status_code == 200
    assert answer.json()["result"] == ["plain"]
    assert [document["_id"] for document in docs.json()["documents"]] == ["plain"]
    assert docs.json()["omitted"] == [
        {"id": "dotted.id", "reason": "permission"},
        {"id": "nobody", "reason": "existence"},
    ]


@pytest.mark.anyio
async def test_a_viewer_token_reads_and_does_not_write(filled: Sandbox, sanity: httpx.AsyncClient) -> None:
    headers = {"authorization": f"Bearer {filled.lake.viewer_token}"}
    assert (await sanity.get(QUERY, params={"query": "count(*)"}, headers=headers)).json()["result"] == 1
    refused = await sanity.post(MUTATE, json={"mutations": [{"delete": {"id": "e"}}]}, headers=headers)
    assert refused.status_code == 403
    assert "Insufficient permissions" in refused.json()["message"]
    assert "e" in filled.lake.documents


@pytest.mark.anyio
async def test_documents_are_read_behind_the_lagging_index(filled: Sandbox, sanity: httpx.AsyncClient) -> None:
    filled.lake.lag = 30
    transaction_id = await filled.lake.mutate([{"patch": {"id": "e", "set": {"plan": "starter"}}}])
    queried = (await sanity.get(QUERY, params={"query": "*[_id == 'e'][0]"})).json()["result"]
    (read,) = (await sanity.get(f"{V}/doc/production/e")).json()["documents"]
    assert (queried["plan"], read["plan"], read["_rev"]) == ("pro", "starter", transaction_id)


@pytest.mark.anyio
async def test_a_query_sees_a_change_once_the_lag_is_over(filled: Sandbox) -> None:
    filled.lake.lag = 0.05
    await filled.lake.mutate([{"delete": {"id": "e"}}])
    async with asyncio.timeout(GUARD):
        await filled.lake.indexed()
    assert await filled.lake.query("count(*)") == 0


@pytest.mark.anyio
async def test_a_shorter_lag_counts_at_once(filled: Sandbox) -> None:
    filled.lake.lag = 300
    await filled.lake.mutate([{"delete": {"id": "e"}}])
    assert await filled.lake.query("count(*)") == 1
    filled.lake.lag = 0
    async with asyncio.timeout(GUARD):
        await filled.lake.indexed()
    assert await filled.lake.query("count(*)") == 0


@pytest.mark.anyio
async def test_a_reset_does_not_wait_for_the_lag(filled: Sandbox) -> None:
    filled.lake.lag = 300
    await filled.lake.mutate([{"patch": {"id": "e", "set": {"plan": "late"}}}])
    async with asyncio.timeout(GUARD):
        await filled.reset()
    await filled.lake.mutate([{"create": {**ENTITLEMENT, "_id": "new"}}])
    assert await filled.lake.query("*._id") == ["new"]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("visibility", "lag", "seen"), [("sync", 0.05, "new"), ("async", 30, "pro"), ("deferred", 30, "pro")]
)
async def test_a_synchronous_mutation_waits_for_the_index(
    filled: Sandbox, sanity: httpx.AsyncClient, visibility: str, lag: float, seen: str
) -> None:
    filled.lake.lag = lag
    mutations = {"mutations": [{"patch": {"id": "e", "set": {"plan": "new"}}}]}
    await sanity.post(MUTATE, params={"visibility": visibility}, json=mutations)
    assert await filled.lake.query("*[_id == 'e'][0].plan") == seen


@pytest.mark.anyio
async def test_a_mutation_returns_what_it_did_on_request(filled: Sandbox, sanity: httpx.AsyncClient) -> None:
    mutations = {"mutations": [{"patch": {"id": "e", "set": {"plan": "new"}}}], "transactionId": "mine"}
    answer = (await sanity.post(MUTATE, params={"returnIds": "true"}, json=mutations)).json()
    assert answer == {"transactionId": "mine", "results": [{"id": "e", "operation": "update"}]}
    assert filled.lake.documents["e"]["_rev"] == "mine"


@pytest.mark.anyio
async def test_a_dry_run_changes_nothing(filled: Sandbox, sanity: httpx.AsyncClient) -> None:
    mutations = {"mutations": [{"delete": {"id": "e"}}]}
    answer = await sanity.post(MUTATE, params={"dryRun": "true", "returnIds": "true"}, json=mutations)
    assert answer.json()["results"] == [{"id": "e", "operation": "delete"}]
    assert "e" in filled.lake.documents


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"mutations": [{"create": ENTITLEMENT}]}, 409),
        ({"mutations": [{"delete": {"id": "e"}, "create": {}}]}, 400),
        ({"mutations": "all"}, 400),
        ([], 400),
    ],
)
@pytest.mark.usefixtures("filled")
async def test_a_refused_mutation_has_sanitys_status(sanity: httpx.AsyncClient, body: object, status: int) -> None:
    assert (await sanity.post(MUTATE, json=body)).status_code == status


@pytest.mark.anyio
async def test_documents_can_be_changed_by_query(filled: Sandbox, sanity: httpx.AsyncClient) -> None:
    by_query = {"query": "*[plan == $plan]", "params": {"plan": "draft"}}
    await sanity.post(MUTATE, json={"mutations": [{"delete": by_query}]})
    assert set(filled.lake.documents) == {"e"}


@pytest.mark.anyio
async def test_every_answer_has_a_date(sanity: httpx.AsyncClient) -> None:
    assert (await sanity.get(QUERY, params={"query": "1"})).headers["date"].endswith("GMT")

"""Exactly what the npm package @sanity/client 8.11.0 puts on the wire, recorded from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import httpx

    from sync_worker.sandbox.server import Sandbox

HEADERS = {
    "user-agent": "@sanity/client 8.11.0",
    "x-sanity-project-id": "sandbox",
    "accept": "*/*",
    "accept-language": "*",
    "sec-fetch-mode": "cors",
    "accept-encoding": "gzip, deflate",
}
JSON = {**HEADERS, "content-type": "application/json"}
MUTATE = "/v2025-02-19/data/mutate/production?returnIds=true&returnDocuments=true&visibility=sync"


async def mutate(sanity: httpx.AsyncClient, body: bytes, address: str = MUTATE) -> httpx.Response:
    return await sanity.post(address, content=body, headers=JSON)


@pytest.mark.anyio
async def test_fetch(box: Sandbox, sanity: httpx.AsyncClient) -> None:
    await box.lake.mutate([{"create": {"_id": "é", "_type": "entitlement"}}])
    answer = await sanity.get(
        "/v2025-02-19/data/query/production?query=*%5B_type%3D%3D%24t+%26%26+_id+in+%24ids%5D%7B_id%7D"
        "&%24t=%22entitlement%22&%24ids=%5B%22%C3%A9%22%2C%22b%22%5D&returnQuery=false&perspective=published&tag=sync.x",
        headers=HEADERS,
    )
    assert answer.json()["result"] == [{"_id": "é"}]
    assert "query" not in answer.json()


@pytest.mark.anyio
async def test_a_long_fetch_is_posted(box: Sandbox, sanity: httpx.AsyncClient) -> None:
    await box.lake.mutate([{"create": {"_id": "id-1", "_type": "t"}}])
    answer = await sanity.post(
        "/v2025-02-19/data/query/production?returnQuery=false&perspective=published",
        content=b'{"query":"count(*[_id in $ids])","params":{"ids":["id-0","id-1"]}}',
        headers=JSON,
    )
    assert answer.json()["result"] == 1


@pytest.mark.anyio
async def test_create_patch_and_delete(box: Sandbox, sanity: httpx.AsyncClient) -> None:
    created = await mutate(sanity, b'{"mutations":[{"create":{"_id":"e1","_type":"course","tags":[]}}]}')
    revision = created.json()["results"][0]["document"]["_rev"]
    assert revision == created.json()["transactionId"]

    patch = (
        '{"mutations":[{"patch":{"id":"e1","set":{"plan":"pro"},'
        f'"insert":{{"after":"tags[-1]","items":["a"]}},"ifRevisionID":"{revision}"}}}}]}}'
    )
    patched = (await mutate(sanity, patch.encode())).json()["results"][0]["document"]
    assert (patched["plan"], patched["tags"]) == ("pro", ["a"])

    deleted = await mutate(sanity, b'{"mutations":[{"delete":{"id":"e1"}}]}')
    assert deleted.json()["results"][0]["operation"] == "delete"
    assert box.lake.documents == {}


@pytest.mark.anyio
async def test_a_transaction(sanity: httpx.AsyncClient) -> None:
    address = "/v2025-02-19/data/mutate/production?returnIds=true&visibility=sync"
    body = b'{"mutations":[{"create":{"_id":"a","_type":"b"}},{"delete":{"id":"c"}}]}'
    results = (await mutate(sanity, body, address)).json()["results"]
    assert results == [{"id": "a", "operation": "create"}, {"id": "c", "operation": "none"}]


@pytest.mark.anyio
async def test_get_documents(box: Sandbox, sanity: httpx.AsyncClient) -> None:
    await box.lake.mutate([{"create": {"_id": "e1", "_type": "t"}}])
    answer = (await sanity.get("/v2025-02-19/data/doc/production/e1,e2", headers=HEADERS)).json()
    assert [document["_id"] for document in answer["documents"]] == ["e1"]
    assert answer["omitted"] == [{"id": "e2", "reason": "existence"}]

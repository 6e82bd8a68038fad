from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.oracle import GUARD

if TYPE_CHECKING:
    import httpx

    from sync_worker.sandbox.server import Sandbox
    from tests.sandbox.conftest import Receiver

QUERY = "/v2025-02-19/data/query/production"


def steer(client: httpx.AsyncClient, path: str) -> str:
    """Return the address of a control route; the Clerk client's base has a version in it."""
    return str(client.base_url.join("/")) + f"_sandbox{path}"


async def ordered(client: httpx.AsyncClient, path: str, order: Any = None) -> Any:
    answer = await client.post(steer(client, path), json=order)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.anyio
async def test_faults_are_switched_and_cleared_over_http(box: Sandbox, clerk: httpx.AsyncClient) -> None:
    await ordered(clerk, "/faults", {"fault": "rate_limited", "times": 2, "retry_after": 3, "method": "GET"})
    assert (await clerk.get("/users")).headers["retry-after"] == "3"
    await ordered(clerk, "/faults", {})
    assert (await clerk.get("/users")).status_code == 200
    await ordered(clerk, "/faults", {"fault": "internal", "fraction": 1.0})
    assert (await clerk.get("/users")).status_code == 500
    await ordered(clerk, "/faults", {"latency": 0.01})
    assert box.clerk.faults.latency == 0.01


@pytest.mark.anyio
@pytest.mark.parametrize("order", [{"fault": "earthquake"}, {"typo": 1}])
async def test_an_order_that_is_not_understood_is_refused(clerk: httpx.AsyncClient, order: dict[str, Any]) -> None:
    answer = await clerk.post(steer(clerk, "/faults"), json=order)
    assert answer.status_code == 400
    assert answer.json()["error"]


@pytest.mark.anyio
async def test_requests_are_counted_and_forgotten_over_http(box: Sandbox, clerk: httpx.AsyncClient) -> None:
    box.clerk.add_user("user_a")
    await clerk.get("/users")
    await clerk.patch("/users/user_a/metadata", json={"public_metadata": {}})
    log = (await clerk.get(steer(clerk, "/requests"))).json()
    assert (log["total"], log["by_method"], log["by_status"], log["overlaps"]) == (
        2,
        {"GET": 1, "PATCH": 1},
        {"200": 2},
        0,
    )
    assert [request["written"] for request in log["requests"]] == ["", "user_a"]
    count = await clerk.get(steer(clerk, "/requests/count"), params={"method": "PATCH", "path_prefix": "/v1/users"})
    assert count.json() == {"count": 1}
    await clerk.delete(steer(clerk, "/requests"))
    assert box.clerk.requests.count() == 0


@pytest.mark.anyio
async def test_a_lake_is_loaded_lagged_hooked_and_reset_over_http(
    box: Sandbox, sanity: httpx.AsyncClient, receiver: Receiver
) -> None:
    await ordered(sanity, "/load", [{"_id": "e", "_type": "entitlement"}])
    hook = await ordered(sanity, "/hooks", {"url": receiver.url, "projection": "_id", "on": ["update"]})
    await ordered(sanity, "/lag", {"seconds": 0.01})
    state = (await sanity.get(steer(sanity, "/state"))).json()
    assert [document["_id"] for document in state["documents"]] == ["e"]
    assert (state["lag"], state["hooks"][0]["id"]) == (0.01, hook["id"])
    await box.lake.mutate([{"patch": {"id": "e", "set": {"plan": "pro"}}}])
    async with asyncio.timeout(GUARD):
        await ordered(sanity, "/idle")
    assert [received.body for received in receiver.received] == [b'"e"']
    assert (await sanity.get(QUERY, params={"query": "*[0].plan"})).json()["result"] == "pro"
    await ordered(sanity, "/reset")
    state = (await sanity.get(steer(sanity, "/state"))).json()
    assert state == {"documents": [], "lag": 0.0, "hooks": []}
    assert (await sanity.get(QUERY, params={"query": "count(*)"})).json()["result"] == 0


@pytest.mark.anyio
async def test_webhooks_are_held_back_and_harmed_over_http(box: Sandbox, sanity: httpx.AsyncClient) -> None:
    await ordered(
        sanity, "/delivery-faults", {"drop": 0.5, "delay_seconds": [0, 1], "retry_delays": [0.1], "paused": True}
    )
    deliveries = box.lake.webhooks.deliveries
    assert (deliveries.faults.drop, deliveries.faults.delay_seconds) == (0.5, (0.0, 1.0))
    assert deliveries.policy.retry_delays == (0.1,)
    assert deliveries.is_paused
    await ordered(sanity, "/delivery-faults", {})
    assert (deliveries.faults.drop, deliveries.is_paused) == (0.0, False)


@pytest.mark.anyio
async def test_clerk_is_filled_limited_and_reset_over_http(
    box: Sandbox, clerk: httpx.AsyncClient, receiver: Receiver
) -> None:
    await ordered(clerk, "/endpoints", {"url": receiver.url, "secret": "whsec_AAAA", "events": ["user.created"]})
    answer = await ordered(clerk, "/users", [{"user_id": "user_a", "email": "a@example.com"}, {}])
    assert answer["ids"] == list(box.clerk.users)
    await ordered(clerk, "/limits", {"instance": 1})
    assert [(await clerk.get("/users")).status_code for _ in range(2)] == [200, 429]
    state = (await clerk.get(steer(clerk, "/state"))).json()
    assert (list(state["users"]), state["limits"]["instance"]) == (answer["ids"], 1)
    async with asyncio.timeout(GUARD):
        await box.clerk.webhooks.deliveries.idle()
    assert len(receiver.received) == 2
    await ordered(clerk, "/reset")
    assert box.clerk.users == {}
    assert box.clerk.webhooks.endpoints == []


@pytest.mark.anyio
async def test_the_instance_and_its_session_token_are_set_over_http(box: Sandbox, clerk: httpx.AsyncClient) -> None:
    await ordered(clerk, "/instance", {"environment": "production"})
    await ordered(clerk, "/instance", {"session_claims": {"plan": "{{user.public_metadata.plan}}"}})
    assert (await clerk.get("/instance")).json()["environment_type"] == "production"
    assert box.clerk.session_claims == {"plan": "{{user.public_metadata.plan}}"}
    await ordered(clerk, "/reset")
    assert (box.clerk.environment, box.clerk.session_claims) == ("development", {})

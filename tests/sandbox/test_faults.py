from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING

import httpx
import pytest

from sync_worker.sandbox.faults import Faults
from sync_worker.sandbox.server import Sandbox
from sync_worker.sandbox.traffic import Traffic, subject_of
from sync_worker.transport import ssl_context
from tests.oracle import GUARD, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

METADATA = "/users/user_a/metadata"
BODY = {"public_metadata": {"plan": "pro"}}


@pytest.fixture
def ada(box: Sandbox) -> Sandbox:
    box.clerk.add_user("user_a")
    return box


def plan(box: Sandbox) -> Any:
    return box.clerk.users["user_a"]["public_metadata"].get("plan")


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ("rate_limited", 429, "too_many_requests"),
        ("locked", 409, "resource_locked"),
        ("conflict", 409, "conflict"),
        ("unauthorized", 401, "clerk_key_invalid"),
        ("forbidden", 403, "authorization_invalid"),
        ("internal", 500, "internal_clerk_error"),
        ("unavailable", 503, "service_unavailable"),
        ("error_in_ok", 200, "internal_clerk_error"),
    ],
)
async def test_an_answer_can_be_replaced_and_then_nothing_is_applied(
    ada: Sandbox, clerk: httpx.AsyncClient, fault: str, status: int, code: str
) -> None:
    ada.clerk.faults.next(fault)
    answer = await clerk.patch(METADATA, json=BODY)
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (status, code)
    assert plan(ada) is None
    assert (await clerk.patch(METADATA, json=BODY)).status_code == 200


@pytest.mark.anyio
async def test_a_bad_gateway_answers_html(ada: Sandbox, clerk: httpx.AsyncClient) -> None:
    ada.clerk.faults.next("bad_gateway")
    answer = await clerk.get("/users")
    assert (answer.status_code, answer.headers["content-type"]) == (502, "text/html")


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("fault", "status"), [("unauthorized", 401), ("forbidden", 403), ("rate_limited", 429), ("internal", 500)]
)
async def test_sanity_misbehaves_in_its_own_words(
    box: Sandbox, sanity: httpx.AsyncClient, fault: str, status: int
) -> None:
    box.lake.faults.next(fault)
    answer = await sanity.get("/v2025-02-19/data/query/production", params={"query": "1"})
    assert answer.status_code == status
    assert "error" in answer.json()


@pytest.mark.anyio
async def test_retry_after_can_be_chosen(ada: Sandbox, clerk: httpx.AsyncClient) -> None:
    ada.clerk.faults.next("rate_limited", times=2, retry_after=7)
    answers = [await clerk.get("/users") for _ in range(3)]
    assert [answer.headers.get("retry-after") for answer in answers] == ["7", "7", None]


@pytest.mark.anyio
async def test_a_connection_can_break_before_the_change(ada: Sandbox, clerk: httpx.AsyncClient) -> None:
    ada.clerk.faults.next("reset")
    with pytest.raises(httpx.ReadError):
        await clerk.patch(METADATA, json=BODY)
    assert plan(ada) is None


@pytest.mark.anyio
async def test_an_answer_can_be_lost_after_the_change(ada: Sandbox, clerk: httpx.AsyncClient) -> None:
    ada.clerk.faults.next("lost")
    with pytest.raises(httpx.RemoteProtocolError):
        await clerk.patch(METADATA, json=BODY)
    assert plan(ada) == "pro"


@pytest.mark.anyio
async def test_an_answer_can_break_off_in_its_middle(ada: Sandbox, clerk: httpx.AsyncClient) -> None:
    ada.clerk.faults.next("truncated")
    with pytest.raises(httpx.RemoteProtocolError, match="without sending complete message body"):
        await clerk.patch(METADATA, json=BODY)
    assert plan(ada) == "pro"


@pytest.mark.anyio
async def test_a_request_can_hang_until_it_is_let_go(ada: Sandbox, clerk: httpx.AsyncClient) -> None:
    ada.clerk.faults.next("hang")
    with pytest.raises(httpx.ReadTimeout):
        await clerk.patch(METADATA, json=BODY, timeout=0.1)
    waiting = asyncio.create_task(clerk.get("/users"))
    assert (await waiting).status_code == 200
    assert plan(ada) is None


@pytest.mark.anyio
async def test_a_sandbox_ends_though_a_request_hangs() -> None:
    async with asyncio.timeout(GUARD), httpx.AsyncClient(verify=ssl_context(), trust_env=False) as client:
        async with Sandbox() as box:
            box.clerk.faults.next("hang")
            hanging = asyncio.create_task(client.get(f"{box.clerk_url}/v1/users"))
            while not box.clerk.faults.hits["hang"]:
                await asyncio.sleep(0.001)
        with pytest.raises(httpx.RemoteProtocolError):
            await hanging


@pytest.mark.anyio
async def test_a_fault_can_be_for_some_requests_only(ada: Sandbox, clerk: httpx.AsyncClient) -> None:
    ada.clerk.faults.next("internal", times=5, method="PATCH", path_prefix="/v1/users")
    assert (await clerk.get("/users")).status_code == 200
    assert (await clerk.patch(METADATA, json=BODY)).status_code == 500


@pytest.mark.anyio
async def test_a_fraction_of_the_requests_fails_until_it_is_cleared(ada: Sandbox, clerk: httpx.AsyncClient) -> None:
    ada.clerk.faults.some("unavailable", fraction=0.5)
    statuses = [(await clerk.get("/users")).status_code for _ in range(60)]
    assert 10 < statuses.count(503) < 50
    assert ada.clerk.faults.hits["unavailable"] == statuses.count(503)
    ada.clerk.faults.clear()
    assert {(await clerk.get("/users")).status_code for _ in range(10)} == {200}


@pytest.mark.anyio
async def test_a_request_to_a_slow_service_is_done_although_the_caller_left(
    ada: Sandbox, clerk: httpx.AsyncClient
) -> None:
    ada.clerk.faults.latency = 0.2
    with pytest.raises(httpx.ReadTimeout):
        await clerk.patch(METADATA, json=BODY, timeout=0.1)
    assert plan(ada) is None
    await until(lambda: plan(ada) == "pro")


@pytest.mark.anyio
async def test_a_request_that_is_held_is_applied_on_release_although_the_caller_left(
    ada: Sandbox, clerk: httpx.AsyncClient
) -> None:
    ada.clerk.faults.hold(method="PATCH", path_prefix="/v1/users/user_a")
    held = asyncio.create_task(clerk.patch(METADATA, json=BODY))
    await until(lambda: ada.clerk.faults.held == 1)
    held.cancel()
    with pytest.raises(asyncio.CancelledError):
        await held
    assert (await clerk.get("/users")).status_code == 200
    assert plan(ada) is None
    ada.clerk.faults.release()
    await until(lambda: plan(ada) == "pro")
    assert ada.clerk.faults.held == 0


@pytest.mark.anyio
@pytest.mark.parametrize("let_go", [Faults.release, Faults.clear])
async def test_who_waits_for_a_request_that_is_held_gets_the_answer_in_the_end(
    ada: Sandbox, clerk: httpx.AsyncClient, let_go: Callable[[Faults], None]
) -> None:
    ada.clerk.faults.hold()
    held = asyncio.create_task(clerk.patch(METADATA, json=BODY))
    await until(lambda: ada.clerk.faults.held == 1)
    let_go(ada.clerk.faults)
    assert (await held).json()["public_metadata"] == {"plan": "pro"}
    assert (await clerk.get("/users")).status_code == 200


@pytest.mark.anyio
async def test_only_so_many_requests_are_held(ada: Sandbox, clerk: httpx.AsyncClient) -> None:
    ada.clerk.faults.hold(1, method="PATCH")
    held = asyncio.create_task(clerk.patch(METADATA, json=BODY))
    await until(lambda: ada.clerk.faults.held == 1)
    await clerk.patch(METADATA, json={"public_metadata": {"plan": "team"}})
    assert plan(ada) == "team"
    ada.clerk.faults.release()
    await held
    assert plan(ada) == "pro"


@pytest.mark.anyio
async def test_latency_is_added_to_every_answer(ada: Sandbox, clerk: httpx.AsyncClient) -> None:
    ada.clerk.faults.latency = 0.05
    await clerk.get("/users")
    (request,) = ada.clerk.requests.requests
    assert request.ended - request.started >= 0.05


def test_a_fault_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="no such fault: earthquake"):
        Faults({}, Random(0)).next("earthquake")


@pytest.mark.anyio
async def test_every_request_is_logged_with_what_the_caller_saw(ada: Sandbox, clerk: httpx.AsyncClient) -> None:
    ada.clerk.faults.next("lost")
    with pytest.raises(httpx.RemoteProtocolError):
        await clerk.patch(METADATA, json=BODY)
    await clerk.get("/users", params={"limit": 1, "user_id": ["a", "b"]})
    await clerk.get("/users/user_none")
    seen = [(r.method, r.path, r.query, r.status, r.fault, r.written) for r in ada.clerk.requests.requests]
    assert seen == [
        ("PATCH", "/v1/users/user_a/metadata", (), 0, "lost", "user_a"),
        ("GET", "/v1/users", ("limit", "user_id", "user_id"), 200, "", ""),
        ("GET", "/v1/users/user_none", (), 404, "", ""),
    ]
    assert ada.clerk.requests.count() == 3
    assert ada.clerk.requests.count("GET") == 2
    assert ada.clerk.requests.count(path_prefix="/v1/users/") == 2
    ada.clerk.requests.clear()
    assert ada.clerk.requests.count() == 0


@pytest.mark.parametrize(
    ("path", "subject"),
    [
        ("/v1/users/user_a/metadata", "user_a"),
        ("/v1/organizations/org_a/metadata", "org_a"),
        ("/v1/organizations/org_a/memberships/user_a/metadata", "org_a/user_a"),
        ("/v1/organizations/org_a", "org_a"),
        ("/v1/organizations/org_a/memberships", ""),
        ("/v1/users/user_a/organization_memberships", ""),
        ("/v1/users", ""),
        ("/v2025-02-19/data/mutate/production", ""),
    ],
)
def test_a_path_shows_whom_it_is_about(path: str, subject: str) -> None:
    assert subject_of(path) == subject


def test_overlapping_writes_of_one_subject_are_found() -> None:
    traffic = Traffic()
    first = traffic.start("PATCH", "/v1/users/user_a/metadata", ())
    other = traffic.start("PATCH", "/v1/users/user_b/metadata", ())
    reading = traffic.start("GET", "/v1/users/user_a", ())
    for request in (other, reading, first):
        traffic.finish(request)
    assert traffic.overlaps() == []
    second = traffic.start("PATCH", "/v1/users/user_a", ())
    third = traffic.start("PATCH", "/v1/users/user_a", ())
    for request in (second, third):
        traffic.finish(request)
    assert traffic.overlaps() == [(second, third)]

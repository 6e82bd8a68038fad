"""What the stand-in refuses, it refuses with Clerk's status and Clerk's envelope."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from sync_worker.sandbox.clerk_errors import ANSWERS
from sync_worker.sandbox.limits import Limits
from tests.contract.specification import ANYWHERE, CLERK, ROUTES, UNDOCUMENTED, envelope_problems

if TYPE_CHECKING:
    import httpx

    from sync_worker.sandbox.server import Sandbox
    from tests.wire import Wire

pytestmark = pytest.mark.anyio


MANY = [f"x{n}" for n in range(101)]
LARGE = {"public_metadata": {"text": "x" * 8192}}
REFUSED: list[tuple[int, str, str, Any, dict[str, Any]]] = [
    (400, "GET", "/users", None, {"__clerk_api_version": "2026-05-12"}),
    (400, "POST", "/organizations/org_1/memberships", {"user_id": "user_1", "role": "org:member"}, {}),
    (404, "GET", "/users/user_nobody", None, {}),
    (404, "DELETE", "/users/user_nobody", None, {}),
    (404, "PATCH", "/users/user_nobody/metadata", {}, {}),
    (404, "PUT", "/users/user_nobody/metadata", {}, {}),
    (404, "GET", "/users/user_nobody/organization_memberships", None, {}),
    (404, "GET", "/users/user_1/billing/subscription", None, {}),
    (404, "GET", "/organizations/org_1/billing/subscription", None, {}),
    (404, "GET", "/organizations/org_nobody", None, {}),
    (404, "PATCH", "/organizations/org_nobody/metadata", {}, {}),
    (404, "GET", "/organizations/org_nobody/memberships", None, {}),
    (404, "PATCH", "/organizations/org_1/memberships/user_nobody", {"role": "org:member"}, {}),
    (404, "PATCH", "/organizations/org_1/memberships/user_nobody/metadata", {}, {}),
    (400, "POST", "/jwt_templates", {"name": "x", "claims": {"sub": "me"}}, {}),
    (404, "POST", "/sessions", {"user_id": "user_nobody"}, {}),
    (404, "POST", "/sessions", {"user_id": "user_1", "active_organization_id": "org_nobody"}, {}),
    (404, "POST", "/sessions/sess_nobody/revoke", None, {}),
    (404, "POST", "/sessions/sess_nobody/tokens", {}, {}),
    (404, "GET", "/jwt_templates/jtmp_nobody", None, {}),
    (404, "DELETE", "/jwt_templates/jtmp_nobody", None, {}),
    (422, "POST", "/sessions", {}, {}),
    (422, "POST", "/jwt_templates", {"name": "x"}, {}),
    (422, "POST", "/jwt_templates", {"name": "x", "claims": {"a": 1}, "lifetime": 29}, {}),
    (422, "GET", "/users", None, {"limit": 501}),
    (422, "GET", "/users", None, {"user_id": MANY}),
    (422, "GET", "/users/count", None, {"external_id": MANY}),
    (422, "GET", "/organizations", None, {"organization_id": MANY}),
    (422, "GET", "/organizations/org_1/memberships", None, {"user_id": MANY}),
    (422, "GET", "/users", None, {"order_by": "plan"}),
    (422, "GET", "/users", None, {"starting_after": "user_1", "order_by": "username"}),
    (422, "POST", "/users", {"email_address": ["ada@example.com"]}, {}),
    (422, "POST", "/organizations", {}, {}),
    (422, "PATCH", "/users/user_1", {"public_metadata": {}}, {}),
    (422, "PATCH", "/users/user_1/metadata", {"plan": "pro"}, {}),
    (422, "PATCH", "/users/user_1/metadata", {"public_metadata": "x"}, {}),
    (422, "PATCH", "/users/user_1/metadata", LARGE, {}),
    (422, "PATCH", "/organizations/org_1/metadata", LARGE, {}),
    (422, "PATCH", "/organizations/org_1/memberships/user_1/metadata", LARGE, {}),
    (422, "PATCH", "/organizations/org_1/memberships/user_1", {"role": "org:king"}, {}),
]


@pytest.fixture
def somebody(box: Sandbox) -> None:
    """One user, who is the member of one organization."""
    box.clerk.add_user("user_1", email="ada@example.com")
    box.clerk.add_organization("org_1")
    box.clerk.add_membership("org_1", "user_1")


@pytest.mark.usefixtures("somebody")
async def test_a_refusal_has_clerks_status_and_envelope(client: httpx.AsyncClient, wire: Wire) -> None:
    for status, method, path, body, query in REFUSED:
        answer = await client.request(method, path, json=body, params=query)
        operation = CLERK.find(method, path)
        assert operation is not None
        documented = {int(code) for code in operation.responses} | UNDOCUMENTED.get((method, operation.path), set())
        assert answer.status_code == status, (method, path, body, query)
        assert status in documented | ANYWHERE, (method, path)
    assert [problem for exchange in wire.exchanges for problem in envelope_problems(exchange)] == []


@pytest.mark.usefixtures("somebody")
async def test_a_field_that_clerk_does_not_know_is_refused(client: httpx.AsyncClient, wire: Wire) -> None:
    body = {"user_id": "user_1", "role": "org:member", "name": "x", "no_such_field": 1}
    for method, path in ROUTES:
        if method in {"POST", "PUT", "PATCH"}:
            somewhere = path.format(user="user_1", organization="org_1", session="sess_1", template="jtmp_1")
            answer = await client.request(method, somewhere, json=body)
            assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, "form_param_unknown"), path
    assert [problem for exchange in wire.exchanges for problem in envelope_problems(exchange)] == []


async def test_what_goes_wrong_at_clerk_has_its_envelope_too(
    client: httpx.AsyncClient, wire: Wire, box: Sandbox
) -> None:
    for fault in ANSWERS.keys() - {"bad_gateway"}:
        box.clerk.faults.next(fault)
        await client.patch("/users/user_1/metadata", json={})
    assert len(wire.exchanges) == len(ANSWERS) - 1
    assert [problem for exchange in wire.exchanges for problem in envelope_problems(exchange)] == []


@pytest.mark.parametrize("limits", [Limits(instance=1), Limits(subject=1)])
async def test_a_caller_over_a_limit_gets_retry_after_in_whole_seconds(
    client: httpx.AsyncClient, wire: Wire, box: Sandbox, limits: Limits
) -> None:
    box.clerk.add_user("user_1")
    box.clerk.limiter.limits = limits
    for _ in range(2):
        await client.patch("/users/user_1/metadata", json={})
    allowed, refused = wire.exchanges
    assert (allowed.status, refused.status) == (200, 429)
    assert refused.headers["retry-after"].isdigit()
    assert 1 <= int(refused.headers["retry-after"]) <= 10
    assert envelope_problems(refused) == []

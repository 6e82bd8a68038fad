"""Clerk's OpenAPI file against both sides of the wire: what our adapter sends, and what the stand-in answers.

What is checked is what really passes between them, not a list made by hand.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from sync_worker.clerk.client import Clerk
from sync_worker.clerk.tokens import JwtTemplate
from sync_worker.domain.entitlements import Change, ChangeKind
from sync_worker.domain.subjects import Kind, Subject
from sync_worker.sandbox.clerk_billing import subscribe
from tests.contract.specification import CLERK, ROUTES, differences, route_of
from tests.parts import opened
from tests.wire import Wire, tapped

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    import httpx

    from sync_worker.sandbox.server import Sandbox

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_every_route_of_the_stand_in_exists_at_clerk(method: str, path: str) -> None:
    found = CLERK.find(method, path)
    assert found is not None
    assert re.sub(r"{\w+}", "", found.path) == re.sub(r"{\w+}", "", path)


async def _observes(target: Clerk, somebody: Sequence[Subject]) -> None:
    assert set(await target.observe(somebody)) == set(somebody)


async def _applies(target: Clerk, somebody: Sequence[Subject]) -> None:
    marker: dict[str, object] = {"entitlementSync": {"sources": ["e1"], "fingerprint": "f", "at": "t"}}
    for subject in {one.kind: one for one in somebody}.values():
        public: dict[str, object] = {"plan": "pro", "role": None, "courseSlugs": ["algebra"]}
        await target.apply(Change(subject, ChangeKind.GRANT, {}, public, public=public, private=marker))
        await target.apply(Change(subject, ChangeKind.REVOKE, public, {}, public={"plan": None}))


async def _sweeps(target: Clerk, somebody: Sequence[Subject]) -> None:
    seen = {observed.subject async for page in target.sweep() for observed in page}
    assert set(somebody) <= seen


async def _finds(target: Clerk, _: Sequence[Subject]) -> None:
    addresses = [
        *(Subject(Kind.EMAIL, f"u{n}@example.com") for n in range(101)),
        *(Subject(Kind.EXTERNAL, f"-ext-{n}") for n in range(101)),
    ]
    assert set((await target.find(addresses)).users) == set(addresses)


async def _asks_for_the_instance(target: Clerk, _: Sequence[Subject]) -> None:
    assert await target.instance()


async def _lists_the_memberships_of_a_user(target: Clerk, _: Sequence[Subject]) -> None:
    assert await target.memberships("user_000") == (Subject.membership("org_000", "user_000"),)


async def _says_who_has_an_address_that_does_not_count(target: Clerk, _: Sequence[Subject]) -> None:
    assert await target.uncounted(Subject(Kind.EMAIL, "u0@example.com")) == {}


USES: dict[str, Callable[[Clerk, Sequence[Subject]], Awaitable[None]]] = {
    "observe": _observes,
    "apply": _applies,
    "sweep": _sweeps,
    "find": _finds,
    "instance": _asks_for_the_instance,
    "memberships": _lists_the_memberships_of_a_user,
    "uncounted": _says_who_has_an_address_that_does_not_count,
}


def test_every_use_of_the_adapter_is_tried_here() -> None:
    offline = {"warm_up", "sdk"}
    assert USES.keys() == {name for name in vars(Clerk) if not name.startswith("_")} - offline


@pytest.mark.parametrize("use", USES)
async def test_what_the_adapter_sends_and_reads_is_as_clerk_specifies_it(
    box: Sandbox, sqlite_url: str, use: str
) -> None:
    users = [box.clerk.add_user(f"user_{n:03}", email=f"u{n}@example.com", external_id=f"-ext-{n}") for n in range(501)]
    organizations = [box.clerk.add_organization(f"org_{n:03}") for n in range(101)]
    for user in users[:101]:
        box.clerk.add_membership("org_000", user)
    somebody = [
        *(Subject(Kind.USER, user) for user in users[:101]),
        *(Subject(Kind.ORGANIZATION, organization) for organization in organizations),
        *(Subject.membership("org_000", user) for user in users[:101]),
    ]
    async with opened(box, sqlite_url) as parts:
        wire = tapped(parts.services.target._client, Wire)
        await USES[use](parts.services.target, somebody)
    assert wire.exchanges
    assert {(e.method, e.path) for e in wire.exchanges} == {(r.method, r.path) for r in box.clerk.requests.select()}
    assert differences(wire.exchanges) == []


async def test_what_the_directory_sends_and_reads_is_as_clerk_specifies_it(box: Sandbox, sqlite_url: str) -> None:
    box.clerk.add_user("user_1", email="ada@example.com")
    box.clerk.add_organization("org_1", name="Acme")
    async with opened(box, sqlite_url) as parts:
        wire, directory = tapped(parts.services.target._client, Wire), parts.services.directory
        assert await directory.search_people("ada") == await directory.people(["user_1"])
        assert await directory.search_organizations("acm") == await directory.organizations(["org_1"])
    assert len(wire.exchanges) == 4
    assert differences(wire.exchanges) == []


async def test_what_billing_sends_and_reads_is_as_clerk_specifies_it(box: Sandbox, sqlite_url: str) -> None:
    subscribe(box.clerk, box.clerk.add_user("user_1"), gold="active")
    subscribe(box.clerk, box.clerk.add_organization("org_1"), team="upcoming")
    async with opened(box, sqlite_url) as parts:
        wire, billing = tapped(parts.services.target._client, Wire), parts.services.billing
        for subject in (Subject(Kind.USER, "user_1"), Subject(Kind.ORGANIZATION, "org_1")):
            assert (await billing.subscription(subject)) is not None
    assert len(wire.exchanges) == 2
    assert differences(wire.exchanges) == []


async def test_what_the_client_of_tokens_sends_and_reads_is_as_clerk_specifies_it(
    box: Sandbox, sqlite_url: str
) -> None:
    box.clerk.add_user("user_1")
    box.clerk.add_organization("org_1")
    box.clerk.add_membership("org_1", "user_1")
    async with opened(box, sqlite_url) as parts:
        wire, tokens = tapped(parts.services.target._client, Wire), parts.services.tokens
        await tokens.person("user_1", "org_1")
        saved = await tokens.save(JwtTemplate("", "plain", {"plan": "{{user.public_metadata.plan}}"}, 60, 5))
        await tokens.save(saved)
        assert await tokens.templates() == [saved]
        await tokens.require_development()
        for organization in ("", "org_1"):
            session = await tokens.create_session("user_1", organization)
            assert await tokens.active_sessions("user_1")
            assert await tokens.signed_claims(session)
            assert await tokens.signed_claims(session, "plain")
            await tokens.revoke_session(session)
    assert differences(wire.exchanges) == []


async def test_every_answer_of_the_stand_in_is_as_clerk_specifies_it(
    client: httpx.AsyncClient, wire: Wire, box: Sandbox
) -> None:
    async def call(method: str, path: str, body: Any = None, **query: Any) -> Any:
        answer = await client.request(method, path, json=body, params=query)
        assert answer.is_success, answer.text
        return answer.json()

    metadata = {"public_metadata": {"plan": "pro"}, "private_metadata": {"n": {"x": 1}}}
    ada = await call("POST", "/users", {"email_address": ["ada@example.com"], "external_id": "a", **metadata})
    await call(
        *("POST", "/users"),
        {"email_address": ["bob@example.com"], "email_address_identification_status": ["reserved"]},
    )
    box.clerk.add_user(email="eve@example.com", verified=False)
    box.clerk.add_user(banned=True, username="nobody")
    user = f"/users/{ada['id']}"
    await call("GET", user)
    await call("PATCH", user, {"first_name": "Ada"})
    await call("PATCH", f"{user}/metadata", {**metadata, "unsafe_metadata": {"theme": None}})
    await call("PUT", f"{user}/metadata", {"public_metadata": {}})
    filters: dict[str, Any] = {"user_id": [ada["id"], "-user_nobody"], "external_id": "a", "banned": "false"}
    for more in (
        {},
        filters,
        {"email_address": ["ada@example.com"]},
        {"organization_id": ["-org_nobody"]},
        {"query": "ada"},
    ):
        await call("GET", "/users", limit=500, order_by="+created_at", **more)
        await call("GET", "/users/count", **more)
    await call("GET", "/users", limit=1, starting_after=ada["id"])

    acme = await call("POST", "/organizations", {"name": "Acme", "created_by": ada["id"], **metadata})
    organization = f"/organizations/{acme['id']}"
    await call("GET", organization, include_members_count="true")
    await call("PATCH", organization, {"name": "Acme Ltd", "slug": "acme"})
    await call("PATCH", f"{organization}/metadata", metadata)
    await call("PUT", f"{organization}/metadata", metadata)
    await call(
        "GET", "/organizations", organization_id=[acme["id"]], user_id=[ada["id"]], limit=100, offset=0, query="acme"
    )

    (eve,) = await call("GET", "/users", email_address=["eve@example.com"])
    await call("POST", f"{organization}/memberships", {"user_id": eve["id"], "role": "org:member", **metadata})
    membership = f"{organization}/memberships/{eve['id']}"
    await call("PATCH", membership, {"role": "org:admin"})
    await call("PATCH", f"{membership}/metadata", metadata)
    await call("GET", "/organization_memberships", limit=500, offset=0, order_by="+created_at")
    await call("GET", f"{organization}/memberships", user_id=[eve["id"]], role=["org:admin"], limit=100)
    await call("GET", f"/users/{eve['id']}/organization_memberships", limit=10)
    await _use_sessions_and_templates(call, eve["id"], acme["id"])

    for payer, path in ((ada["id"], user), (acme["id"], organization)):
        subscribe(box.clerk, payer, gold="active")
        await call("GET", f"{path}/billing/subscription")

    await call("DELETE", membership)
    await call("DELETE", organization)
    await call("DELETE", user)

    await call("GET", "/instance")

    requested = {(e.method, route_of(e.method, e.path)) for e in wire.exchanges}
    assert requested == set(ROUTES)
    assert differences(wire.exchanges) == []


async def _use_sessions_and_templates(call: Callable[..., Awaitable[Any]], user_id: str, organization_id: str) -> None:
    template = {"name": "plain", "claims": {"plan": "{{user.public_metadata.plan}}"}}
    made = await call("POST", "/jwt_templates", template)
    await call("GET", "/jwt_templates", limit=100, offset=0)
    await call("GET", f"/jwt_templates/{made['id']}")
    await call("PATCH", f"/jwt_templates/{made['id']}", {**template, "lifetime": 600, "allowed_clock_skew": 0})
    session = await call("POST", "/sessions", {"user_id": user_id, "active_organization_id": organization_id})
    await call("GET", "/sessions", user_id=user_id, status="active")
    await call("GET", f"/sessions/{session['id']}")
    await call("POST", f"/sessions/{session['id']}/tokens", {"expires_in_seconds": 30})
    await call("POST", f"/sessions/{session['id']}/tokens/plain", {})
    await call("POST", f"/sessions/{session['id']}/revoke")
    await call("DELETE", f"/jwt_templates/{made['id']}")
    await call("GET", "/jwks")

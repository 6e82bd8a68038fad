from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.sandbox.answers import codes

if TYPE_CHECKING:
    import httpx

    from sync_worker.sandbox.server import Sandbox


@pytest.fixture
def school(box: Sandbox) -> Sandbox:
    """Two organizations; Ada is in both, Alan in the first."""
    for id_, slug in (("org_a", "alpha"), ("org_b", "beta")):
        box.clerk.add_organization(id_, name=slug.title(), slug=slug)
    for user in ("user_ada", "user_alan"):
        box.clerk.add_user(user, email=f"{user}@example.com")
    box.clerk.add_membership("org_a", "user_ada", role="org:admin")
    box.clerk.add_membership("org_a", "user_alan", public_metadata={"seat": 1})
    box.clerk.add_membership("org_b", "user_ada")
    return box


@pytest.mark.anyio
@pytest.mark.usefixtures("school")
async def test_organizations_are_listed_with_their_total(clerk: httpx.AsyncClient) -> None:
    answer = (await clerk.get("/organizations", params={"limit": 1, "order_by": "name"})).json()
    assert ([one["id"] for one in answer["data"]], answer["total_count"]) == (["org_a"], 2)
    params: dict[str, Any] = {"organization_id": ["org_b", "org_none"], "include_members_count": "true"}
    answer = (await clerk.get("/organizations", params=params)).json()
    assert [(one["id"], one["members_count"]) for one in answer["data"]] == [("org_b", 1)]
    answer = (await clerk.get("/organizations", params={"user_id": ["user_alan"]})).json()
    assert [one["id"] for one in answer["data"]] == ["org_a"]


@pytest.mark.anyio
@pytest.mark.usefixtures("school")
async def test_an_organization_is_found_by_id_and_by_slug(clerk: httpx.AsyncClient) -> None:
    assert (await clerk.get("/organizations/org_a")).json()["slug"] == "alpha"
    assert (await clerk.get("/organizations/beta")).json()["id"] == "org_b"
    assert codes(await clerk.get("/organizations/gamma"))[:2] == (404, "resource_not_found")
    by_slug = await clerk.patch("/organizations/beta/metadata", json={"public_metadata": {}})
    assert by_slug.status_code == 404


@pytest.mark.anyio
async def test_organization_metadata_is_merged_and_replaced(school: Sandbox, clerk: httpx.AsyncClient) -> None:
    await clerk.patch("/organizations/org_a/metadata", json={"public_metadata": {"plan": "x", "n": {"a": 1}}})
    await clerk.patch("/organizations/org_a/metadata", json={"public_metadata": {"plan": None, "n": {"b": 2}}})
    assert school.clerk.organizations["org_a"]["public_metadata"] == {"n": {"a": 1, "b": 2}}
    await clerk.put("/organizations/org_a/metadata", json={"public_metadata": {}})
    assert school.clerk.organizations["org_a"]["public_metadata"] == {}
    unsafe = await clerk.patch("/organizations/org_a/metadata", json={"unsafe_metadata": {}})
    assert codes(unsafe) == (422, "form_param_unknown", "unsafe_metadata")
    parent = await clerk.patch("/organizations/org_a", json={"public_metadata": {}})
    assert codes(parent) == (422, "form_param_unknown", "public_metadata")


@pytest.mark.anyio
@pytest.mark.usefixtures("school")
async def test_members_are_listed_by_organization_user_and_instance(clerk: httpx.AsyncClient) -> None:
    async def found(path: str, **params: Any) -> set[tuple[str, str]]:
        answer = (await clerk.get(path, params={"limit": 100, **params})).json()
        assert answer["total_count"] == len(answer["data"])
        return {(one["organization"]["id"], one["public_user_data"]["user_id"]) for one in answer["data"]}

    ada, alan, beta = ("org_a", "user_ada"), ("org_a", "user_alan"), ("org_b", "user_ada")
    assert await found("/organization_memberships") == {ada, alan, beta}
    assert await found("/organizations/org_a/memberships") == {ada, alan}
    assert await found("/organizations/org_a/memberships", user_id=["user_alan", "user_none"]) == {alan}
    assert await found("/organizations/org_a/memberships", role=["org:admin"]) == {ada}
    assert await found("/users/user_ada/organization_memberships") == {ada, beta}


@pytest.mark.anyio
async def test_a_membership_has_its_own_metadata(school: Sandbox, clerk: httpx.AsyncClient) -> None:
    address = "/organizations/org_a/memberships/user_alan/metadata"
    answer = await clerk.patch(address, json={"public_metadata": {"plan": "pro"}})
    assert answer.json()["public_metadata"] == {"seat": 1, "plan": "pro"}
    assert school.clerk.users["user_alan"]["public_metadata"] == {}
    assert (await clerk.put(address, json={})).status_code == 405


@pytest.mark.anyio
@pytest.mark.usefixtures("school")
async def test_roles_change_among_those_that_exist(clerk: httpx.AsyncClient) -> None:
    address = "/organizations/org_a/memberships/user_alan"
    assert (await clerk.patch(address, json={"role": "org:admin"})).json()["role"] == "org:admin"
    assert (await clerk.patch(address, json={"role": "org:king"})).status_code == 422
    assert codes(await clerk.patch(address, json={})) == (422, "form_param_missing", "role")
    nobody = await clerk.patch("/organizations/org_b/memberships/user_alan", json={"role": "org:admin"})
    assert codes(nobody)[:2] == (404, "resource_not_found")


@pytest.mark.anyio
async def test_members_come_and_go(school: Sandbox, clerk: httpx.AsyncClient) -> None:
    body = {"user_id": "user_alan", "role": "org:member"}
    assert (await clerk.post("/organizations/org_b/memberships", json=body)).status_code == 200
    again = await clerk.post("/organizations/org_b/memberships", json=body)
    assert codes(again)[:2] == (400, "already_a_member_in_organization")
    assert (await clerk.delete("/organizations/org_b/memberships/user_alan")).status_code == 200
    assert ("org_b", "user_alan") not in school.clerk.memberships


@pytest.mark.anyio
async def test_deleting_a_user_or_an_organization_ends_memberships(school: Sandbox, clerk: httpx.AsyncClient) -> None:
    await clerk.delete("/users/user_ada")
    assert set(school.clerk.memberships) == {("org_a", "user_alan")}
    gone = await clerk.delete("/organizations/org_a")
    assert gone.json() == {"object": "organization", "id": "org_a", "deleted": True, "slug": "alpha"}
    assert school.clerk.memberships == {}


@pytest.mark.anyio
async def test_the_creator_of_an_organization_is_its_admin(school: Sandbox, clerk: httpx.AsyncClient) -> None:
    created = (await clerk.post("/organizations", json={"name": "New", "created_by": "user_alan"})).json()
    assert school.clerk.memberships[created["id"], "user_alan"]["role"] == "org:admin"
    assert codes(await clerk.post("/organizations", json={})) == (422, "form_param_missing", "name")

"""Clerk's own Python SDK, which refuses bodies that lack one of their required fields, reads every answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest
from clerk_backend_api import Clerk, models

from sync_worker.sandbox import sample
from sync_worker.sandbox.clerk_billing import subscribe
from sync_worker.transport import ssl_context

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sync_worker.sandbox.server import Sandbox


@pytest.fixture
async def sdk(box: Sandbox) -> AsyncIterator[Clerk]:
    await sample.load_sample(box)
    async with httpx.AsyncClient(verify=ssl_context(), trust_env=False) as client:
        yield Clerk(
            bearer_auth=box.clerk.secret_key, server_url=f"{box.clerk_url}/v1", async_client=client, retry_config=None
        )


@pytest.mark.anyio
async def test_users(sdk: Clerk) -> None:
    assert (await sdk.users.get_async(user_id="user_ada")).first_name == "Ada"
    patched = await sdk.users.update_metadata_async(user_id="user_ada", public_metadata={"a": {"b": 1, "c": 2}})
    assert patched.public_metadata == {"a": {"b": 1, "c": 2}}
    patched = await sdk.users.update_metadata_async(user_id="user_ada", public_metadata={"a": {"b": None}})
    assert patched.public_metadata == {"a": {"c": 2}}
    replaced = await sdk.users.replace_metadata_async(user_id="user_ada", public_metadata={"z": 1})
    assert replaced.public_metadata == {"z": 1}


@pytest.mark.anyio
# The SDK reads a deprecated field of its own request.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_a_list_of_users(sdk: Clerk) -> None:
    users = await sdk.users.list_async(request=models.GetUserListRequest(user_id=["user_ada", "user_none"], limit=100))
    assert [user.id for user in users or ()] == ["user_ada"]


@pytest.mark.anyio
@pytest.mark.parametrize("status", ["verified", "reserved"])
async def test_a_user_with_either_kind_of_address(sdk: Clerk, status: str) -> None:
    kind = models.EmailAddressIdentificationStatus(status)
    user = await sdk.users.create_async(email_address=["new@example.com"], email_address_identification_status=[kind])
    assert user.email_addresses[0].reserved is (status == "reserved")
    deleted = await sdk.users.delete_async(user_id=user.id)
    assert deleted.deleted


@pytest.mark.anyio
async def test_a_subscription(sdk: Clerk, box: Sandbox) -> None:
    subscribe(box.clerk, "user_ada", gold="active")
    found = await sdk.users.get_billing_subscription_async(user_id="user_ada")
    assert [(item.plan and item.plan.slug, item.status) for item in found.subscription_items] == [("gold", "active")]


@pytest.mark.anyio
async def test_organizations(sdk: Clerk) -> None:
    assert (await sdk.organizations.get_async(organization_id="riverside-school")).id == "org_school"
    merged = await sdk.organizations.merge_metadata_async(organization_id="org_school", public_metadata={"plan": "x"})
    assert merged.public_metadata == {"plan": "x"}
    replaced = await sdk.organizations.replace_metadata_async(organization_id="org_school", public_metadata={})
    assert replaced.public_metadata == {}
    listed = await sdk.organizations.list_async(limit=10, offset=0, organization_id=["org_school"])
    assert [one.id for one in listed.data] == ["org_school"]


@pytest.mark.anyio
async def test_memberships(sdk: Clerk) -> None:
    memberships = sdk.organization_memberships
    assert (await memberships.list_async(organization_id="org_school", limit=10, offset=0)).total_count == 2
    school, alan = "org_school", "user_alan"
    assert (await memberships.update_async(organization_id=school, user_id=alan, role="org:admin")).role == "org:admin"
    patched = await memberships.update_metadata_async(organization_id=school, user_id=alan, public_metadata={"seat": 1})
    assert patched.public_metadata == {"seat": 1}
    assert (await sdk.users.get_organization_memberships_async(user_id="user_alan")).total_count == 1
    assert (await sdk.users.get_instance_organization_memberships_async(limit=10, offset=0)).total_count == 2
    assert (await memberships.delete_async(organization_id=school, user_id=alan)).role == "org:admin"
    assert (
        await memberships.create_async(organization_id=school, user_id=alan, role="org:member")
    ).role == "org:member"


@pytest.mark.anyio
async def test_errors(sdk: Clerk) -> None:
    with pytest.raises(models.ClerkErrors) as missing:
        await sdk.users.get_async(user_id="user_none")
    assert (missing.value.status_code, missing.value.data.errors[0].code) == (404, "resource_not_found")
    with pytest.raises(models.ClerkErrors) as large:
        await sdk.users.update_metadata_async(user_id="user_ada", public_metadata={"x": "y" * 9000})
    assert large.value.data.errors[0].code == "form_param_exceeds_allowed_size"

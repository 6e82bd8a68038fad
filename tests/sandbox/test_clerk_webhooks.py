from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from svix.webhooks import Webhook, WebhookVerificationError

from sync_worker.sandbox.clerk_webhooks import POLICY, Endpoint
from tests.oracle import GUARD

if TYPE_CHECKING:
    import httpx

    from sync_worker.sandbox.server import Sandbox
    from tests.sandbox.conftest import Receiver

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.fixture
def reported(box: Sandbox, receiver: Receiver) -> Sandbox:
    """A sandbox that reports every change in Clerk to the receiver."""
    box.clerk.webhooks.endpoints.append(Endpoint(receiver.url, SECRET))
    return box


async def events(box: Sandbox, receiver: Receiver) -> list[tuple[str, Any]]:
    async with asyncio.timeout(GUARD):
        await box.clerk.webhooks.deliveries.idle()
    bodies = [json.loads(received.body) for received in receiver.received]
    return [(body["type"], body["data"]) for body in bodies]


@pytest.mark.anyio
async def test_svix_itself_verifies_the_signature(reported: Sandbox, receiver: Receiver) -> None:
    reported.clerk.add_user("user_a", email="å@example.com", private_metadata={"k": 1})
    await events(reported, receiver)
    (received,) = receiver.received
    Webhook(SECRET).verify(received.body, received.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(received.body + b" ", received.headers)
    envelope = json.loads(received.body)
    assert (envelope["object"], envelope["instance_id"]) == ("event", "ins_sandbox")
    assert envelope["data"]["private_metadata"] == {"k": 1}


@pytest.mark.anyio
async def test_every_change_of_a_user_is_sent(reported: Sandbox, receiver: Receiver, clerk: httpx.AsyncClient) -> None:
    reported.clerk.add_user("user_a", external_id="x")
    await clerk.patch("/users/user_a/metadata", json={"public_metadata": {"plan": "pro"}})
    reported.clerk.delete_user("user_a")
    created, updated, deleted = await events(reported, receiver)
    assert (created[0], created[1]["public_metadata"]) == ("user.created", {})
    assert (updated[0], updated[1]["public_metadata"]) == ("user.updated", {"plan": "pro"})
    assert deleted == ("user.deleted", {"object": "user", "id": "user_a", "deleted": True, "external_id": "x"})


@pytest.mark.anyio
async def test_changes_of_organizations_and_memberships_are_sent(reported: Sandbox, receiver: Receiver) -> None:
    reported.clerk.add_user("user_a")
    reported.clerk.add_organization("org_a", slug="alpha")
    reported.clerk.add_membership("org_a", "user_a")
    reported.clerk.set_role("org_a", "user_a", "org:admin")
    reported.clerk.delete_organization("org_a")
    found = await events(reported, receiver)
    assert [name for name, _ in found] == [
        "user.created",
        "organization.created",
        "organizationMembership.created",
        "organizationMembership.updated",
        "organizationMembership.deleted",
        "organization.deleted",
    ]
    deleted = found[4][1]
    assert (deleted["organization"]["id"], deleted["public_user_data"]["user_id"]) == ("org_a", "user_a")


@pytest.mark.anyio
async def test_an_endpoint_gets_only_the_events_it_wants(box: Sandbox, receiver: Receiver) -> None:
    box.clerk.webhooks.endpoints.append(Endpoint(receiver.url, SECRET, frozenset({"user.deleted"})))
    box.clerk.add_user("user_a")
    box.clerk.delete_user("user_a")
    assert [name for name, _ in await events(box, receiver)] == ["user.deleted"]


@pytest.mark.anyio
@pytest.mark.parametrize("status", [301, 400, 401, 500])
async def test_everything_but_a_2xx_is_repeated_under_the_same_id(
    reported: Sandbox, receiver: Receiver, status: int
) -> None:
    reported.clerk.webhooks.deliveries.policy = replace(POLICY, retry_delays=(0.01,) * 7)
    receiver.statuses = [status, status]
    reported.clerk.add_user("user_a")
    await events(reported, receiver)
    assert len(receiver.received) == 3
    assert len({received.headers["svix-id"] for received in receiver.received}) == 1

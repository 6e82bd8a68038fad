"""POST /webhooks/clerk: what Clerk's events enqueue, and what is refused."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs
from svix.webhooks import Webhook

from sync_worker.domain.entitlements import CORE_FIELDS, Layout, Slot
from sync_worker.domain.ownership import fingerprint
from sync_worker.webhooks.clerk_events import ECHO_LANE, INSTANCE, items_of, parse_event
from sync_worker.webhooks.receiver import BODY_LIMIT
from tests.clock import TIMINGS
from tests.webhooks.receiver import Web, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx


pytestmark = pytest.mark.anyio
VECTORS: dict[str, Any] = json.loads(Path(__file__).parents[1].joinpath("data", "svix.json").read_text())
SECRET: str = VECTORS["vectors"][0]["secret"]
LAYOUT = Layout(CORE_FIELDS)
NOW = 1_800_000_000.0


@dataclass(frozen=True)
class Svix:
    """The application on SQLite, as Svix sees it."""

    web: Web

    async def post(self, body: bytes | dict[str, Any], **headers: str) -> httpx.Response:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        now = datetime.now(UTC)
        signed = {
            "svix-id": "msg_1",
            "svix-timestamp": str(int(now.timestamp())),
            "svix-signature": Webhook(SECRET).sign("msg_1", now, raw.decode("utf-8", "replace")),
        }
        return await self.web.client.post("/webhooks/clerk", content=raw, headers=signed | headers)


@pytest.fixture
async def svix(sqlite_url: str) -> AsyncIterator[Svix]:
    async with serving(sqlite_url, clerk_webhook_secret=SECRET) as web:
        yield Svix(web)


def event(type_: str, **data: Any) -> dict[str, Any]:
    return {"object": "event", "type": type_, "instance_id": "ins_1", "timestamp": 1_767_225_600_000, "data": data}


def membership(type_: str) -> dict[str, Any]:
    return event(type_, organization={"id": "org_1"}, public_user_data={"user_id": "user_1"})


async def test_the_item_carries_clerks_id_of_the_delivery(svix: Svix) -> None:
    await svix.post(event("user.created", id="user_1"))
    (claim,) = await svix.web.queue.claim(0, 10, 30.0)
    assert (str(claim.cause), claim.delivery) == ("clerk:user.created", "msg_1")


@pytest.mark.parametrize("action", ["created", "updated", "deleted"])
@pytest.mark.parametrize(
    ("what", "data", "key"),
    [
        ("user", {"id": "user_1"}, "user:user_1"),
        ("organization", {"id": "org_1"}, "org:org_1"),
        (
            "organizationMembership",
            {"organization": {"id": "org_1"}, "public_user_data": {"user_id": "user_1"}},
            "membership:org_1/user_1",
        ),
    ],
)
async def test_the_subject_of_an_event_is_enqueued(
    svix: Svix, action: str, what: str, data: dict[str, Any], key: str
) -> None:
    response = await svix.post(event(f"{what}.{action}", **data))
    assert (response.status_code, response.json(), await svix.web.enqueued()) == (202, {"ok": True}, [key])


@pytest.mark.parametrize(
    "type_", ["session.created", "subscription.active", "user.renamed", "organizationInvitation.created", "user", ""]
)
async def test_an_event_of_another_type_is_accepted_and_enqueues_nothing(svix: Svix, type_: str) -> None:
    with capture_logs() as lines:
        response = await svix.post(event(type_, id="user_1"))
    assert (response.status_code, await svix.web.enqueued()) == (202, [])
    assert [one["reason"] for one in lines if "reason" in one] == ["this type of event changes no access"]


async def test_events_of_another_instance_are_ignored(svix: Svix) -> None:
    await svix.web.queue.remember(INSTANCE, "ins_1")
    with capture_logs() as lines:
        answers = [await svix.post(event("user.created", id=f"user_{n}") | {"instance_id": f"ins_{n}"}) for n in (1, 2)]
    (line,) = [one for one in lines if one["event"] == "webhook_ignored"]
    assert line["reason"] == "it is from the instance ins_2, and CLERK_SECRET_KEY is of ins_1"
    assert [answer.status_code for answer in answers] == [202, 202]
    assert await svix.web.enqueued() == ["user:user_1"]


@pytest.mark.parametrize(
    "body",
    [
        b"no json",
        b"[]",
        b'{"type": "user.created"}',
        b'{"type": "user.created", "data": {}}',
        b'{"type": "user.created", "data": {"id": "../organizations/org_1"}}',
        b'{"type": "user.created", "data": {"id": 7}}',
        b'{"type": "organizationMembership.created", "data": {"id": "orgmem_1"}}',
        b'{"type": "organizationMembership.created", "data": {"organization": [], "public_user_data": null}}',
        b'{"type": ["user.created"], "data": {"id": "user_1"}}',
        b"[" * 100_000,
    ],
)
async def test_what_is_signed_but_not_of_clerks_shape_is_400(svix: Svix, body: bytes) -> None:
    response = await svix.post(body)
    assert (response.status_code, response.json(), await svix.web.enqueued()) == (400, {"error": "bad_body"}, [])


async def test_without_a_good_signature_nothing_is_enqueued(svix: Svix) -> None:
    body = event("user.created", id="user_1")
    for headers in (
        {"svix-signature": "v1,AAAA"},
        {"svix-signature": "garbage"},
        {"svix-id": "msg_2"},
        {"svix-timestamp": "0"},
        {"svix-timestamp": "now"},
    ):
        response = await svix.post(body, **headers)
        assert (response.status_code, response.json()) == (401, {"error": "bad_signature"})
    assert await svix.web.enqueued() == []


async def test_a_body_that_is_no_utf8_is_401(svix: Svix) -> None:
    assert (await svix.post(b"\xff\xfe")).status_code == 401


async def test_a_body_that_is_too_large_is_413(svix: Svix) -> None:
    assert (await svix.post(b" " * (BODY_LIMIT + 1))).status_code == 413


async def test_without_a_secret_it_is_our_trouble_and_clerk_repeats_it(sqlite_url: str) -> None:
    async with serving(sqlite_url) as web:
        response = await web.client.post("/webhooks/clerk", content=b"{}")
    assert (response.status_code, response.headers["retry-after"]) == (503, "5")


def echo(at: float, plan: str) -> dict[str, Any]:
    """Return the event of our own write of the plan pro, where Clerk now holds `plan`."""
    marker = {
        "source": LAYOUT.source,
        "keys": ["plan"],
        "documents": ["e1"],
        "fingerprint": fingerprint({Slot.parse("plan"): "pro"}),
        "at": datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds"),
    }
    metadata = {"public_metadata": {"plan": plan}, "private_metadata": {"entitlementSync": marker}}
    return event("user.updated", id="user_1", **metadata)


@pytest.mark.parametrize("body", [echo(NOW - 600, "pro"), echo(NOW - 5, "pro")])
def test_a_changed_user_may_have_another_address_and_so_other_memberships_even_right_after_our_write(
    body: dict[str, Any],
) -> None:
    parsed = parse_event(json.dumps(body).encode())
    assert parsed is not None
    _, members = items_of(parsed, LAYOUT, NOW, TIMINGS)
    assert (members.key, members.visible_at) == ("members:user_1", NOW + TIMINGS.memberships_delay)


@pytest.mark.parametrize(
    ("body", "waits"),
    [
        (echo(NOW - 5, "pro"), True),
        (echo(NOW - 5, "edited by hand"), False),
        (echo(NOW - 600, "pro"), False),
        (event("user.updated", id="user_1", public_metadata={}, private_metadata={}), False),
        (event("user.updated", id="user_1", private_metadata={"entitlementSync": {"at": "yesterday"}}), False),
    ],
)
def test_only_the_echo_of_our_own_write_waits_until_many_are_one_batch(body: dict[str, Any], waits: bool) -> None:
    parsed = parse_event(json.dumps(body).encode())
    assert parsed is not None
    item = items_of(parsed, LAYOUT, NOW, TIMINGS)[0]
    assert (item.lane, item.visible_at) == ((ECHO_LANE, NOW + TIMINGS.echo_delay) if waits else (0, None))

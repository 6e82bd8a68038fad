"""The Target and its transport, against the local Clerk: real HTTP, the real SDK."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from sync_worker.clerk.client import Clerk, error_from_response, open_clerk
from sync_worker.clerk.objects import addresses_of
from sync_worker.domain.entitlements import Change, ChangeKind, Marker, Slot
from sync_worker.domain.subjects import Kind, Subject
from sync_worker.errors import (
    AccessTooLarge,
    CredentialsRefused,
    InvalidSubject,
    LeaseLost,
    MutationInDryRun,
    NoSuchSubject,
    RequestRefused,
    ServiceUnavailable,
    UnreadableAnswer,
)
from sync_worker.transport import ServiceTransport, guarded, inner_transport
from tests.clock import TIMINGS, ImpatientClock
from tests.leases import lease_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sync_worker.sandbox.server import Sandbox

pytestmark = pytest.mark.anyio


USER = Subject.parse("user_1")


@dataclass
class RecordingBudget:
    """A budget that grants every call and records the calls and pauses."""

    taken: int = 0
    pauses: list[float] = field(default_factory=list)

    async def take(self, lane: int = 0) -> None:
        del lane
        self.taken += 1

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)


@asynccontextmanager
async def opened(box: Sandbox, **given: Any) -> AsyncIterator[Clerk]:
    transport = ServiceTransport(
        "Clerk",
        inner_transport(),
        {"Authorization": f"Bearer {given.get('key', box.clerk.secret_key)}", "Clerk-API-Version": "2026-05-12"},
        error_from_response,
        ImpatientClock(),
        TIMINGS,
        budget=given.get("budget"),
        dry_run=given.get("dry_run", False),
    )
    target, client = open_clerk(transport, url=box.clerk_url)
    async with client:
        yield target


@pytest.fixture
async def target(box: Sandbox) -> AsyncIterator[Clerk]:
    async with opened(box) as clerk:
        yield clerk


def grant(subject: Subject = USER, **public: object) -> Change:
    return Change(
        subject, ChangeKind.GRANT, {}, public, public=public, private={"entitlementSync": {"sources": ["e1"]}}
    )


async def test_a_hundred_users_are_one_call(box: Sandbox, target: Clerk) -> None:
    subjects = [Subject(Kind.USER, box.clerk.add_user(f"user_{n}")) for n in range(100)]
    found = await target.observe([*subjects, Subject.parse("user_nobody")][:100])
    assert set(found) == set(subjects)
    assert box.clerk.requests.count() == 1


async def test_a_subject_that_does_not_exist_is_left_out(box: Sandbox, target: Clerk) -> None:
    box.clerk.add_user("user_1")
    found = await target.observe([USER, Subject.parse("user_2")])
    assert set(found) == {USER}


async def test_users_and_organizations_are_read_with_unmanaged_keys_and_marker(box: Sandbox, target: Clerk) -> None:
    organization = Subject.parse(f"org:{box.clerk.add_organization('org_1', public_metadata={'seats': 5})}")
    box.clerk.add_user(
        "user_1",
        private_metadata={
            "entitlementSync": {"source": "p/d", "keys": ["plan", "private.role"], "documents": ["e1"], "at": "t"},
            "access": {"entitlementSync": {"source": "q/d", "keys": ["public.access.plan"]}},
        },
    )
    found = await target.observe([USER, organization])
    assert found[organization].public == {"seats": 5}
    assert found[USER].markers == {
        None: Marker("p/d", (Slot.parse("plan"), Slot.parse("private.role")), ("e1",), "", "t"),
        "access": Marker("q/d", (Slot.parse("public.access.plan"),)),
    }


async def test_a_change_is_one_patch_that_leaves_unmanaged_keys_alone(box: Sandbox, target: Clerk) -> None:
    box.clerk.add_user("user_1", public_metadata={"theme": "dark", "role": "old"})
    await target.apply(grant(plan="pro", role=None))
    assert box.clerk.users["user_1"]["public_metadata"] == {"theme": "dark", "plan": "pro"}
    assert [(r.method, r.path) for r in box.clerk.requests.select()] == [("PATCH", "/v1/users/user_1/metadata")]


async def test_an_organization_is_patched_too(box: Sandbox, target: Clerk) -> None:
    box.clerk.add_organization("org_1")
    await target.apply(grant(Subject.parse("org_1"), plan="team"))
    assert box.clerk.organizations["org_1"]["public_metadata"] == {"plan": "team"}


async def test_a_write_to_a_malformed_user_succeeds(box: Sandbox, target: Clerk) -> None:
    box.clerk.add_user("user_1", has_image=None)
    await target.apply(grant(plan="pro"))
    assert box.clerk.users["user_1"]["public_metadata"] == {"plan": "pro"}
    assert box.clerk.requests.count() == 1


async def test_a_write_succeeds_even_if_the_sdk_cannot_parse_the_response(box: Sandbox, target: Clerk) -> None:
    box.clerk.add_organization("org_1")
    box.clerk.organizations["org_1"]["slug"] = 7
    await target.apply(grant(Subject.parse("org_1"), plan="pro"))
    assert box.clerk.organizations["org_1"]["public_metadata"] == {"plan": "pro"}
    assert box.clerk.requests.count() == 1


async def test_an_id_that_is_a_path_never_reaches_clerk(box: Sandbox, target: Clerk) -> None:
    with pytest.raises(InvalidSubject):
        await target.apply(grant(Subject(Kind.USER, "../organizations/org_1"), plan="pro"))
    assert box.clerk.requests.count() == 0


async def test_a_write_to_a_deleted_user_is_refused(target: Clerk) -> None:
    with pytest.raises(NoSuchSubject):
        await target.apply(grant(plan="pro"))


async def test_a_wrong_key_is_reported_by_the_name_of_its_setting(box: Sandbox) -> None:
    async with opened(box, key="sk_test_wrong") as clerk:
        with pytest.raises(CredentialsRefused, match="CLERK_SECRET_KEY"):
            await clerk.observe([USER])


async def test_a_dry_run_cannot_write(box: Sandbox) -> None:
    box.clerk.add_user("user_1")
    async with opened(box, dry_run=True) as clerk:
        await clerk.observe([USER])
        with pytest.raises(MutationInDryRun, match="PATCH"):
            await clerk.apply(grant(plan="pro"))
    assert box.clerk.requests.count("PATCH") == 0


async def test_a_lost_lease_stops_the_patch_before_it_is_sent(box: Sandbox, target: Clerk) -> None:
    box.clerk.add_user("user_1")
    with guarded(lease_of("user:user_1", seconds=-1.0)), pytest.raises(LeaseLost):
        await target.apply(grant(plan="pro"))
    assert box.clerk.requests.count() == 0


@pytest.mark.parametrize(("fault", "unanswered"), [("lost", True), ("truncated", True), ("unavailable", False)])
async def test_a_write_records_an_attempt_without_a_response(
    box: Sandbox, target: Clerk, fault: str, unanswered: bool
) -> None:
    box.clerk.add_user("user_1")
    box.clerk.faults.next(fault)
    with guarded(lease_of("user:user_1")) as write:
        await target.apply(grant(plan="pro"))
    assert write.unanswered is unanswered


@pytest.mark.parametrize("fault", ["rate_limited", "locked", "internal", "bad_gateway", "unavailable", "reset", "lost"])
async def test_a_transient_failure_is_retried(box: Sandbox, target: Clerk, fault: str) -> None:
    box.clerk.add_user("user_1")
    box.clerk.faults.next(fault)
    await target.apply(grant(plan="pro"))
    assert box.clerk.users["user_1"]["public_metadata"] == {"plan": "pro"}


async def test_a_permanent_failure_is_raised(box: Sandbox, target: Clerk) -> None:
    box.clerk.faults.next("unavailable", 100)
    with pytest.raises(ServiceUnavailable):
        await target.observe([USER])


async def test_every_attempt_takes_from_the_budget_and_a_429_pauses_all_calls(box: Sandbox) -> None:
    budget = RecordingBudget()
    box.clerk.faults.next("rate_limited")
    async with opened(box, budget=budget) as clerk:
        await clerk.observe([USER])
    assert (budget.taken, len(budget.pauses)) == (2, 1)


async def test_metadata_over_8_kb_is_refused_and_not_retried(box: Sandbox, target: Clerk) -> None:
    box.clerk.add_user("user_1")
    with pytest.raises(AccessTooLarge):
        await target.apply(grant(plan="x" * 9000))
    assert box.clerk.requests.count() == 1


async def test_a_sweep_reads_all_subjects_in_pages_of_five_hundred(box: Sandbox, target: Clerk) -> None:
    users = {Subject(Kind.USER, box.clerk.add_user(f"user_{n}")) for n in range(1000)}
    box.clerk.add_organization("org_1")
    swept = [observed.subject async for page in target.sweep() for observed in page]
    assert set(swept) == users | {Subject.parse("org_1")}
    assert len(swept) == 1001
    assert box.clerk.requests.count("GET", "/v1/users") == 4


async def test_a_sweep_skips_no_user_while_others_are_created_or_deleted(box: Sandbox, target: Clerk) -> None:
    for number in range(1200):
        box.clerk.add_user(f"user_{number:04}")
    swept = []
    async for page in target.sweep():
        swept += [observed.subject.id for observed in page]
        if len(swept) == 500:
            for number in range(100, 130):
                box.clerk.delete_user(f"user_{number:04}")
            box.clerk.delete_user("user_0700")
            box.clerk.add_user("user_new")
    assert set(swept) == {*(f"user_{n:04}" for n in range(1200) if n != 700), "user_new"}


async def test_an_incomplete_sweep_is_an_error() -> None:
    user: dict[str, Any] = {
        "id": "user_1",
        "email_addresses": [],
        "primary_email_address_id": None,
        "external_id": None,
    }
    short = iter([{"object": "total_count", "total_count": 5}, [user], [], {"total_count": 5}])
    client = httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(200, json=next(short))))
    async with client:
        with pytest.raises(UnreadableAnswer, match="1 users"):
            [page async for page in Clerk(client, "http://127.0.0.1/v1").sweep()]


async def test_a_sweep_works_on_an_instance_without_organizations() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        match request.url.path:
            case "/v1/users/count":
                return httpx.Response(200, json={"total_count": 0})
            case "/v1/users":
                return httpx.Response(200, json=[])
            case _:
                raise RequestRefused("Clerk answered 403 organization_not_enabled_in_instance", status=403)

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        assert [page async for page in Clerk(client, "http://127.0.0.1/v1").sweep()] == [[]]


async def test_memberships_are_read_and_written_by_organization_and_user(box: Sandbox, target: Clerk) -> None:
    box.clerk.add_organization("org_1")
    for user in ("user_1", "user_2"):
        box.clerk.add_user(user, public_metadata={"plan": "of the user"})
        box.clerk.add_membership("org_1", user)
    member, stranger = Subject.membership("org_1", "user_1"), Subject.membership("org_2", "user_1")
    found = await target.observe([member, stranger])
    assert set(found) == {member}
    assert found[member].public == {}
    await target.apply(grant(member, plan="pro"))
    assert box.clerk.memberships["org_1", "user_1"]["public_metadata"] == {"plan": "pro"}
    assert box.clerk.memberships["org_1", "user_2"]["public_metadata"] == {}


async def test_a_sweep_reads_memberships_where_there_are_organizations(box: Sandbox, target: Clerk) -> None:
    box.clerk.add_organization("org_1")
    members = {Subject.membership("org_1", box.clerk.add_user(f"user_{n}")) for n in range(3)}
    for member in members:
        box.clerk.add_membership("org_1", member.user_id)
    swept = {observed.subject async for page in target.sweep() for observed in page}
    assert members <= swept


@pytest.mark.parametrize("text", ["crm-7 ", "crm-7\u00a0", " crm-7"])
def test_an_external_id_with_a_space_is_not_the_one_without(text: str) -> None:
    user: dict[str, Any] = {
        "id": "user_1",
        "email_addresses": [],
        "primary_email_address_id": None,
        "external_id": text,
    }
    assert Subject(Kind.EXTERNAL, "crm-7") not in addresses_of(user)

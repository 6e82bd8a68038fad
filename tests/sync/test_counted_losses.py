"""Which losses are counted together, for how long, and which never are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from sync_worker.runtime.wiring import open_database
from sync_worker.storage.approvals import Approvals, HeldChange
from sync_worker.storage.work_items import WorkItem
from tests.builders import entitlement, reference
from tests.causes import cause_of
from tests.clock import TIMINGS, ManualClock, ShiftedClock
from tests.oracle import until_idle
from tests.parts import opened, poll_of, working
from tests.sync.holders import publish, sync_all, with_plan
from tests.sync.test_ownership import reconcile

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sync_worker.sandbox.server import Sandbox

pytestmark = pytest.mark.anyio
HOUR = 3600.0
A, B, C, D = (f"user:user_{name}" for name in "abcd")


async def publish_by_address(box: Sandbox, count: int) -> list[str]:
    """Publish people with the plan p1, whom their entitlements name by their address."""
    plan = {"_id": "p1", "_type": "plan", "slug": {"current": "pro"}}
    users = [box.clerk.add_user(f"user_{n:04}", email=f"user{n}@example.com") for n in range(count)]
    rows = [
        entitlement(f"ent-{user}", userEmail=f"user{n}@example.com", plan=reference("p1"))
        for n, user in enumerate(users)
    ]
    await box.lake.mutate([{"create": document} for document in (plan, *rows)])
    return users


@pytest.mark.parametrize("named_by", [publish, publish_by_address])
async def test_fifty_lost_plans_that_one_poll_finds_are_held_together(
    box: Sandbox, database_url: str, named_by: Any
) -> None:
    users = await named_by(box, 50)
    async with working(box, database_url, max_revocations="5") as parts:
        await poll_of(parts, ShiftedClock(-HOUR)).run()
        await sync_all(parts, users, box)
        await box.lake.mutate([{"patch": {"id": f"ent-{user}", "unset": ["plan"]}} for user in users])
        assert (await poll_of(parts, ShiftedClock(1200)).run())[0] >= 50
        await until_idle(database_url)
        lost = 50 - len(with_plan(box))
        assert lost <= 5
        assert [held.size for held in await parts.store.approvals.changesets()] == [50 - lost]


async def test_two_plans_that_one_poll_finds_without_a_slug_are_held_together(
    box: Sandbox, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    users = await publish(box, 4)
    others = [box.clerk.add_user(f"user_other{n}") for n in range(4)]
    plan = {"_id": "p2", "_type": "plan", "slug": {"current": "team"}}
    rows = [entitlement(f"ent-{user}", user, plan=reference("p2")) for user in others]
    await box.lake.mutate([{"create": document} for document in (plan, *rows)])
    async with working(box, database_url, max_revocations="5") as parts:
        await poll_of(parts, ShiftedClock(-HOUR)).run()
        await sync_all(parts, [*users, *others], box)
        await poll_of(parts, ShiftedClock(600)).run()  # so that the next one finds nothing but the plans
        await until_idle(database_url)
        monkeypatch.setattr(box.lake, "clock", ShiftedClock(660).now)
        await box.lake.mutate([{"patch": {"id": id_, "unset": ["slug"]}} for id_ in ("p1", "p2")])
        assert (await poll_of(parts, ShiftedClock(1200)).run())[0] == 2
        await until_idle(database_url)
        lost = 8 - len(with_plan(box))
        assert lost <= 5
        assert [held.size for held in await parts.store.approvals.changesets()] == [8 - lost]


async def test_a_reconcile_counts_all_its_losses_before_it_writes_the_first(box: Sandbox, database_url: str) -> None:
    users = await publish(box, 200)
    other = box.clerk.add_user("user_other")
    await box.lake.mutate([{"create": entitlement("other", other, plan=reference("p1"))}])
    async with opened(box, database_url, max_revocations="150") as parts:
        await reconcile(parts)
        await box.lake.mutate([{"patch": {"id": f"ent-{user}", "unset": ["plan"]}} for user in users])
        _, result = await reconcile(parts)
        assert (result.held.total(), with_plan(box)) == (200, [*users, other])


@pytest.mark.parametrize("cause", ["webhook:ent-{user}", "listen:ent-{user}", "sync"])
async def test_what_the_own_entitlement_or_an_operator_says_is_never_counted(
    box: Sandbox, database_url: str, cause: str
) -> None:
    users = await publish(box, 12)
    async with working(box, database_url, max_revocations="0") as parts:
        await sync_all(parts, users, box)
        await box.lake.mutate([{"patch": {"id": f"ent-{user}", "unset": ["plan"]}} for user in users])
        await parts.store.queue.enqueue(
            [WorkItem(f"user:{user}", cause=cause_of(cause.format(user=user))) for user in users]
        )
        await until_idle(database_url)
        assert (with_plan(box), await parts.store.approvals.changesets()) == ([], [])


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def approvals(database_url: str, clock: ManualClock) -> AsyncIterator[Approvals]:
    database = open_database(database_url, clock, TIMINGS, server_clock=clock)
    await database.start()
    yield Approvals(database, TIMINGS)
    await database.close()


async def test_losses_of_one_cause_add_up_within_an_hour_and_no_longer(
    approvals: Approvals, clock: ManualClock
) -> None:
    assert await approvals.count_losses("document:p1", [A, B]) == 2
    clock.advance(HOUR - 1)
    assert await approvals.count_losses("document:p1", [B, C]) == 3
    assert await approvals.count_losses("document:p2", [D]) == 1
    clock.advance(2)
    assert await approvals.count_losses("document:p1", [D]) == 3  # B was reviewed again since


def change(subject: str, plan: str = "pro") -> HeldChange:
    return HeldChange(subject, {"plan": plan}, {})


async def test_a_list_keeps_everybody_while_some_are_approved_and_others_are_added(approvals: Approvals) -> None:
    lists = await approvals.hold("document:p1", [change(A), change(B)], "too many")
    assert await approvals.release([A]) == []
    assert await approvals.hold("document:p1", [change(C)], "too many") == {C: lists[A]}
    assert [one.subject for one in await approvals.all_changes(lists[A])] == [B, C]


async def test_a_list_that_nobody_decides_on_expires_and_is_prolonged_while_it_still_holds(
    approvals: Approvals, clock: ManualClock
) -> None:
    await approvals.hold("document:p1", [change(A)], "too many")
    clock.advance(TIMINGS.approval_expiry - 1)
    await approvals.hold("reconcile:1", [change(A)], "too many")
    clock.advance(TIMINGS.approval_expiry - 1)
    assert [one.size for one in await approvals.changesets()] == [1]
    clock.advance(2)
    assert (await approvals.changesets(), await approvals.held_of([A]), await approvals.listed()) == ([], {}, [])

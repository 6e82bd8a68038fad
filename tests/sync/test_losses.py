"""Losses are counted by cause, held on lists with one row a subject, and withdrawn when they do not hold any more."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from sync_worker.domain.subjects import Subject
from sync_worker.runtime.wiring import open_reconcile
from sync_worker.storage.work_items import WorkItem
from sync_worker.worker.full_reconcile import Result
from tests.builders import created, reference
from tests.causes import cause_of
from tests.clock import TIMINGS, ShiftedClock
from tests.oracle import until, until_idle, wrong
from tests.parts import working
from tests.sizes import sizes
from tests.sync.holders import clear_the_slug, edit, enqueue, ids, publish, synced, until_held, with_plan

if TYPE_CHECKING:
    from sync_worker.sandbox.server import Sandbox

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("count", sizes(120, 1000))
async def test_all_holders_of_a_renamed_course_follow_at_once(box: Sandbox, database_url: str, count: int) -> None:
    async with synced(box, database_url, count, max_revocations="0") as (parts, _):
        await box.lake.mutate([{"patch": {"id": "c1", "set": {"slug": {"current": "algebra-2"}}}}])
        await parts.store.queue.enqueue([WorkItem("document:c1", lane=1, cause=cause_of("webhook:c1"))])
        await until(lambda: not wrong(box))
        assert await parts.store.approvals.changesets() == []


async def test_holders_of_a_plan_whose_slug_is_cleared_are_on_one_list_which_its_return_withdraws(
    box: Sandbox, database_url: str
) -> None:
    async with synced(box, database_url, 60, max_revocations="5") as (parts, _):
        await box.lake.mutate([{"patch": {"id": "p1", "unset": ["slug"]}}])
        await parts.store.queue.enqueue([WorkItem("document:p1", lane=1, cause=cause_of("webhook:p1"))])
        await until_idle(database_url)
        lost = 60 - len(with_plan(box))
        (held,) = await parts.store.approvals.changesets()
        assert (lost <= 5, held.size) == (True, 60 - lost)
        (first, *_) = await parts.store.approvals.changes(held.id)
        assert (first.before["plan"], "plan" in first.after) == ("pro", False)
        await box.lake.mutate([{"patch": {"id": "p1", "set": {"slug": {"current": "pro"}}}}])
        await parts.store.queue.enqueue([WorkItem("document:p1", lane=1, cause=cause_of("webhook:p1"))])
        await until_held(parts.store.approvals, 0)
        await until(lambda: len(with_plan(box)) == 60)
        assert await parts.store.approvals.changesets() == []


BROKEN: list[dict[str, Any]] = [{"unset": ["slug"]}, {"set": {"slug": {"current": "not a plan"}}}]


@pytest.mark.parametrize("broken", BROKEN, ids=["without a slug", "with a wrong slug"])
async def test_holders_whose_own_entitlements_were_published_beside_a_broken_plan_are_on_one_list(
    box: Sandbox, database_url: str, broken: dict[str, Any]
) -> None:
    """An import that replaces all documents, for example: the plan takes access away, and not the entitlements."""
    async with synced(box, database_url, 20, max_revocations="5", plan_order="basic,pro") as (parts, users):
        await box.lake.mutate(
            [
                {"patch": {"id": "p1", **broken}},
                *({"patch": {"id": f"ent-{user}", "set": {"note": "imported"}}} for user in users),
            ]
        )
        for user in users:
            await parts.store.queue.enqueue([WorkItem(f"user:{user}", cause=cause_of(f"webhook:ent-{user}"))])
        await until_idle(database_url)
        (held,) = await parts.store.approvals.changesets()
        assert (held.size >= 15, len(with_plan(box))) == (True, held.size)


async def test_somebody_on_a_list_loses_nothing_by_an_own_event_while_the_plan_is_broken(
    box: Sandbox, sqlite_url: str
) -> None:
    async with synced(box, sqlite_url, 8, max_revocations="0", plan_order="basic,pro") as (parts, users):
        await box.lake.mutate([{"patch": {"id": "p1", **BROKEN[1]}}])
        await parts.store.queue.enqueue([WorkItem("document:p1", lane=1, cause=cause_of("webhook:p1"))])
        await until_held(parts.store.approvals, 8)
        await edit(box, [users[0]], set={"note": "harmless"})
        await parts.store.queue.enqueue([WorkItem(f"user:{users[0]}", cause=cause_of(f"webhook:ent-{users[0]}"))])
        await until_idle(sqlite_url)
        assert len(with_plan(box)) == 8


async def test_of_a_held_change_the_part_that_gives_is_written(box: Sandbox, sqlite_url: str) -> None:
    async with synced(box, sqlite_url, 8, max_revocations="0") as (parts, users):
        await box.lake.mutate(
            [
                {"create": {"_id": "c2", "_type": "course", "slug": {"current": "geometry"}}},
                {"patch": {"id": "p1", "unset": ["slug"], "set": {"courses": [reference("c2")]}}},
            ]
        )
        await parts.store.queue.enqueue([WorkItem("document:p1", lane=1, cause=cause_of("webhook:p1"))])
        await until_held(parts.store.approvals, 8)
        await until_idle(sqlite_url)
        public = {user: box.clerk.users[user]["public_metadata"] for user in users}
        assert public == {user: {"plan": "pro", "courseSlugs": ["algebra", "geometry"]} for user in users}


async def test_what_ended_while_nothing_was_visible_is_held_together(box: Sandbox, database_url: str) -> None:
    async with synced(box, database_url, 34, max_revocations="5") as (parts, users):
        await edit(box, users[:30], set={"status": "off"})
        await enqueue(parts, ids(users), "dataset_visible_again")
        await until_held(parts.store.approvals, 30)
        assert len(with_plan(box)) == 34


async def test_what_one_poll_found_is_held_together(box: Sandbox, sqlite_url: str) -> None:
    async with synced(box, sqlite_url, 20, max_revocations="5") as (parts, users):
        await edit(box, users, unset=["plan"])
        await enqueue(parts, ids(users), "poll:2026-05-01T12:00:00Z")
        await until_held(parts.store.approvals, 20)


async def test_one_bad_edit_makes_one_list_for_the_same_people(box: Sandbox, database_url: str) -> None:
    async with synced(box, database_url, 20, max_revocations="5") as (parts, users):
        await edit(box, users[:15], unset=["plan"])
        await enqueue(parts, ids(users[:15]), "document:p1")
        await until_held(parts.store.approvals, 15)
        async with open_reconcile(parts.settings, parts.store, Counter()) as run:
            result = await run.apply(await run.find())
        (held,) = await parts.store.approvals.changesets()
        assert (held.size, result.held) == (15, Counter({held.id: 15}))


async def test_somebody_on_a_list_loses_what_is_held_when_the_own_entitlement_ends(
    box: Sandbox, sqlite_url: str
) -> None:
    async with synced(box, sqlite_url, 10, max_revocations="0") as (parts, users):
        await clear_the_slug(box, parts, 10)
        await edit(box, [users[1]], set={"note": "harmless"})
        for user in users[:2]:
            await box.lake.mutate([{"delete": {"id": f"ent-{users[0]}"}}] if user == users[0] else [])
            await parts.store.queue.enqueue([WorkItem(f"user:{user}", cause=cause_of(f"webhook:ent-{user}"))])
        await until_held(parts.store.approvals, 9)
        await until_idle(sqlite_url)
        assert (users[0] in with_plan(box), users[1] in with_plan(box)) == (False, True)


async def test_who_was_not_approved_yet_stays_on_the_list(box: Sandbox, database_url: str) -> None:
    async with synced(box, database_url, 10, max_revocations="0") as (parts, users):
        await edit(box, users, set={"status": "off"})
        await enqueue(parts, ids(users), "document:p1")
        await until_held(parts.store.approvals, 10)
        (held,) = await parts.store.approvals.changesets()
        async with open_reconcile(parts.settings, parts.store, Counter(), approved=held.id) as run:
            await run.repair([Subject.parse(f"user:{user}") for user in users[1:]], Result())
        (rest,) = await parts.store.approvals.changes(held.id)
        assert (rest.subject, with_plan(box)) == (f"user:{users[0]}", [users[0]])


async def test_two_workers_that_hold_at_once_lose_nobody(box: Sandbox, database_url: str) -> None:
    limit = {"max_revocations": "0"}
    async with synced(box, database_url, 120, **limit) as (parts, users), working(box, database_url, **limit):
        await edit(box, users, set={"status": "off"})
        await enqueue(parts, ids(users), "document:p1")
        await until_held(parts.store.approvals, 120)
    assert len(with_plan(box)) == 120


async def test_what_is_held_stays_held_when_another_entitlement_begins(box: Sandbox, sqlite_url: str) -> None:
    clock, timings = ShiftedClock(), replace(TIMINGS, idle_interval=0.05)
    users = await publish(box, 3)
    soon = datetime.fromtimestamp(clock.now() + 600, UTC).isoformat()
    await box.lake.mutate([created(f"later-{u}", u, role="tutor", startsAt=soon) for u in users])
    async with synced(box, sqlite_url, users, clock=clock, timings=timings, max_revocations="0") as (parts, _):
        await clear_the_slug(box, parts, 3)
        clock.ahead += 601
        await until(lambda: all(u["public_metadata"].get("role") == "tutor" for u in box.clerk.users.values()))
        assert with_plan(box) == users

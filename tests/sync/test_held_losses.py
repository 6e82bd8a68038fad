"""What is held stays held until the person's own entitlement ends or an operator says so, whatever else happens."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from sync_worker.domain.revisions import indirect
from sync_worker.domain.subjects import Subject
from sync_worker.runtime.wiring import open_reconcile
from sync_worker.storage.work_items import WorkItem
from sync_worker.worker.full_reconcile import Result
from tests.builders import created
from tests.causes import cause_of
from tests.clock import TIMINGS, ShiftedClock
from tests.expected import delete, stored
from tests.oracle import until, until_idle
from tests.parts import working
from tests.sync.holders import (
    clear_the_slug,
    edit,
    enqueue,
    ids,
    publish,
    synced,
    until_held,
    with_a_wrong_query,
    with_plan,
)

if TYPE_CHECKING:
    from pathlib import Path

    from sync_worker.sandbox.server import Sandbox

pytestmark = pytest.mark.anyio


async def test_a_second_event_of_the_same_cause_leaves_the_reason_on_the_list(box: Sandbox, database_url: str) -> None:
    async with synced(box, database_url, 8, max_revocations="5") as (parts, _):
        await clear_the_slug(box, parts, 8)
        (before,) = await parts.store.approvals.changesets()
        await enqueue(parts, ["document:p1"], "webhook:p1", lane=1)
        (after,) = await parts.store.approvals.changesets()
        assert "would lose access by document:p1" in before.reason
        assert after.reason == before.reason


@pytest.mark.parametrize("bound", ["startsAt", "endsAt"])
async def test_a_window_takes_nothing_over_a_wrong_query(
    box: Sandbox, sqlite_url: str, tmp_path: Path, bound: str
) -> None:
    clock, timings = ShiftedClock(), replace(TIMINGS, idle_interval=0.05)
    users = await publish(box, 8)
    soon = datetime.fromtimestamp(clock.now() + 600, UTC).isoformat()
    await box.lake.mutate([created(f"second-{u}", u, role="tutor", **{bound: soon}) for u in users])
    async with synced(box, sqlite_url, users):
        assert with_plan(box) == users
    given: dict[str, Any] = {"clock": clock, "timings": timings, "groq_dir": with_a_wrong_query(tmp_path)}
    async with working(box, sqlite_url, max_revocations="0", **given) as parts:
        clock.ahead += 601
        await until_held(parts.store.approvals, 8)
        assert with_plan(box) == users


async def test_a_window_that_has_passed_does_not_release_what_is_held_later(box: Sandbox, sqlite_url: str) -> None:
    clock, timings = ShiftedClock(), replace(TIMINGS, idle_interval=0.05)
    users = await publish(box, 3)
    soon = datetime.fromtimestamp(clock.now() + 600, UTC).isoformat()
    await box.lake.mutate([created(f"second-{u}", u, role="tutor", startsAt=soon) for u in users])
    async with synced(box, sqlite_url, users, clock=clock, timings=timings, max_revocations="0") as (parts, _):
        await clear_the_slug(box, parts, 3)
        clock.ahead += 601
        await until(lambda: all(u["public_metadata"].get("role") == "tutor" for u in box.clerk.users.values()))
        await until_idle(sqlite_url)
        await edit(box, users, set={"status": "off"})
        await enqueue(parts, ids(users), "clerk:user.updated")
        assert with_plan(box) == users


async def test_a_window_that_begins_to_count_while_a_loss_is_held_ends_in_its_moment(
    box: Sandbox, sqlite_url: str
) -> None:
    clock, timings = ShiftedClock(), replace(TIMINGS, idle_interval=0.05)
    async with synced(box, sqlite_url, 3, clock=clock, timings=timings, max_revocations="0") as (parts, users):
        await clear_the_slug(box, parts, 3)
        soon = datetime.fromtimestamp(clock.now() + 600, UTC).isoformat()
        await edit(box, users, set={"endsAt": soon})
        await enqueue(parts, ids(users), "poll:2026-05-01T12:00:00Z")
        assert with_plan(box) == users
        clock.ahead += 601
        await until(lambda: with_plan(box) == [])


async def test_what_ended_while_nothing_was_visible_is_held_although_its_document_is_fanned_out(
    box: Sandbox, sqlite_url: str
) -> None:
    async with synced(box, sqlite_url, 8, max_revocations="5") as (parts, users):
        await edit(box, users, set={"status": "off"})
        keys = [f"document:ent-{user}" for user in users]
        await enqueue(parts, keys, "dataset_visible_again", lane=1)
        kept = len(with_plan(box))
        assert kept >= 3
        assert [one.size for one in await parts.store.approvals.changesets()] == [kept]


async def test_an_edit_of_somebody_on_a_list_lets_no_later_loss_pass_for_its_own(
    box: Sandbox, database_url: str
) -> None:
    async with synced(box, database_url, 8, max_revocations="5") as (parts, users):
        await clear_the_slug(box, parts, 8)
        for user in users:
            await edit(box, [user], set={"note": "harmless"})
            await enqueue(parts, [f"user:{user}"], f"webhook:ent-{user}", expected=stored(box, f"ent-{user}"))
        (held,) = await parts.store.approvals.changesets()
        await parts.store.approvals.drop(held.id)
        await enqueue(parts, ids(users), "reconcile:1")
        assert with_plan(box) == users


async def test_an_edit_of_somebody_on_a_list_does_not_keep_the_approval_from_counting(
    box: Sandbox, sqlite_url: str
) -> None:
    async with synced(box, sqlite_url, 3, max_revocations="0") as (parts, users):
        await clear_the_slug(box, parts, 3)
        await edit(box, [users[0]], set={"note": "harmless"})
        await enqueue(parts, [f"user:{users[0]}"], f"webhook:ent-{users[0]}")
        (held,) = await parts.store.approvals.changesets()
        await enqueue(parts, ids(users), f"approve:{held.id}")
        assert (with_plan(box), await parts.store.approvals.changesets()) == ([], [])


async def test_a_harmless_edit_does_not_release_a_delete_that_a_poll_found(box: Sandbox, sqlite_url: str) -> None:
    users = await publish(box, 3)
    await box.lake.mutate([created(f"second-{u}", u, role="tutor") for u in users])
    async with synced(box, sqlite_url, users, max_revocations="0") as (parts, _):
        for user in users:
            report = indirect(await delete(box, f"ent-{user}"))
            await parts.store.queue.enqueue(
                [WorkItem(f"user:{user}", cause=cause_of("poll:2026-05-01T12:00:00Z"), expected=report)]
            )
        await until_held(parts.store.approvals, 3)
        await until_idle(sqlite_url)
        second = f"second-{users[0]}"
        await box.lake.mutate([{"patch": {"id": second, "set": {"note": "harmless"}}}])
        await enqueue(parts, [f"user:{users[0]}"], f"webhook:{second}", expected=stored(box, second))
        assert with_plan(box) == users


async def test_the_delete_of_a_moved_document_reaches_the_former_holder_on_a_list(
    box: Sandbox, database_url: str
) -> None:
    box.clerk.add_user("user_new")
    async with synced(box, database_url, 8, max_revocations="5") as (parts, users):
        await edit(box, users, set={"clerkUserId": "user_new"})
        await enqueue(parts, ids(users), "poll:2026-05-01T12:00:00Z")
        await until_held(parts.store.approvals, 8)
        report = await delete(box, f"ent-{users[0]}")
        await enqueue(parts, [f"document:ent-{users[0]}"], f"webhook:ent-{users[0]}", expected=report)
        assert users[0] not in with_plan(box)


async def test_the_delete_of_a_moved_document_reaches_whom_a_reconcile_put_on_a_list(
    box: Sandbox, sqlite_url: str
) -> None:
    box.clerk.add_user("user_new")
    async with synced(box, sqlite_url, 8, max_revocations="5") as (parts, users):
        await edit(box, users, set={"clerkUserId": "user_new"})
        async with open_reconcile(parts.settings, parts.store, Counter()) as run:
            await run.apply(await run.find())
        await until_held(parts.store.approvals, 8)
        report = await delete(box, f"ent-{users[0]}")
        await enqueue(parts, [f"document:ent-{users[0]}"], f"webhook:ent-{users[0]}", expected=report)
        assert users[0] not in with_plan(box)


async def test_a_list_is_approved_for_what_it_shows_and_not_for_what_was_lost_since(
    box: Sandbox, sqlite_url: str
) -> None:
    async with synced(box, sqlite_url, 3, max_revocations="0") as (parts, users):
        await clear_the_slug(box, parts, 3, "c1")
    async with working(box, sqlite_url, max_revocations="0") as parts:
        await box.lake.mutate([{"patch": {"id": "p1", "unset": ["slug"]}}])
        (shown,) = await parts.store.approvals.changesets()
        async with open_reconcile(parts.settings, parts.store, Counter(), approved=shown.id) as run:
            await run.repair([Subject.parse(key) for key in ids(users)], result := Result())
        (held,) = await parts.store.approvals.changesets()
        (first, *_) = await parts.store.approvals.changes(held.id)
        assert (with_plan(box), result.held[held.id], first.after) == (users, 3, {"courseSlugs": []})


async def test_losses_that_are_on_a_list_do_not_count_against_a_reconcile(box: Sandbox, sqlite_url: str) -> None:
    async with synced(box, sqlite_url, 20, max_revocations="5") as (parts, users):
        await edit(box, users[:15], unset=["plan"])
        await enqueue(parts, ids(users[:15]), "document:p1")
        await until_held(parts.store.approvals, 15)
        await edit(box, users[15:17], unset=["plan"])
        async with open_reconcile(parts.settings, parts.store, Counter()) as run:
            result = await run.apply(await run.find())
        assert (result.held.total(), with_plan(box)) == (15, users[:15] + users[17:])


async def test_a_reconcile_withdraws_a_list_whose_cause_was_put_right_unnoticed(box: Sandbox, sqlite_url: str) -> None:
    async with synced(box, sqlite_url, 3, max_revocations="0") as (parts, users):
        await clear_the_slug(box, parts, 3)
        await box.lake.mutate([{"patch": {"id": "p1", "set": {"slug": {"current": "pro"}}}}])
        async with open_reconcile(parts.settings, parts.store, Counter()) as run:
            result = await run.apply(await run.find())
        assert (result.is_good, await parts.store.approvals.changesets(), with_plan(box)) == (True, [], users)


async def test_a_list_is_withdrawn_when_its_people_are_another_installations(box: Sandbox, sqlite_url: str) -> None:
    async with synced(box, sqlite_url, 3, max_revocations="0") as (parts, users):
        await clear_the_slug(box, parts, 3)
        for user in users:
            box.clerk.users[user]["private_metadata"]["entitlementSync"]["source"] = "elsewhere/production"
        async with open_reconcile(parts.settings, parts.store, Counter()) as run:
            result = await run.apply(await run.find())
        assert (result.refused, await parts.store.approvals.changesets(), with_plan(box)) == (3, [], users)


async def test_a_list_is_withdrawn_when_its_people_are_gone_from_clerk(box: Sandbox, sqlite_url: str) -> None:
    async with synced(box, sqlite_url, 3, max_revocations="0") as (parts, users):
        await clear_the_slug(box, parts, 3)
        for user in users:
            box.clerk.delete_user(user)
        async with open_reconcile(parts.settings, parts.store, Counter()) as run:
            await run.apply(await run.find())
        assert await parts.store.approvals.changesets() == []

"""One changed document must not take the access of many people away unseen."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from sync_worker.runtime.wiring import open_reconcile
from sync_worker.settings import packaged_groq
from sync_worker.storage.work_items import WorkItem
from sync_worker.webhooks.clerk_events import ECHO_LANE
from tests.causes import cause_of
from tests.clock import TIMINGS, ShiftedClock
from tests.expected import deleted
from tests.oracle import GUARD, until, until_idle, wrong
from tests.parts import opened, working

if TYPE_CHECKING:
    from pathlib import Path

    from sync_worker.sandbox.server import Sandbox
    from sync_worker.storage.approvals import Approvals

pytestmark = pytest.mark.anyio


async def publish(box: Sandbox, count: int) -> list[str]:
    reference = {"_type": "reference", "_ref": "c1", "_key": "c1"}
    users = [box.clerk.add_user(f"user_{n:03}") for n in range(count)]
    rows: list[dict[str, Any]] = [
        {"_id": f"ent-{user}", "_type": "entitlement", "clerkUserId": user, "plan": "pro", "courses": [reference]}
        for user in users
    ]
    course = {"_id": "c1", "_type": "course", "slug": {"current": "algebra"}}
    await box.lake.mutate([{"create": course}, *({"create": row} for row in rows)])
    return users


def with_a_wrong_query(folder: Path) -> Path:
    """Return a folder of queries of which the one that decides access finds nobody who is known.

    The check of the queries before any work asks for one subject alone, and so does not see it.
    """
    for file in packaged_groq().glob("*.groq"):
        text = file.read_text()
        wrong_text = text.replace('_type == "entitlement" &&', '_type == "entitlement" && count($documents) == 0 &&')
        (folder / file.name).write_text(wrong_text if file.name == "by_subject.groq" else text)
    return folder


async def test_a_fan_out_over_a_wrong_query_holds_what_it_would_take_away(
    box: Sandbox, sqlite_url: str, tmp_path: Path
) -> None:
    users = await publish(box, 120)
    async with working(box, sqlite_url) as parts:
        await parts.store.queue.enqueue([WorkItem(f"user:{user}") for user in users])
        await until(lambda: not wrong(box))
    async with working(box, sqlite_url, groq_dir=with_a_wrong_query(tmp_path)) as parts:
        await parts.store.queue.enqueue([WorkItem("document:c1", lane=1)])
        await until_held(parts.store.approvals, 120)
        assert wrong(box) == []
        async with asyncio.timeout(GUARD):
            while not (failed := await parts.store.queue.failed(1)):
                await asyncio.sleep(0.05)
        assert failed[0].error_code == "loss_held"


async def test_what_people_do_in_clerk_does_not_take_their_access_away_over_a_wrong_query(
    box: Sandbox, sqlite_url: str, tmp_path: Path
) -> None:
    users = await publish(box, 60)
    async with working(box, sqlite_url) as parts:
        await parts.store.queue.enqueue([WorkItem(f"user:{user}") for user in users])
        await until(lambda: not wrong(box))
    async with working(box, sqlite_url, groq_dir=with_a_wrong_query(tmp_path)) as parts:
        await parts.store.queue.enqueue(
            [WorkItem(f"user:{user}", cause=cause_of("clerk:user.updated")) for user in users]
        )
        await until_held(parts.store.approvals, 60)
    assert wrong(box) == []


async def test_what_is_held_is_not_taken_away_because_somebody_edits_a_profile(
    box: Sandbox, sqlite_url: str, tmp_path: Path
) -> None:
    users = await publish(box, 120)
    async with working(box, sqlite_url) as parts:
        await parts.store.queue.enqueue([WorkItem(f"user:{user}") for user in users])
        await until(lambda: not wrong(box))
    async with working(box, sqlite_url, groq_dir=with_a_wrong_query(tmp_path)) as parts:
        await parts.store.queue.enqueue([WorkItem("document:c1", lane=1)])
        await until_held(parts.store.approvals, 120)
        await parts.store.queue.enqueue([WorkItem(f"user:{users[0]}", cause=cause_of("clerk:user.updated"))])
        await until_idle(sqlite_url)
    assert wrong(box) == []


async def test_a_deleted_plan_takes_nothing_from_many_people_unseen(
    box: Sandbox, sqlite_url: str, tmp_path: Path
) -> None:
    for file in packaged_groq().glob("*.groq"):
        status = '"status": select(plan->state == "on" => "active", "off")'
        text = file.read_text()
        is_mapping = file.name == "entitlement.groq"
        (tmp_path / file.name).write_text(text.replace("  status\n", f"  {status}\n") if is_mapping else text)
    plan = {"_id": "p1", "_type": "plan", "state": "on", "slug": {"current": "pro"}}
    users = [box.clerk.add_user(f"user_{n:03}") for n in range(30)]
    reference = {"_type": "reference", "_ref": "p1", "_weak": True}
    rows = [{"_id": f"ent-{u}", "_type": "entitlement", "clerkUserId": u, "plan": reference} for u in users]
    await box.lake.mutate([{"create": document} for document in (plan, *rows)])
    async with working(box, sqlite_url, groq_dir=tmp_path) as parts:
        await parts.store.queue.enqueue([WorkItem(f"user:{user}") for user in users])
        await until(lambda: not wrong(box))
        gone = box.lake.documents["p1"]
        await box.lake.mutate([{"delete": {"id": "p1"}}])
        expected = deleted("p1", gone["_rev"], gone["_updatedAt"])
        await parts.store.queue.enqueue([WorkItem("document:p1", lane=1, expected=expected)])
        await until_held(parts.store.approvals, 30)
    assert all(box.clerk.users[user]["public_metadata"]["plan"] == "pro" for user in users)


async def until_held(approvals: Approvals, count: int) -> None:
    async with asyncio.timeout(GUARD):
        while sum(one.size for one in await approvals.changesets()) < count:
            await asyncio.sleep(0.05)


async def test_a_webhook_of_one_entitlement_is_never_held(box: Sandbox, sqlite_url: str) -> None:
    users = await publish(box, 30)
    async with working(box, sqlite_url, max_revocations="0") as parts:
        await parts.store.queue.enqueue([WorkItem(f"user:{user}") for user in users])
        await until(lambda: not wrong(box))
        await box.lake.mutate([{"delete": {"id": f"ent-{user}"}} for user in users[:20]])
        await parts.store.queue.enqueue([WorkItem(f"user:{user}", cause=cause_of("webhook:x")) for user in users[:20]])
        await until(lambda: not wrong(box))


async def test_an_edit_that_ends_access_is_not_held_because_clerk_reports_its_person_before_it_ran(
    box: Sandbox, sqlite_url: str
) -> None:
    users = await publish(box, 3)
    async with working(box, sqlite_url) as parts:
        await parts.store.queue.enqueue([WorkItem(f"user:{user}") for user in users])
        await until(lambda: not wrong(box))
    await box.lake.mutate([{"patch": {"id": f"ent-{user}", "set": {"status": "ended"}}} for user in users])
    async with opened(box, sqlite_url) as parts:
        for cause in ("webhook:x", "clerk:user.updated", "poll:x"):
            await parts.store.queue.enqueue([WorkItem(f"user:{user}", cause=cause_of(cause)) for user in users])
    async with working(box, sqlite_url, max_revocations="0"):
        await until(lambda: not wrong(box))


async def test_the_end_of_a_window_is_not_held_because_clerk_reported_our_write(box: Sandbox, sqlite_url: str) -> None:
    users = await publish(box, 3)
    clock, timings = ShiftedClock(), replace(TIMINGS, idle_interval=0.05)
    soon = datetime.fromtimestamp(clock.now() + 600, UTC).isoformat()
    await box.lake.mutate([{"patch": {"id": f"ent-{user}", "set": {"endsAt": soon}}} for user in users])
    async with working(box, sqlite_url, clock=clock, timings=timings, max_revocations="0") as parts:
        await parts.store.queue.enqueue([WorkItem(f"user:{user}", cause=cause_of("webhook:x")) for user in users])
        await until(lambda: all("plan" in box.clerk.users[user]["public_metadata"] for user in users))
        echo = clock.now() + 600 + TIMINGS.echo_delay
        await parts.store.queue.enqueue(
            [WorkItem(f"user:{u}", ECHO_LANE, visible_at=echo, cause=cause_of("clerk:user.updated")) for u in users]
        )
        clock.ahead += 601
        await until(lambda: not any("plan" in box.clerk.users[user]["public_metadata"] for user in users))


async def test_the_end_of_a_window_that_a_reconcile_scheduled_is_not_held_either(box: Sandbox, sqlite_url: str) -> None:
    users = await publish(box, 3)
    clock, timings = ShiftedClock(), replace(TIMINGS, idle_interval=0.05)
    soon = datetime.fromtimestamp(clock.now() + 600, UTC).isoformat()
    await box.lake.mutate([{"patch": {"id": f"ent-{user}", "set": {"endsAt": soon}}} for user in users])
    async with opened(box, sqlite_url, clock=clock) as parts:
        async with open_reconcile(parts.settings, parts.store, Counter()) as nightly:
            await nightly.apply(await nightly.find())
        assert all("plan" in box.clerk.users[user]["public_metadata"] for user in users)
        echo = clock.now() + 600 + TIMINGS.echo_delay
        await parts.store.queue.enqueue(
            [WorkItem(f"user:{u}", ECHO_LANE, visible_at=echo, cause=cause_of("clerk:user.updated")) for u in users]
        )
    clock.ahead += 601
    async with working(box, sqlite_url, clock=clock, timings=timings, max_revocations="0"):
        await until(lambda: not any("plan" in box.clerk.users[user]["public_metadata"] for user in users))

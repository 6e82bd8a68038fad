"""One changed document must not take the access of many people away unseen."""

from __future__ import annotations

from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from sync_worker.runtime.wiring import open_reconcile
from sync_worker.settings import packaged_groq
from sync_worker.storage.work_items import WorkItem
from sync_worker.webhooks.clerk_events import ECHO_LANE
from tests.builders import created, weak
from tests.causes import cause_of
from tests.clock import TIMINGS, ShiftedClock
from tests.expected import delete
from tests.oracle import until, until_idle, until_seen, wrong
from tests.parts import Parts, opened, working
from tests.sync.holders import edit, publish, synced, until_held, with_a_wrong_query, with_plan

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from sync_worker.sandbox.server import Sandbox

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def after_a_wrong_query(
    box: Sandbox, database_url: str, count: int, folder: Path
) -> AsyncIterator[tuple[Parts, list[str]]]:
    """Run a worker with a wrong query over people who got their access by the right one."""
    async with synced(box, database_url, count) as (_, users):
        assert with_plan(box) == users
    async with working(box, database_url, groq_dir=with_a_wrong_query(folder)) as parts:
        yield parts, users


async def test_a_fan_out_over_a_wrong_query_holds_what_it_would_take_away(
    box: Sandbox, sqlite_url: str, tmp_path: Path
) -> None:
    async with after_a_wrong_query(box, sqlite_url, 120, tmp_path) as (parts, _):
        await parts.store.queue.enqueue([WorkItem("document:c1", lane=1)])
        await until_held(parts.store.approvals, 120)
        assert wrong(box) == []
        (failed,) = await until_seen(lambda: parts.store.queue.failed(1))
        assert failed.error_code == "loss_held"


async def test_what_people_do_in_clerk_does_not_take_their_access_away_over_a_wrong_query(
    box: Sandbox, sqlite_url: str, tmp_path: Path
) -> None:
    async with after_a_wrong_query(box, sqlite_url, 60, tmp_path) as (parts, users):
        await parts.store.queue.enqueue(
            [WorkItem(f"user:{user}", cause=cause_of("clerk:user.updated")) for user in users]
        )
        await until_held(parts.store.approvals, 60)
    assert wrong(box) == []


async def test_what_is_held_is_not_taken_away_because_somebody_edits_a_profile(
    box: Sandbox, sqlite_url: str, tmp_path: Path
) -> None:
    async with after_a_wrong_query(box, sqlite_url, 120, tmp_path) as (parts, users):
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
    await box.lake.mutate([{"create": plan}, *(created(f"ent-{u}", u, plan=weak("p1")) for u in users)])
    async with working(box, sqlite_url, groq_dir=tmp_path) as parts:
        await parts.store.queue.enqueue([WorkItem(f"user:{user}") for user in users])
        await until(lambda: not wrong(box))
        gone = await delete(box, "p1")
        await parts.store.queue.enqueue([WorkItem("document:p1", lane=1, expected=gone)])
        await until_held(parts.store.approvals, 30)
    assert all(box.clerk.users[user]["public_metadata"]["plan"] == "pro" for user in users)


async def test_a_webhook_of_one_entitlement_is_never_held(box: Sandbox, sqlite_url: str) -> None:
    async with synced(box, sqlite_url, 30, max_revocations="0") as (parts, users):
        await box.lake.mutate([{"delete": {"id": f"ent-{user}"}} for user in users[:20]])
        await parts.store.queue.enqueue([WorkItem(f"user:{user}", cause=cause_of("webhook:x")) for user in users[:20]])
        await until(lambda: not wrong(box))


async def test_an_edit_that_ends_access_is_not_held_because_clerk_reports_its_person_before_it_ran(
    box: Sandbox, sqlite_url: str
) -> None:
    async with synced(box, sqlite_url, 3) as (_, users):
        await edit(box, users, set={"status": "ended"})
    async with opened(box, sqlite_url) as parts:
        for cause in ("webhook:x", "clerk:user.updated", "poll:x"):
            await parts.store.queue.enqueue([WorkItem(f"user:{user}", cause=cause_of(cause)) for user in users])
    async with working(box, sqlite_url, max_revocations="0"):
        await until(lambda: not wrong(box))


async def test_the_end_of_a_window_is_not_held_because_clerk_reported_our_write(box: Sandbox, sqlite_url: str) -> None:
    users = await publish(box, 3)
    clock, timings = ShiftedClock(), replace(TIMINGS, idle_interval=0.05)
    soon = datetime.fromtimestamp(clock.now() + 600, UTC).isoformat()
    await edit(box, users, set={"endsAt": soon})
    async with working(box, sqlite_url, clock=clock, timings=timings, max_revocations="0") as parts:
        await parts.store.queue.enqueue([WorkItem(f"user:{user}", cause=cause_of("webhook:x")) for user in users])
        await until(lambda: with_plan(box) == users)
        echo = clock.now() + 600 + TIMINGS.echo_delay
        await parts.store.queue.enqueue(
            [WorkItem(f"user:{u}", ECHO_LANE, visible_at=echo, cause=cause_of("clerk:user.updated")) for u in users]
        )
        clock.ahead += 601
        await until(lambda: not with_plan(box))


async def test_the_end_of_a_window_that_a_reconcile_scheduled_is_not_held_either(box: Sandbox, sqlite_url: str) -> None:
    users = await publish(box, 3)
    clock, timings = ShiftedClock(), replace(TIMINGS, idle_interval=0.05)
    soon = datetime.fromtimestamp(clock.now() + 600, UTC).isoformat()
    await edit(box, users, set={"endsAt": soon})
    async with opened(box, sqlite_url, clock=clock) as parts:
        async with open_reconcile(parts.settings, parts.store, Counter()) as nightly:
            await nightly.apply(await nightly.find())
        assert with_plan(box) == users
        echo = clock.now() + 600 + TIMINGS.echo_delay
        await parts.store.queue.enqueue(
            [WorkItem(f"user:{u}", ECHO_LANE, visible_at=echo, cause=cause_of("clerk:user.updated")) for u in users]
        )
    clock.ahead += 601
    async with working(box, sqlite_url, clock=clock, timings=timings, max_revocations="0"):
        await until(lambda: not with_plan(box))

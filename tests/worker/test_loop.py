"""The worker with the real parts in one process: what trouble with one must not do to another."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from sync_worker.domain.work import NO_CAUSE
from sync_worker.errors import ConfigurationError
from sync_worker.runtime.service import running_worker
from sync_worker.runtime.wiring import open_reconcile
from sync_worker.settings import packaged_groq
from sync_worker.sync.reconciler import REPAIR_LANE
from tests.builders import created
from tests.clock import TIMINGS, ShiftedClock
from tests.expected import stored
from tests.oracle import until, wrong
from tests.parts import opened, working
from tests.worker.items import enqueue, row_of, row_when

if TYPE_CHECKING:
    from pathlib import Path

    from sync_worker.sandbox.server import Sandbox

pytestmark = pytest.mark.anyio


async def test_an_instance_without_organizations_does_not_hold_up_its_users(box: Sandbox, sqlite_url: str) -> None:
    box.clerk.add_user("user_1")
    await box.lake.mutate([created("e1", "user_1", plan="pro")])
    box.clerk.faults.some("forbidden", 1.0, path_prefix="/v1/organizations")
    async with working(box, sqlite_url) as parts:
        await enqueue(parts, "user:user_1", "org:org_1")
        await enqueue(parts, "user:user_1")
        await until(lambda: box.clerk.requests.count("GET") > 3)
        box.clerk.faults.clear()
        await until(lambda: not wrong(box))


async def test_a_plan_set_by_hand_survives_an_entitlement_that_starts_later(box: Sandbox, sqlite_url: str) -> None:
    box.clerk.add_user("user_vip", public_metadata={"plan": "vip"})
    starts = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    await box.lake.mutate([created("e1", "user_vip", plan="pro", startsAt=starts)])
    async with working(box, sqlite_url) as parts:
        await enqueue(parts, "user:user_vip", expected=stored(box, "e1"))
        await until(lambda: box.clerk.requests.count("GET") > 0)
        await row_when(parts, "user:user_vip", lambda row: row.cause == NO_CAUSE)
    assert box.clerk.users["user_vip"]["public_metadata"] == {"plan": "vip"}


async def test_a_walk_longer_than_the_deadline_of_a_page_comes_to_its_end(box: Sandbox, sqlite_url: str) -> None:
    reference = {"_type": "reference", "_ref": "c1", "_key": "c1"}
    await box.lake.load([{"_id": "c1", "_type": "course", "slug": {"current": "a"}}])
    await box.lake.load(
        [
            {"_id": f"e{n:05}", "_type": "entitlement", "clerkUserId": f"user_{n:05}", "courses": [reference]}
            for n in range(3500)
        ]
    )
    box.lake.faults.latency = 0.5  # seven pages take longer than the deadline, and one far less
    async with working(box, sqlite_url, timings=replace(TIMINGS, run_deadline=3.0)) as parts:
        with capture_logs() as logs:
            await enqueue(parts, "document:c1", lane=1)
            await until(lambda: any(line["event"] == "document_fanned_out" for line in logs))
        assert await row_of(parts, "user:user_03499") is not None


async def test_a_walk_over_people_who_have_not_signed_up_comes_to_its_end(box: Sandbox, sqlite_url: str) -> None:
    reference = {"_type": "reference", "_ref": "c1", "_key": "c1"}
    rows = [{"_id": f"e{n:05}", "userEmail": f"user{n}@example.org"} for n in range(3000)]
    rows.append({"_id": "last", "clerkUserId": "user_last"})
    await box.lake.load([{"_id": "c1", "_type": "course", "slug": {"current": "a"}}])
    await box.lake.load([{**row, "_type": "entitlement", "courses": [reference]} for row in rows])
    box.clerk.faults.latency = 0.1
    async with working(box, sqlite_url, timings=replace(TIMINGS, run_deadline=2.5)) as parts:
        with capture_logs() as logs:
            await enqueue(parts, "document:c1", lane=1)
            await until(lambda: any(line["event"] == "document_fanned_out" for line in logs))
        assert await row_of(parts, "user:user_last") is not None


async def test_a_query_of_another_shape_costs_attempts_and_not_the_worker(
    box: Sandbox, sqlite_url: str, tmp_path: Path
) -> None:
    for file in packaged_groq().glob("*.groq"):
        (tmp_path / file.name).write_text(file.read_text().replace('"between": *[', '"between": 7, "x": *['))
    box.clerk.add_user("user_1")
    await box.lake.mutate([created("e1", "user_1", plan="pro")])
    async with working(box, sqlite_url, groq_dir=tmp_path) as parts:
        await enqueue(parts, "document:c1", lane=1)
        await row_when(parts, "document:c1", lambda row: row.attempts)
        await enqueue(parts, "user:user_1")
        await until(lambda: not wrong(box))


async def test_the_limit_of_one_subject_does_not_hold_up_another(box: Sandbox, sqlite_url: str) -> None:
    for user in ("user_a", "user_b"):
        box.clerk.add_user(user)
        await box.lake.mutate([created(f"e-{user}", user, plan="pro")])
    box.clerk.faults.next("rate_limited", 100, method="PATCH", path_prefix="/v1/users/user_a", retry_after=60)
    async with working(box, sqlite_url) as parts:
        await enqueue(parts, "user:user_a")
        await until(lambda: box.clerk.requests.count("PATCH") > 0)
        await enqueue(parts, "user:user_b")
        await until(lambda: wrong(box) == ["user_a"], 50)


async def test_401_stops_the_work_loudly_and_it_goes_on_when_the_key_is_right_again(
    box: Sandbox, sqlite_url: str
) -> None:
    box.clerk.add_user("user_1")
    await box.lake.mutate([created("e1", "user_1", plan="pro")])
    box.clerk.faults.some("unauthorized", 1.0)
    async with working(box, sqlite_url, timings=replace(TIMINGS, credentials_probe=0.5)) as parts:
        with capture_logs() as logs:
            await enqueue(parts, "user:user_1")
            await until(lambda: any(line["event"] == "worker_paused" for line in logs))
            row = await row_of(parts, "user:user_1")
            assert (row.dead, row.attempts) == (False, 0)
            box.clerk.faults.clear()
            await until(lambda: not wrong(box))


async def test_a_publish_is_served_while_a_bulk_waits(box: Sandbox, sqlite_url: str) -> None:
    for number in range(400):
        box.clerk.add_user(f"user_{number:03}")
    await box.lake.mutate([created(f"e{n:03}", f"user_{n:03}", plan="pro") for n in range(400)])
    box.clerk.faults.latency = 0.2
    async with working(box, sqlite_url) as parts:
        await enqueue(parts, *(f"user:user_{n:03}" for n in range(1, 400)), lane=2)
        await until(lambda: box.clerk.requests.count("PATCH") > 0)
        await enqueue(parts, "user:user_000")
        await until(lambda: "user_000" not in wrong(box))
        assert len(wrong(box)) > 100


async def test_the_smallest_budget_still_gets_the_work_done(box: Sandbox, sqlite_url: str) -> None:
    for number in range(2):
        box.clerk.add_user(f"user_{number}")
        await box.lake.mutate([created(f"e{number}", f"user_{number}", plan="pro")])
    timings = replace(TIMINGS, budget_window=0.5)
    async with working(box, sqlite_url, timings=timings, clerk_budget=3) as parts:
        await enqueue(parts, "user:user_0", "user:user_1")
        await until(lambda: not wrong(box))


async def test_a_publish_is_synced_at_once_with_the_share_that_is_reserved_for_it(
    box: Sandbox, sqlite_url: str
) -> None:
    box.clerk.add_user("user_1")
    await box.lake.mutate([created("e1", "user_1", plan="pro")])
    async with working(box, sqlite_url, timings=replace(TIMINGS, budget_window=3600.0), clerk_budget=300) as parts:
        while await parts.services.budget.left(REPAIR_LANE):
            await parts.services.budget.take(REPAIR_LANE)
        await enqueue(parts, "user:user_1")
        await until(lambda: not wrong(box))


async def test_a_flood_waits_for_calls_instead_of_listing_a_few_subjects_at_a_time(
    box: Sandbox, sqlite_url: str
) -> None:
    users = [box.clerk.add_user() for _ in range(90)]
    await box.lake.mutate([created(f"e-{user}", user, plan="pro") for user in users])
    clock, timings = ShiftedClock(), replace(TIMINGS, budget_window=3.0)
    async with opened(box, sqlite_url, clock=clock, timings=timings, clerk_budget=60) as parts:
        await enqueue(parts, *(f"user:{user}" for user in users))
        for _ in range(60):  # so that the window opens by one call at a time
            await parts.services.budget.take()
            clock.ahead += timings.budget_window / 60
        async with running_worker(parts.settings, parts.store):
            await until(lambda: not wrong(box))
    assert len(box.clerk.requests.select("GET", "/v1/users")) <= len(users) / 6


async def test_a_window_closes_although_an_outage_outlasted_all_attempts(box: Sandbox, sqlite_url: str) -> None:
    box.clerk.add_user("user_1")
    ends = (datetime.now(UTC) + timedelta(minutes=10)).isoformat(timespec="milliseconds")
    await box.lake.mutate([created("e1", "user_1", plan="pro", endsAt=ends)])
    clock, timings = ShiftedClock(), replace(TIMINGS, max_attempts=1, idle_interval=0.05)
    async with working(box, sqlite_url, clock=clock, timings=timings) as parts:
        await enqueue(parts, "user:user_1")
        await until(lambda: not wrong(box))
        box.clerk.faults.some("unavailable", 1.0)
        await enqueue(parts, "user:user_1")
        await row_when(parts, "user:user_1", lambda row: row is not None and row.dead)
        box.clerk.faults.clear()
        clock.ahead += TIMINGS.dead_letter_retry
        await until(lambda: "plan" not in box.clerk.users["user_1"]["public_metadata"])


async def test_who_was_entitled_a_moment_before_clerk_listed_them_gets_their_access_without_another_event(
    box: Sandbox, sqlite_url: str
) -> None:
    await box.lake.mutate([created("e1", "user_2Q", plan="pro")])
    clock = ShiftedClock()
    async with working(box, sqlite_url, clock=clock, timings=replace(TIMINGS, idle_interval=0.05)) as parts:
        await enqueue(parts, "user:user_2Q")
        await row_when(parts, "user:user_2Q", lambda row: row is not None and row.dead)
        box.clerk.add_user("user_2Q")
        clock.ahead += TIMINGS.clerk_list_lag
        await until(lambda: not wrong(box))


async def test_an_address_that_could_not_be_looked_up_does_not_stay(box: Sandbox, sqlite_url: str) -> None:
    box.clerk.faults.some("unavailable", 1.0)
    clock, timings = ShiftedClock(), replace(TIMINGS, max_attempts=1, idle_interval=0.05)
    async with working(box, sqlite_url, clock=clock, timings=timings) as parts:
        await enqueue(parts, "email:ada@example.org")
        await row_when(parts, "email:ada@example.org", lambda row: row is not None and row.dead)
        box.clerk.faults.clear()
        clock.ahead += TIMINGS.dead_letter_retry
        await row_when(parts, "email:ada@example.org", lambda row: row is None)


def misspelt(tmp_path: Path) -> str:
    """Return a folder of queries whose projection says `pln` for `plan`."""
    folder = tmp_path / "groq"
    shutil.copytree(packaged_groq(), folder)
    mapping = folder / "entitlement.groq"
    mapping.write_text(mapping.read_text().replace('"plan":', '"pln":'))
    return str(folder)


async def test_a_projection_without_a_name_stops_the_work_before_anything_is_taken_away(
    box: Sandbox, sqlite_url: str, tmp_path: Path
) -> None:
    box.clerk.add_user("user_1")
    await box.lake.mutate([created("e1", "user_1", plan="pro")])
    async with working(box, sqlite_url) as parts:
        await enqueue(parts, "user:user_1")
        await until(lambda: not wrong(box))
    with capture_logs() as logs:
        async with working(box, sqlite_url, groq_dir=misspelt(tmp_path)) as parts:
            await enqueue(parts, "user:user_1")
            await until(lambda: any(line["event"] == "worker_paused" for line in logs))
    assert any('"plan" is missing' in str(line.get("detail")) for line in logs)
    assert box.clerk.users["user_1"]["public_metadata"]["plan"] == "pro"


async def test_a_reconcile_with_such_a_projection_ends_before_anything_is_written(
    box: Sandbox, sqlite_url: str, tmp_path: Path
) -> None:
    box.clerk.add_user("user_1")
    await box.lake.mutate([created("e1", "user_1", plan="pro")])
    async with (
        opened(box, sqlite_url, groq_dir=misspelt(tmp_path)) as parts,
        open_reconcile(parts.settings, parts.store, Counter()) as run,
    ):
        with pytest.raises(ConfigurationError, match='"plan" is missing'):
            await run.find()


async def test_more_than_clerk_stores_is_refused_by_name_and_nothing_is_written(box: Sandbox, sqlite_url: str) -> None:
    box.clerk.add_user("user_1", public_metadata={"theme": "x" * 7500})
    await box.lake.mutate([created("e1", "user_1", plan="pro", role="x" * 900)])
    async with working(box, sqlite_url) as parts:
        await enqueue(parts, "user:user_1")
        row = await row_when(parts, "user:user_1", lambda row: row.error_code == "access_too_large")
    assert "user:user_1" in row.error_detail
    assert box.clerk.requests.count("PATCH") == 0

"""The worker with the real parts in one process: what trouble with one must not do to another."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

import pytest
from structlog.testing import capture_logs

from sync_worker.domain.subjects import Subject
from sync_worker.domain.work import NO_CAUSE
from sync_worker.errors import ConfigurationError
from sync_worker.runtime.wiring import open_reconcile, reconciler_of
from sync_worker.settings import packaged_groq
from sync_worker.storage.ledger import Entry
from sync_worker.storage.work_items import WorkItem
from sync_worker.sync.outcome import Due
from sync_worker.worker import lookups
from tests.builders import created
from tests.clock import TIMINGS, ShiftedClock
from tests.expected import deleted, updated
from tests.leases import lease_of
from tests.oracle import GUARD, until, wrong
from tests.parts import opened, working

if TYPE_CHECKING:
    from pathlib import Path

    from sync_worker.domain.revisions import Deleted, Updated
    from sync_worker.sandbox.server import Sandbox
    from sync_worker.sanity.source import Snapshot, Source
    from tests.parts import Parts

pytestmark = pytest.mark.anyio


def expected(box: Sandbox, document: str) -> Updated:
    held = box.lake.documents[document]
    return updated(document, held["_rev"], held["_updatedAt"])


def gone(box: Sandbox, document: str) -> Deleted:
    held = box.lake.documents[document]
    return deleted(document, held["_rev"], held["_updatedAt"])


async def enqueue(parts: Parts, *subjects: str, **given: Any) -> None:
    await parts.store.queue.enqueue([WorkItem(subject, **given) for subject in subjects])


async def row_of(parts: Parts, key: str) -> Any:
    return await parts.store.queue.get(key)


async def test_an_instance_without_organizations_does_not_hold_up_its_users(box: Sandbox, sqlite_url: str) -> None:
    box.clerk.add_user("user_1")
    await box.lake.mutate([created("e1", "user_1", plan="pro")])
    box.clerk.faults.some("forbidden", 1.0, path_prefix="/v1/organizations")
    async with working(box, sqlite_url) as parts:
        await enqueue(parts, "user:user_1", "org:org_1")
        await asyncio.sleep(0)
        await enqueue(parts, "user:user_1")
        await until(lambda: box.clerk.requests.count("GET") > 3)
        box.clerk.faults.clear()
        await until(lambda: not wrong(box))


async def test_a_200_that_is_not_the_user_is_not_a_write(box: Sandbox, sqlite_url: str) -> None:
    box.clerk.add_user("user_1")
    await box.lake.mutate([created("e1", "user_1", plan="pro")])
    box.clerk.faults.next("error_in_ok", method="PATCH")
    async with working(box, sqlite_url) as parts:
        await enqueue(parts, "user:user_1")
        await until(lambda: not wrong(box))
        async with asyncio.timeout(GUARD):
            while [one.state for one in await parts.store.ledger.history("user:user_1")] != ["applied", "unknown"]:
                await asyncio.sleep(0.02)


async def test_a_plan_set_by_hand_survives_an_entitlement_that_starts_later(box: Sandbox, sqlite_url: str) -> None:
    box.clerk.add_user("user_vip", public_metadata={"plan": "vip"})
    starts = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    await box.lake.mutate([created("e1", "user_vip", plan="pro", startsAt=starts)])
    async with working(box, sqlite_url) as parts:
        await enqueue(parts, "user:user_vip", expected=expected(box, "e1"))
        await until(lambda: box.clerk.requests.count("GET") > 0)
        async with asyncio.timeout(GUARD):
            while (await row_of(parts, "user:user_vip")).cause != NO_CAUSE:
                await asyncio.sleep(0.02)
    assert box.clerk.users["user_vip"]["public_metadata"] == {"plan": "vip"}


async def test_the_last_entitlement_goes_although_a_living_course_is_expected_too(
    box: Sandbox, sqlite_url: str
) -> None:
    box.clerk.add_user("user_1")
    await box.lake.mutate(
        [
            {"create": {"_id": "c1", "_type": "course", "slug": {"current": "a"}}},
            created("e1", "user_1", plan="pro"),
        ]
    )
    async with working(box, sqlite_url) as parts:
        await enqueue(parts, "user:user_1")
        await until(lambda: not wrong(box))
        delete = gone(box, "e1")
        await box.lake.mutate([{"delete": {"id": "e1"}}])
        await parts.store.queue.enqueue(
            [WorkItem("user:user_1", 1, expected=expected(box, "c1")), WorkItem("user:user_1", expected=delete)]
        )
        await until(lambda: not wrong(box))


async def test_the_last_entitlement_goes_although_a_plan_that_was_deleted_once_is_there_again(
    box: Sandbox, sqlite_url: str
) -> None:
    box.clerk.add_user("user_1")
    plan = {"_id": "p1", "_type": "plan", "slug": {"current": "pro"}}
    await box.lake.mutate([{"create": plan}, created("e1", "user_1", plan="pro")])
    async with working(box, sqlite_url) as parts:
        reported = gone(box, "p1")
        await box.lake.mutate([{"delete": {"id": "p1"}}])
        await enqueue(parts, "user:user_1", expected=reported)
        await until(lambda: not wrong(box))
        await box.lake.mutate([{"create": plan}])
        delete = gone(box, "e1")
        await box.lake.mutate([{"delete": {"id": "e1"}}])
        await enqueue(parts, "user:user_1", expected=delete)
        await until(lambda: not wrong(box))


async def test_an_edit_is_not_waited_for_that_another_one_in_the_same_moment_replaced(
    box: Sandbox, sqlite_url: str
) -> None:
    box.clerk.add_user("user_1")
    await box.lake.mutate([created("e1", "user_1", plan="pro")])
    replaced = updated("e1", "earlier", box.lake.documents["e1"]["_updatedAt"])
    async with working(box, sqlite_url, timings=replace(TIMINGS, stale_read_waits=(30.0,))) as parts:
        await enqueue(parts, "user:user_1", expected=replaced)
        await until(lambda: not wrong(box))


async def test_where_nothing_is_visible_and_nothing_was_deleted_access_stays(box: Sandbox, sqlite_url: str) -> None:
    box.clerk.add_user("user_1")
    await box.lake.mutate([created("e1", "user_1", plan="pro")])
    async with working(box, sqlite_url) as parts:
        await enqueue(parts, "user:user_1")
        await until(lambda: not wrong(box))
        await box.lake.mutate([{"delete": {"id": "e1"}}])
        await enqueue(parts, "user:user_1")
        async with asyncio.timeout(GUARD):
            while (await row_of(parts, "user:user_1")).error_code != "dataset_empty":
                await asyncio.sleep(0.02)
    assert box.clerk.users["user_1"]["public_metadata"]["plan"] == "pro"


async def test_an_event_without_a_time_is_not_satisfied_by_an_old_read(box: Sandbox, sqlite_url: str) -> None:
    box.clerk.add_user("user_1")
    await box.lake.mutate([created("e1", "user_1", plan="basic")])
    box.lake.lag = 1.0
    revision = await box.lake.mutate([{"patch": {"id": "e1", "set": {"plan": "pro"}}}])
    async with working(box, sqlite_url) as parts:
        await enqueue(parts, "user:user_1", expected=updated("e1", revision))
        await until(lambda: not wrong(box))


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
        async with asyncio.timeout(GUARD):
            while (await row_of(parts, "document:c1")).attempts == 0:
                await asyncio.sleep(0.02)
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


async def test_retry_after_is_kept_where_the_run_is_cut_off_afterwards(box: Sandbox, sqlite_url: str) -> None:
    for user in ("user_a", "user_b"):
        box.clerk.add_user(user)
        await box.lake.mutate([created(f"e-{user}", user, plan="pro")])
    box.clerk.faults.next("rate_limited", 100, method="PATCH", path_prefix="/v1/users/user_a", retry_after=60)
    box.clerk.faults.next("hang", 100, method="PATCH", path_prefix="/v1/users/user_b")
    async with working(box, sqlite_url, timings=replace(TIMINGS, run_deadline=2.0)) as parts:
        await enqueue(parts, "user:user_a", "user:user_b")
        async with asyncio.timeout(GUARD):
            while not (row := await row_of(parts, "user:user_a")).attempts:
                await asyncio.sleep(0.02)
        assert row.error_code == "retryable_error"
        assert row.visible_at - time.time() > 50
        assert (await row_of(parts, "user:user_b")).visible_at - time.time() < 5


def refuse_results(database_url: str) -> None:
    """Make the database refuse to record what became of any change, as a full disk may."""
    with closing(sqlite3.connect(database_url.removeprefix("sqlite:///"))) as connection:
        connection.execute("CREATE TRIGGER full_disk BEFORE UPDATE ON ledger BEGIN INSERT INTO nowhere VALUES (1); END")
        connection.commit()


async def test_retry_after_is_kept_where_the_ledger_cannot_be_written(box: Sandbox, sqlite_url: str) -> None:
    box.clerk.add_user("user_1")
    await box.lake.mutate([created("e1", "user_1", plan="pro")])
    box.clerk.faults.next("rate_limited", 100, method="PATCH", retry_after=60)
    async with working(box, sqlite_url) as parts:
        refuse_results(sqlite_url)
        await enqueue(parts, "user:user_1")
        async with asyncio.timeout(GUARD):
            while not (row := await row_of(parts, "user:user_1")).attempts:
                await asyncio.sleep(0.02)
    assert row.error_code == "rate_limited"
    assert row.visible_at - time.time() > 50


async def test_a_write_that_the_ledger_does_not_know_to_have_ended_is_looked_at_again(
    box: Sandbox, sqlite_url: str
) -> None:
    box.clerk.add_user("user_1")
    await box.lake.mutate([created("e1", "user_1", plan="pro")])
    async with working(box, sqlite_url) as parts:
        refuse_results(sqlite_url)
        await enqueue(parts, "user:user_1")
        await until(lambda: not wrong(box))
        async with asyncio.timeout(GUARD):
            while (row := await row_of(parts, "user:user_1")).pending:
                await asyncio.sleep(0.02)
    assert box.clerk.requests.count("PATCH") == 1
    assert 5 < row.visible_at - time.time() < 15


async def test_no_address_and_no_key_is_in_the_log(box: Sandbox, sqlite_url: str) -> None:
    await box.lake.mutate([created("e1", "ada@example.com", plan="pro")])
    with capture_logs() as logs:
        async with working(box, sqlite_url) as parts:
            await enqueue(parts, "document:e1", lane=1)
            await until(lambda: any(line["event"] == "document_fanned_out" for line in logs))
            row = await row_of(parts, "document:e1")
    assert row.error_code == "row_refused"
    reported = json.dumps(logs, default=str) + row.error_detail
    assert "ada@" not in reported
    assert box.clerk.secret_key not in reported


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


async def test_after_a_write_that_may_land_late_the_subject_is_looked_at_again(box: Sandbox, sqlite_url: str) -> None:
    box.clerk.add_user("user_1")
    await box.lake.mutate([created("e1", "user_1", plan="pro")])
    box.clerk.faults.next("lost", method="PATCH")
    async with working(box, sqlite_url) as parts:
        await enqueue(parts, "user:user_1")
        await until(lambda: not wrong(box))
        async with asyncio.timeout(GUARD):
            while (row := await row_of(parts, "user:user_1")).pending:
                await asyncio.sleep(0.02)
    assert row.visible_at is not None
    assert 5 < row.visible_at - time.time() < 15


@pytest.mark.parametrize("plan", ["old", "pro"])
async def test_an_item_in_between_does_not_undo_the_second_look(box: Sandbox, sqlite_url: str, plan: str) -> None:
    box.clerk.add_user("user_1")
    await box.lake.mutate([created("e1", "user_1", plan="pro")])
    async with working(box, sqlite_url) as parts:
        left_open = {"plan": plan, "courseSlugs": []}
        await parts.store.ledger.intend([Entry("", "user:user_1", "grant", {}, left_open, ["e1"])])
        for _ in range(2):
            await enqueue(parts, "user:user_1")
            async with asyncio.timeout(GUARD):
                while (row := await row_of(parts, "user:user_1")).pending:
                    await asyncio.sleep(0.02)
    assert row.visible_at is not None


async def given_up(parts: Parts, key: str) -> None:
    async with asyncio.timeout(GUARD):
        while (row := await row_of(parts, key)) is None or not row.dead:
            await asyncio.sleep(0.02)


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
        await given_up(parts, "user:user_1")
        box.clerk.faults.clear()
        clock.ahead += TIMINGS.dead_letter_retry
        await until(lambda: "plan" not in box.clerk.users["user_1"]["public_metadata"])


async def test_an_address_that_could_not_be_looked_up_does_not_stay(box: Sandbox, sqlite_url: str) -> None:
    box.clerk.faults.some("unavailable", 1.0)
    clock, timings = ShiftedClock(), replace(TIMINGS, max_attempts=1, idle_interval=0.05)
    async with working(box, sqlite_url, clock=clock, timings=timings) as parts:
        await enqueue(parts, "email:ada@example.org")
        await given_up(parts, "email:ada@example.org")
        box.clerk.faults.clear()
        clock.ahead += TIMINGS.dead_letter_retry
        async with asyncio.timeout(GUARD):
            while await row_of(parts, "email:ada@example.org") is not None:
                await asyncio.sleep(0.02)


async def test_a_bug_tells_of_whom_but_no_address(
    box: Sandbox, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(lookups, "owners", broken)
    async with working(box, sqlite_url) as parts:
        with capture_logs() as logs:
            await enqueue(parts, "email:ada@example.org", "external:crm-7", "document:e1")
            await until(lambda: any(line["event"] == "run_crashed" for line in logs))
    assert "example.org" not in json.dumps(logs, default=str)
    assert any("document:e1" in line.get("keys", ()) for line in logs)


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


async def test_two_edits_in_one_second_do_not_wait_for_the_index_in_vain(box: Sandbox, sqlite_url: str) -> None:
    box.clerk.add_user("user_1")
    await box.lake.mutate([created("e1", "user_1", plan="pro")])
    seen = expected(box, "e1")
    async with working(box, sqlite_url, timings=replace(TIMINGS, stale_read_waits=(30.0,))) as parts:
        both = [
            WorkItem("user:user_1", expected=seen),
            WorkItem("user:user_1", expected=replace(seen, revision="another")),
        ]
        await parts.store.queue.enqueue(both)
        await until(lambda: not wrong(box))


async def test_claims_that_would_not_fit_a_cookie_are_written_and_told_with_their_size(
    box: Sandbox, sqlite_url: str
) -> None:
    box.clerk.add_user("user_1")
    await box.lake.mutate([created("e1", "user_1", plan="pro", role="x" * 900)])
    with capture_logs() as logs:
        async with working(box, sqlite_url, claims_budget=800) as parts:
            await enqueue(parts, "user:user_1")
            await until(lambda: any(line["event"] == "claims_large" for line in logs))
    (reported,) = (line for line in logs if line["event"] == "claims_large")
    held = json.dumps(box.clerk.users["user_1"]["public_metadata"], separators=(",", ":"))
    assert (reported["subject"], reported["bytes"], reported["budget"]) == ("user:user_1", len(held), 800)


async def test_more_than_clerk_stores_is_refused_by_name_and_nothing_is_written(box: Sandbox, sqlite_url: str) -> None:
    box.clerk.add_user("user_1", public_metadata={"theme": "x" * 7500})
    await box.lake.mutate([created("e1", "user_1", plan="pro", role="x" * 900)])
    async with working(box, sqlite_url) as parts:
        await enqueue(parts, "user:user_1")
        async with asyncio.timeout(GUARD):
            while (row := await row_of(parts, "user:user_1")).error_code != "access_too_large":
                await asyncio.sleep(0.02)
    assert "user:user_1" in row.error_detail
    assert box.clerk.requests.count("PATCH") == 0


@dataclass
class EmptyOnce:
    """Reads Sanity, but the first read shows nothing, as with a token that lacks its permissions for a moment."""

    source: Source
    has_read: bool = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.source, name)

    async def by_subject(self, *requested: Any) -> Snapshot:
        snapshot = await self.source.by_subject(*requested)
        first, self.has_read = not self.has_read, True
        return replace(snapshot, rows=(), revisions={}, visible=0) if first else snapshot


async def test_a_token_that_sees_nothing_for_one_read_takes_nothing_away(box: Sandbox, sqlite_url: str) -> None:
    box.clerk.add_user("user_1")
    await box.lake.mutate([created("e1", "user_1", plan="pro"), created("e2", "user_1", plan="pro")])
    async with working(box, sqlite_url) as parts:
        await enqueue(parts, "user:user_1")
        await until(lambda: not wrong(box))
        reported = gone(box, "e1")
        await box.lake.mutate([{"delete": {"id": "e1"}}, {"delete": {"id": "e2"}}])
        await box.lake.mutate([created("e3", "user_1", plan="pro")])
        sees = reconciler_of(parts.settings, parts.store, parts.services)
        run = replace(sees, source=cast("Source", EmptyOnce(parts.services.source)))
        due = Due(Subject.parse("user_1"), lease_of("user:user_1"), (reported,))
        (outcome,) = [outcome async for outcomes in run.run([due]) for outcome in outcomes]
    assert outcome.error is not None
    assert outcome.error.code == "dataset_empty"
    assert box.clerk.users["user_1"]["public_metadata"]["plan"] == "pro"

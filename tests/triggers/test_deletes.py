"""Deletes, moves and unpublishes whose webhook never came: found by the transaction log, or by comparing ids."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from sync_worker.storage.work_items import WorkItem
from sync_worker.triggers.poll import find_published, horizon
from tests.builders import created, weak
from tests.causes import cause_of
from tests.clock import TIMINGS, ShiftedClock
from tests.expected import delete, stored
from tests.oracle import until, until_idle, until_seen, wrong
from tests.parts import poll_of, working

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sync_worker.sandbox.server import Sandbox
    from tests.parts import Parts

pytestmark = pytest.mark.anyio
HOUR = 3600.0


@asynccontextmanager
async def polled(box: Sandbox, database_url: str, count: int, **given: Any) -> AsyncIterator[tuple[Parts, list[str]]]:
    """Run a worker over people who have their access, after a first poll an hour ago."""
    users = [box.clerk.add_user(f"user_{n}") for n in range(count)]
    await box.lake.mutate([created(f"ent-{user}", user, plan="pro") for user in users])
    async with working(box, database_url, **given) as parts:
        await poll_of(parts, ShiftedClock(-HOUR)).run()
        items = [WorkItem(f"user:{user}", cause=cause_of(f"webhook:ent-{user}")) for user in users]
        await parts.store.queue.enqueue(items)
        await until(lambda: not wrong(box))
        await until_idle(database_url)
        yield parts, users


async def test_a_delete_whose_webhook_was_lost_is_found_in_the_transaction_log(box: Sandbox, database_url: str) -> None:
    async with polled(box, database_url, 3) as (parts, users):
        await box.lake.mutate([{"delete": {"id": f"ent-{users[0]}"}}])
        assert (await poll_of(parts, ShiftedClock(1200)).run())[1] == 1
        await until(lambda: not wrong(box))


@pytest.mark.parametrize("trouble", ["forbidden", "garbled", "error_line", "truncated"])
async def test_where_the_log_cannot_be_read_all_ids_are_compared(box: Sandbox, sqlite_url: str, trouble: str) -> None:
    async with polled(box, sqlite_url, 3) as (parts, users):
        await box.lake.mutate([{"delete": {"id": f"ent-{users[0]}"}}])
        box.lake.faults.next(trouble, path_prefix="/v2025-02-19/data/history")
        assert (await poll_of(parts, ShiftedClock(1200)).run())[1] == 1
        await until(lambda: not wrong(box))


async def test_a_gap_longer_than_the_log_is_kept_is_closed_by_comparing_ids(box: Sandbox, sqlite_url: str) -> None:
    async with polled(box, sqlite_url, 3) as (parts, users):
        await box.lake.mutate([{"delete": {"id": f"ent-{users[0]}"}}])
        assert (await poll_of(parts, ShiftedClock(80 * HOUR)).run())[1] == 1
        await until(lambda: not wrong(box))


async def test_a_purged_document_is_found_by_comparing_ids(box: Sandbox, sqlite_url: str) -> None:
    async with polled(box, sqlite_url, 3) as (parts, users):
        await box.lake.mutate([{"delete": {"id": f"ent-{users[0]}", "purge": True}}])
        assert (await poll_of(parts, ShiftedClock(1200), full_check=60).run())[1] == 1
        await until(lambda: not wrong(box))


async def give_course(box: Sandbox, parts: Parts, user: str, database_url: str) -> None:
    """Let an entitlement refer to a cohort, and that one to a course, both weakly: they can be deleted alone."""
    await box.lake.mutate(
        [
            {"create": {"_id": "course-1", "_type": "course", "slug": {"current": "algebra"}}},
            {"create": {"_id": "cohort-1", "_type": "cohort", "courses": [weak("course-1")]}},
            {"patch": {"id": f"ent-{user}", "set": {"cohorts": [weak("cohort-1")]}}},
        ]
    )
    await parts.store.queue.enqueue([WorkItem(f"user:{user}", cause=cause_of("webhook:cohort-1"))])
    await until(lambda: box.clerk.users[user]["public_metadata"].get("courseSlugs") == ["algebra"])
    # A poll finds what was published, so that only what is deleted is left for the next one.
    await find_published(parts.services.source, parts.store.queue, horizon(ShiftedClock(600), TIMINGS))
    await until_idle(database_url)


@pytest.mark.parametrize("deleted", ["course-1", "cohort-1"])
@pytest.mark.parametrize("full_check", [60, 10 * HOUR])
async def test_a_deleted_document_that_entitlements_still_refer_to_is_found_in_the_transaction_log(
    box: Sandbox, database_url: str, deleted: str, full_check: float
) -> None:
    async with polled(box, database_url, 2) as (parts, users):
        await give_course(box, parts, users[0], database_url)
        await box.lake.mutate([{"delete": {"id": deleted}}])
        assert (await poll_of(parts, ShiftedClock(1200), full_check).run())[1] == 1
        await until(lambda: box.clerk.users[users[0]]["public_metadata"].get("courseSlugs") == [])


async def test_a_log_that_could_not_be_read_is_read_from_the_same_moment_later(box: Sandbox, sqlite_url: str) -> None:
    async with polled(box, sqlite_url, 2) as (parts, users):
        await give_course(box, parts, users[0], sqlite_url)
        await box.lake.mutate([{"delete": {"id": "cohort-1"}}])
        box.lake.faults.next("forbidden", path_prefix="/v2025-02-19/data/history")
        assert (await poll_of(parts, ShiftedClock(1200)).run())[1] == 0
        assert (await poll_of(parts, ShiftedClock(1300)).run())[1] == 1


@pytest.mark.parametrize("deleted", ["course-1", "cohort-1"])
async def test_where_the_log_cannot_be_read_entitlements_with_unresolved_references_are_run_again(
    box: Sandbox, sqlite_url: str, deleted: str
) -> None:
    async with polled(box, sqlite_url, 2) as (parts, users):
        await give_course(box, parts, users[0], sqlite_url)
        await box.lake.mutate([{"delete": {"id": deleted}}])
        box.lake.faults.next("forbidden", path_prefix="/v2025-02-19/data/history")
        assert (await poll_of(parts, ShiftedClock(1200)).run())[1] == 0
        await until(lambda: box.clerk.users[users[0]]["public_metadata"].get("courseSlugs") == [])


async def test_where_the_log_cannot_be_read_it_is_found_that_as_many_references_lead_to_nothing_but_others(
    box: Sandbox, sqlite_url: str
) -> None:
    async with polled(box, sqlite_url, 2) as (parts, users):
        await give_course(box, parts, users[0], sqlite_url)
        courses = [weak("course-1"), weak("course-gone")]
        await box.lake.mutate([{"patch": {"id": "cohort-1", "set": {"courses": courses}}}])
        await parts.store.queue.enqueue([WorkItem(f"user:{users[0]}", cause=cause_of("webhook:cohort-1"))])
        noted = f"ent-{users[0]}: unresolved: 1 reference leads to nothing usable; what is left: plan, 1 courseSlugs"
        await until_seen(
            lambda: parts.store.queue.noted(100), lambda rows: [row.error_detail for row in rows] == [noted]
        )
        await find_published(parts.services.source, parts.store.queue, horizon(ShiftedClock(700), TIMINGS))
        await until_idle(sqlite_url)
        await box.lake.mutate([{"delete": {"id": "cohort-1"}}])
        box.lake.faults.next("forbidden", path_prefix="/v2025-02-19/data/history")
        await poll_of(parts, ShiftedClock(1200)).run()
        await until(lambda: box.clerk.users[users[0]]["public_metadata"].get("courseSlugs") == [])


async def test_what_is_noted_as_unresolved_is_not_run_again_by_each_comparison(box: Sandbox, sqlite_url: str) -> None:
    async with polled(box, sqlite_url, 2) as (parts, users):
        await give_course(box, parts, users[0], sqlite_url)
        await box.lake.mutate([{"delete": {"id": "course-1"}}])
        await poll_of(parts, ShiftedClock(1200), full_check=60).run()
        await until(lambda: box.clerk.users[users[0]]["public_metadata"].get("courseSlugs") == [])
        await until_idle(sqlite_url)
        before = await parts.store.queue.get(f"user:{users[0]}")
        await poll_of(parts, ShiftedClock(1300), full_check=60).run()
        await until_idle(sqlite_url)
        assert await parts.store.queue.get(f"user:{users[0]}") == before
        assert before is not None


async def test_deletes_that_concern_nobody_cost_a_query_a_hundred_and_no_work(box: Sandbox, sqlite_url: str) -> None:
    async with polled(box, sqlite_url, 2) as (parts, _):
        articles = [f"article-{n}" for n in range(250)]
        await box.lake.mutate([{"create": {"_id": id_, "_type": "article"}} for id_ in articles])
        await box.lake.mutate([{"delete": {"id": id_}} for id_ in articles])
        assert (await poll_of(parts, ShiftedClock(1200)).run())[1] == 0
        assert sum({"$documents", "$after"} <= {*request.query} for request in box.lake.requests.select()) == 3
        assert await parts.store.queue.get("document:article-0") is None


async def test_a_document_that_became_another_type_is_gone(box: Sandbox, sqlite_url: str) -> None:
    async with polled(box, sqlite_url, 3) as (parts, users):
        changed = {**box.lake.documents[f"ent-{users[0]}"], "_type": "article"}
        await box.lake.mutate([{"createOrReplace": changed}])
        await poll_of(parts, ShiftedClock(1200), full_check=60).run()
        await until(lambda: not wrong(box))


async def test_a_dataset_that_is_restored_from_an_export_keeps_the_access_that_is_in_it(
    box: Sandbox, database_url: str
) -> None:
    async with polled(box, database_url, 4) as (parts, users):
        *exported, _ = box.lake.documents.values()
        await box.lake.mutate([{"delete": {"id": f"ent-{user}"}} for user in users])
        await box.lake.mutate([{"createOrReplace": document} for document in exported])
        assert (await poll_of(parts, ShiftedClock(1200)).run())[1] == 1
        await until_idle(database_url)
        assert [u for u in users if "plan" in box.clerk.users[u]["public_metadata"]] == users[:3]


async def test_an_unpublish_whose_webhook_was_lost_is_found_in_the_transaction_log(
    box: Sandbox, sqlite_url: str
) -> None:
    async with polled(box, sqlite_url, 3) as (parts, users):
        document = f"ent-{users[0]}"
        draft = {**box.lake.documents[document], "_id": f"drafts.{document}"}
        await box.lake.mutate([{"createIfNotExists": draft}, {"delete": {"id": document}}])
        assert (await poll_of(parts, ShiftedClock(1200)).run())[1] == 1
        await until(lambda: not wrong(box))


async def test_a_move_whose_webhook_was_lost_leaves_the_former_owner_without_access(
    box: Sandbox, database_url: str
) -> None:
    async with polled(box, database_url, 3) as (parts, users):
        await box.lake.mutate([{"patch": {"id": f"ent-{users[0]}", "set": {"clerkUserId": users[1]}}}])
        await poll_of(parts, ShiftedClock(1200)).run()
        await until(lambda: not wrong(box))


async def test_a_delete_after_a_move_whose_webhook_was_lost_leaves_the_former_owner_without_access(
    box: Sandbox, sqlite_url: str
) -> None:
    async with polled(box, sqlite_url, 3) as (parts, users):
        document = f"ent-{users[0]}"
        await box.lake.mutate([{"patch": {"id": document, "set": {"clerkUserId": users[1]}}}])
        gone = await delete(box, document)
        cause = cause_of(f"webhook:{document}")
        await parts.store.queue.enqueue([WorkItem(f"user:{users[1]}", cause=cause, expected=gone)])
        await until(lambda: not wrong(box))


async def test_a_former_owner_is_not_read_before_the_index_shows_that_a_document_is_gone(
    box: Sandbox, sqlite_url: str
) -> None:
    async with polled(box, sqlite_url, 2) as (parts, users):
        document = f"ent-{users[0]}"
        box.lake.lag = 1.0
        await box.lake.mutate([{"createOrReplace": {**box.lake.documents[document], "_type": "article"}}])
        cause = cause_of(f"webhook:{document}")
        item = WorkItem(f"document:{document}", lane=1, cause=cause, expected=stored(box, document))
        await parts.store.queue.enqueue([item])
        await until_idle(sqlite_url)
        assert "plan" not in box.clerk.users[users[0]]["public_metadata"]


async def test_a_corrected_id_leaves_nobody_behind(box: Sandbox, sqlite_url: str) -> None:
    async with polled(box, sqlite_url, 2) as (parts, users):
        await box.lake.mutate([{"patch": {"id": f"ent-{users[0]}", "set": {"clerkUserId": "not an id"}}}])
        await poll_of(parts, ShiftedClock(1200)).run()
        await until(lambda: "plan" not in box.clerk.users[users[0]]["public_metadata"])


async def test_what_the_document_store_still_has_is_not_taken_away(box: Sandbox, sqlite_url: str) -> None:
    async with polled(box, sqlite_url, 3) as (parts, users):
        box.lake.faults.next("forbidden", path_prefix="/v2025-02-19/data/history")
        assert (await poll_of(parts, ShiftedClock(1200)).run())[1] == 0
        await until_idle(sqlite_url)
        assert all("plan" in box.clerk.users[user]["public_metadata"] for user in users)


async def test_many_deletes_found_at_once_are_held(box: Sandbox, database_url: str) -> None:
    async with polled(box, database_url, 10, max_revocations="2") as (parts, users):
        await box.lake.mutate([{"delete": {"id": f"ent-{user}"}} for user in users[:4]])
        await poll_of(parts, ShiftedClock(1200)).run()
        await until_idle(database_url)
        (held,) = await parts.store.approvals.changesets()
        assert (held.size, len([u for u in users if "plan" in box.clerk.users[u]["public_metadata"]])) == (4, 10)

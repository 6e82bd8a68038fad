"""Deletes, moves and unpublishes whose webhook never came: found by the transaction log, or by comparing ids."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from sync_worker.storage.work_items import WorkItem
from sync_worker.triggers.poll import Poll
from tests.causes import cause_of
from tests.clock import TIMINGS, ShiftedClock
from tests.expected import deleted, updated
from tests.oracle import until, until_idle, wrong
from tests.parts import working

if TYPE_CHECKING:
    from sync_worker.sandbox.server import Sandbox
    from tests.parts import Parts

pytestmark = pytest.mark.anyio
HOUR = 3600.0


def poll_of(parts: Parts, clock: ShiftedClock, full_check: float = 10 * HOUR) -> Poll:
    return Poll(parts.services.source, parts.store.queue, parts.store.access, clock, TIMINGS, full_check)


async def publish(box: Sandbox, parts: Parts, count: int) -> list[str]:
    """Publish people with access, whom the worker has reconciled, after a first poll."""
    users = [box.clerk.add_user(f"user_{n}") for n in range(count)]
    rows: list[dict[str, Any]] = [
        {"_id": f"ent-{user}", "_type": "entitlement", "clerkUserId": user, "plan": "pro"} for user in users
    ]
    await box.lake.mutate([{"create": row} for row in rows])
    await poll_of(parts, ShiftedClock(-HOUR)).run()
    await parts.store.queue.enqueue([WorkItem(f"user:{user}", cause=cause_of(f"webhook:ent-{user}")) for user in users])
    await until(lambda: not wrong(box))
    await until_idle(parts.settings.database_url)
    return users


async def test_a_delete_whose_webhook_was_lost_is_found_in_the_transaction_log(box: Sandbox, database_url: str) -> None:
    async with working(box, database_url) as parts:
        users = await publish(box, parts, 3)
        await box.lake.mutate([{"delete": {"id": f"ent-{users[0]}"}}])
        assert (await poll_of(parts, ShiftedClock(1200)).run())[1] == 1
        await until(lambda: not wrong(box))


@pytest.mark.parametrize("trouble", ["forbidden", "garbled", "error_line", "truncated"])
async def test_where_the_log_cannot_be_read_all_ids_are_compared(box: Sandbox, sqlite_url: str, trouble: str) -> None:
    async with working(box, sqlite_url) as parts:
        users = await publish(box, parts, 3)
        await box.lake.mutate([{"delete": {"id": f"ent-{users[0]}"}}])
        box.lake.faults.next(trouble, path_prefix="/v2025-02-19/data/history")
        assert (await poll_of(parts, ShiftedClock(1200)).run())[1] == 1
        await until(lambda: not wrong(box))


async def test_a_gap_longer_than_the_log_is_kept_is_closed_by_comparing_ids(box: Sandbox, sqlite_url: str) -> None:
    async with working(box, sqlite_url) as parts:
        users = await publish(box, parts, 3)
        await box.lake.mutate([{"delete": {"id": f"ent-{users[0]}"}}])
        assert (await poll_of(parts, ShiftedClock(80 * HOUR)).run())[1] == 1
        await until(lambda: not wrong(box))


async def test_a_purged_document_is_found_by_comparing_ids(box: Sandbox, sqlite_url: str) -> None:
    async with working(box, sqlite_url) as parts:
        users = await publish(box, parts, 3)
        await box.lake.mutate([{"delete": {"id": f"ent-{users[0]}", "purge": True}}])
        assert (await poll_of(parts, ShiftedClock(1200), full_check=60).run())[1] == 1
        await until(lambda: not wrong(box))


async def test_a_document_that_became_another_type_is_gone(box: Sandbox, sqlite_url: str) -> None:
    async with working(box, sqlite_url) as parts:
        users = await publish(box, parts, 3)
        changed = {**box.lake.documents[f"ent-{users[0]}"], "_type": "article"}
        await box.lake.mutate([{"createOrReplace": changed}])
        await poll_of(parts, ShiftedClock(1200), full_check=60).run()
        await until(lambda: not wrong(box))


async def test_a_dataset_that_is_restored_from_an_export_keeps_the_access_that_is_in_it(
    box: Sandbox, database_url: str
) -> None:
    async with working(box, database_url) as parts:
        users = await publish(box, parts, 4)
        *exported, _ = box.lake.documents.values()
        await box.lake.mutate([{"delete": {"id": f"ent-{user}"}} for user in users])
        await box.lake.mutate([{"createOrReplace": document} for document in exported])
        assert (await poll_of(parts, ShiftedClock(1200)).run())[1] == 1
        await until_idle(database_url)
        assert [u for u in users if "plan" in box.clerk.users[u]["public_metadata"]] == users[:3]


async def test_an_unpublish_whose_webhook_was_lost_is_found_in_the_transaction_log(
    box: Sandbox, sqlite_url: str
) -> None:
    async with working(box, sqlite_url) as parts:
        users = await publish(box, parts, 3)
        document = f"ent-{users[0]}"
        draft = {**box.lake.documents[document], "_id": f"drafts.{document}"}
        await box.lake.mutate([{"createIfNotExists": draft}, {"delete": {"id": document}}])
        assert (await poll_of(parts, ShiftedClock(1200)).run())[1] == 1
        await until(lambda: not wrong(box))


async def test_a_move_whose_webhook_was_lost_leaves_the_former_owner_without_access(
    box: Sandbox, database_url: str
) -> None:
    async with working(box, database_url) as parts:
        users = await publish(box, parts, 3)
        await box.lake.mutate([{"patch": {"id": f"ent-{users[0]}", "set": {"clerkUserId": users[1]}}}])
        await poll_of(parts, ShiftedClock(1200)).run()
        await until(lambda: not wrong(box))


async def test_a_delete_after_a_move_whose_webhook_was_lost_leaves_the_former_owner_without_access(
    box: Sandbox, sqlite_url: str
) -> None:
    async with working(box, sqlite_url) as parts:
        users = await publish(box, parts, 3)
        document = f"ent-{users[0]}"
        await box.lake.mutate([{"patch": {"id": document, "set": {"clerkUserId": users[1]}}}])
        stored = box.lake.documents[document]
        await box.lake.mutate([{"delete": {"id": document}}])
        gone = deleted(document, stored["_rev"], stored["_updatedAt"])
        cause = cause_of(f"webhook:{document}")
        await parts.store.queue.enqueue([WorkItem(f"user:{users[1]}", cause=cause, expected=gone)])
        await until(lambda: not wrong(box))


async def test_a_former_owner_is_not_read_before_the_index_shows_that_a_document_is_gone(
    box: Sandbox, sqlite_url: str
) -> None:
    async with working(box, sqlite_url) as parts:
        users = await publish(box, parts, 2)
        document = f"ent-{users[0]}"
        box.lake.lag = 1.0
        await box.lake.mutate([{"createOrReplace": {**box.lake.documents[document], "_type": "article"}}])
        stored = box.lake.documents[document]
        changed = updated(document, stored["_rev"], stored["_updatedAt"])
        cause = cause_of(f"webhook:{document}")
        await parts.store.queue.enqueue([WorkItem(f"document:{document}", lane=1, cause=cause, expected=changed)])
        await until_idle(sqlite_url)
        assert "plan" not in box.clerk.users[users[0]]["public_metadata"]


async def test_a_corrected_id_leaves_nobody_behind(box: Sandbox, sqlite_url: str) -> None:
    async with working(box, sqlite_url) as parts:
        users = await publish(box, parts, 2)
        await box.lake.mutate([{"patch": {"id": f"ent-{users[0]}", "set": {"clerkUserId": "not an id"}}}])
        await poll_of(parts, ShiftedClock(1200)).run()
        await until(lambda: "plan" not in box.clerk.users[users[0]]["public_metadata"])


async def test_what_the_document_store_still_has_is_not_taken_away(box: Sandbox, sqlite_url: str) -> None:
    async with working(box, sqlite_url) as parts:
        users = await publish(box, parts, 3)
        box.lake.faults.next("forbidden", path_prefix="/v2025-02-19/data/history")
        assert (await poll_of(parts, ShiftedClock(1200)).run())[1] == 0
        await until_idle(sqlite_url)
        assert all("plan" in box.clerk.users[user]["public_metadata"] for user in users)


async def test_many_deletes_found_at_once_are_held(box: Sandbox, database_url: str) -> None:
    async with working(box, database_url, max_revocations="2") as parts:
        users = await publish(box, parts, 10)
        await box.lake.mutate([{"delete": {"id": f"ent-{user}"}} for user in users[:4]])
        await poll_of(parts, ShiftedClock(1200)).run()
        await until_idle(database_url)
        (held,) = await parts.store.approvals.changesets()
        assert (held.size, len([u for u in users if "plan" in box.clerk.users[u]["public_metadata"]])) == (4, 10)

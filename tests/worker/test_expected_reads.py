"""A run acts on a read that reflects what events reported, and on no older one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import pytest

from sync_worker.domain.subjects import Subject
from sync_worker.runtime.wiring import reconciler_of
from sync_worker.storage.work_items import WorkItem
from sync_worker.sync.outcome import Due
from tests.builders import created
from tests.clock import TIMINGS
from tests.expected import delete, deletion_of, stored, updated
from tests.leases import lease_of
from tests.oracle import until, wrong
from tests.parts import working
from tests.worker.items import enqueue, row_when

if TYPE_CHECKING:
    from sync_worker.sandbox.server import Sandbox
    from sync_worker.sanity.source import Snapshot, Source

pytestmark = pytest.mark.anyio


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
        reported = await delete(box, "e1")
        await parts.store.queue.enqueue(
            [WorkItem("user:user_1", 1, expected=stored(box, "c1")), WorkItem("user:user_1", expected=reported)]
        )
        await until(lambda: not wrong(box))


async def test_the_last_entitlement_goes_although_a_plan_that_was_deleted_once_is_there_again(
    box: Sandbox, sqlite_url: str
) -> None:
    box.clerk.add_user("user_1")
    plan = {"_id": "p1", "_type": "plan", "slug": {"current": "pro"}}
    await box.lake.mutate([{"create": plan}, created("e1", "user_1", plan="pro")])
    async with working(box, sqlite_url) as parts:
        reported = await delete(box, "p1")
        await enqueue(parts, "user:user_1", expected=reported)
        await until(lambda: not wrong(box))
        await box.lake.mutate([{"create": plan}])
        reported = await delete(box, "e1")
        await enqueue(parts, "user:user_1", expected=reported)
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
        await row_when(parts, "user:user_1", lambda row: row.error_code == "dataset_empty")
    assert box.clerk.users["user_1"]["public_metadata"]["plan"] == "pro"


async def test_an_event_without_a_time_is_not_satisfied_by_an_old_read(box: Sandbox, sqlite_url: str) -> None:
    box.clerk.add_user("user_1")
    await box.lake.mutate([created("e1", "user_1", plan="basic")])
    box.lake.lag = 1.0
    revision = await box.lake.mutate([{"patch": {"id": "e1", "set": {"plan": "pro"}}}])
    async with working(box, sqlite_url) as parts:
        await enqueue(parts, "user:user_1", expected=updated("e1", revision))
        await until(lambda: not wrong(box))


async def test_two_edits_in_one_second_do_not_wait_for_the_index_in_vain(box: Sandbox, sqlite_url: str) -> None:
    box.clerk.add_user("user_1")
    await box.lake.mutate([created("e1", "user_1", plan="pro")])
    seen = stored(box, "e1")
    async with working(box, sqlite_url, timings=replace(TIMINGS, stale_read_waits=(30.0,))) as parts:
        both = [
            WorkItem("user:user_1", expected=seen),
            WorkItem("user:user_1", expected=replace(seen, revision="another")),
        ]
        await parts.store.queue.enqueue(both)
        await until(lambda: not wrong(box))


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
        reported = deletion_of(box, "e1")
        await box.lake.mutate([{"delete": {"id": "e1"}}, {"delete": {"id": "e2"}}])
        await box.lake.mutate([created("e3", "user_1", plan="pro")])
        sees = reconciler_of(parts.settings, parts.store, parts.services)
        run = replace(sees, source=cast("Source", EmptyOnce(parts.services.source)))
        due = Due(Subject.parse("user_1"), lease_of("user:user_1"), (reported,))
        (outcome,) = [outcome async for outcomes in run.run([due]) for outcome in outcomes]
    assert outcome.error is not None
    assert outcome.error.code == "dataset_empty"
    assert box.clerk.users["user_1"]["public_metadata"]["plan"] == "pro"

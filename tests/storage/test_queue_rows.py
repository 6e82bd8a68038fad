"""What the queue shows of its rows, and which rows it drops."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sync_worker.storage import queue_admin as admin
from sync_worker.storage.queue_admin import Depth, LaneDepth
from sync_worker.storage.work_items import Completed, DeadLettered, Retry, WorkItem
from tests.causes import cause_of
from tests.expected import updated
from tests.leases import holds
from tests.storage.queues import DOCUMENT, LEASE, A, B, C, claim_one

if TYPE_CHECKING:
    from sync_worker.storage.queue import WorkQueue
    from tests.clock import ManualClock

pytestmark = pytest.mark.anyio


async def test_depth_counts_each_lane(queue: WorkQueue, clock: ManualClock) -> None:
    await queue.enqueue(
        [WorkItem(A), WorkItem(B), WorkItem(C, lane=2, visible_at=clock.now() + 60), WorkItem(DOCUMENT, lane=1)]
    )
    await queue.enqueue([WorkItem(f"user:user_{n}", lane=2) for n in range(3)])
    (claim,) = await queue.claim(0, 1, LEASE)
    (dead, noted) = await queue.claim(2, 2, LEASE)
    await queue.complete([DeadLettered(dead, "x", ""), Completed(noted, error_code="row_refused")])
    clock.advance(5)
    assert await queue.depth() == Depth(
        (LaneDepth(0, 1, 0, 1), LaneDepth(1, 1, 0, 0), LaneDepth(2, 1, 1, 0)), failed=1, noted=1, oldest=5
    )
    clock.advance(LEASE)
    assert (await queue.depth()).lanes[0] == LaneDepth(0, 2, 0, 0)
    assert await holds(queue, [claim]) == set()


async def test_an_empty_queue_has_no_depth(queue: WorkQueue) -> None:
    nothing = tuple(LaneDepth(lane, 0, 0, 0) for lane in admin.LANES)
    assert await queue.depth() == Depth(nothing, failed=0, noted=0, oldest=0)


async def test_a_row_shows_how_a_subject_is_doing(queue: WorkQueue, clock: ManualClock) -> None:
    assert await queue.get(A) is None
    await queue.enqueue([WorkItem(A, lane=1, cause=cause_of("webhook"))])
    waiting = await queue.get(A)
    assert waiting is not None
    assert (waiting.pending, waiting.lease_token, waiting.visible_at, waiting.last_finished_at) == (
        True,
        None,
        clock.now(),
        None,
    )
    claim = await claim_one(queue, lane=1)
    running = await queue.get(A)
    assert running is not None
    assert (running.lease_token, running.visible_at) == (claim.lease_token, claim.lease_until)
    clock.advance(1)
    await queue.complete([Completed(claim)])
    finished = await queue.get(A)
    assert finished is not None
    assert (finished.pending, finished.lease_token) == (False, None)
    assert (finished.visible_at, finished.last_finished_at) == (None, clock.now())


async def test_only_rows_that_nobody_needs_are_purged(queue: WorkQueue, clock: ManualClock) -> None:
    names = ["idle", "dead", "noted", "scheduled", "retried", "running"]
    await queue.enqueue([WorkItem(f"user:user_{name}", expected=updated("d", "r")) for name in names])
    claims = {claim.key.removeprefix("user:user_"): claim for claim in await queue.claim(0, 10, 1e6)}
    await queue.complete(
        [
            Completed(claims["idle"], wrote=True),
            DeadLettered(claims["dead"], "x", ""),
            Completed(claims["noted"], error_code="row_refused"),
            Completed(claims["scheduled"], next_due=clock.now() + 1e6),
            Retry(claims["retried"], "x", "", 1e6),
        ]
    )
    await queue.enqueue([WorkItem("user:user_waiting")])
    clock.advance(1)
    assert await queue.purge(0) == 0  # it has just been written, and its pace must be kept
    clock.advance(3599)
    assert await queue.purge(3600) == 0
    clock.advance(1)
    assert await queue.purge(3600) == 1
    kept = {name for name in [*names, "waiting"] if await queue.get(f"user:user_{name}")}
    assert kept == {*names, "waiting"} - {"idle"}


async def test_a_purge_of_many_rows_goes_in_small_steps(queue: WorkQueue, clock: ManualClock) -> None:
    many = admin.PURGE_BATCH * 2
    await queue.enqueue([WorkItem(f"user:user_{n}") for n in range(many)])
    await queue.complete([Completed(claim) for claim in await queue.claim(0, many, LEASE)])
    clock.advance(60)
    assert await queue.purge(30) == many
    assert await queue.purge(30) == 0


async def test_a_named_value_is_kept_with_its_time(queue: WorkQueue, clock: ManualClock) -> None:
    assert await queue.recall("cursor") is None
    await queue.remember("cursor", "1")
    clock.advance(5)
    await queue.remember("cursor", "2")
    assert await queue.recall("cursor") == ("2", clock.now())
    clock.advance(3)
    assert (await queue.age("cursor"), await queue.age("nothing")) == (3.0, None)

"""What a finished run has served stays known for a while: a read that falls behind it later is not believed."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import pytest

from sync_worker.errors import StaleRead
from sync_worker.runtime.wiring import reconciler_of
from sync_worker.storage.work_items import WorkItem
from sync_worker.worker.jobs import Jobs
from tests.builders import created
from tests.causes import cause_of
from tests.clock import TIMINGS, ImpatientClock
from tests.expected import stored
from tests.oracle import wrong
from tests.parts import opened

if TYPE_CHECKING:
    from sync_worker.sandbox.server import Sandbox
    from tests.parts import Parts

pytestmark = pytest.mark.anyio
ADA = "user:user_ada"


async def run(parts: Parts, *items: WorkItem) -> str:
    """Enqueue items and run their subjects once; return the code that the first one's row has then."""
    jobs = Jobs(
        parts.store.queue,
        reconciler_of(parts.settings, parts.store, parts.services),
        parts.store.runtime.clock,
        TIMINGS,
    )
    await jobs.reconcile_subjects(await parts.store.queue.enqueue_and_claim(items, TIMINGS.lease))
    row = await parts.store.queue.get(items[0].key)
    assert row is not None
    return row.error_code


def webhook_of(box: Sandbox, document: str) -> WorkItem:
    """Return what the webhook of a publish enqueues."""
    return WorkItem(ADA, expected=stored(box, document), cause=cause_of(f"webhook:{document}"))


async def begin(box: Sandbox, parts: Parts) -> None:
    box.clerk.add_user("user_ada")
    await box.lake.mutate([created("e1", "user_ada", plan="pro"), created("e2", "user_other", plan="pro")])
    assert await run(parts, webhook_of(box, "e1")) == ""
    assert not wrong(box)


@pytest.mark.parametrize(
    "change",
    [{"plan": "free"}, {"status": "cancelled"}, {"clerkUserId": "user_other"}],
    ids=["a lower plan", "cancelled", "moved"],
)
async def test_a_read_older_than_a_served_update_does_not_bring_access_back(
    box: Sandbox, database_url: str, change: dict[str, str]
) -> None:
    async with opened(box, database_url, clock=ImpatientClock()) as parts:
        await begin(box, parts)
        before = copy.deepcopy(box.lake.documents)
        await box.lake.mutate([{"patch": {"id": "e1", "set": change}}])
        assert await run(parts, webhook_of(box, "e1")) == ""
        held = copy.deepcopy(box.clerk.users["user_ada"]["public_metadata"])
        assert held.get("plan") != "pro"

        await box.lake.show(before)
        assert await run(parts, WorkItem(ADA, cause=cause_of("clerk:user.updated"))) == StaleRead("").code
        assert box.clerk.users["user_ada"]["public_metadata"] == held

        await box.lake.show(box.lake.documents)
        assert await run(parts, WorkItem(ADA)) == ""
        assert box.clerk.users["user_ada"]["public_metadata"] == held


async def test_what_was_deleted_without_an_event_is_gone_although_an_update_was_served(
    box: Sandbox, database_url: str
) -> None:
    async with opened(box, database_url) as parts:
        await begin(box, parts)
        await box.lake.mutate([{"delete": {"id": "e1"}}])
        assert await run(parts, WorkItem(ADA, cause=cause_of("sync"))) == ""
        assert "plan" not in box.clerk.users["user_ada"]["public_metadata"]

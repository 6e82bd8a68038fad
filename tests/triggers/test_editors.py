"""Who caused a change: the ledger names the editor, however the event arrived."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from sync_worker.domain.work import editor
from sync_worker.storage.work_items import WorkItem
from sync_worker.sync.document_events import items_of, parse
from tests.builders import created, reference
from tests.clock import TIMINGS, ShiftedClock
from tests.oracle import until, until_idle, wrong
from tests.parts import poll_of, working

if TYPE_CHECKING:
    from sync_worker.sandbox.server import Sandbox
    from tests.parts import Parts

pytestmark = pytest.mark.anyio
QUICK = replace(TIMINGS, listen_reconnect=0.05, listen_lease=1.0, poll_grace=0.01)
ADA, BEN = "p-ada", "p-ben"


async def writes(parts: Parts, subject: str = "user:user_1") -> list[tuple[str, str]]:
    """Return cause and editor of each write to a subject, oldest first."""
    return [(entry.cause, entry.by) for entry in reversed(await parts.store.ledger.history(subject))]


async def test_the_stream_says_who_published_and_who_deleted(box: Sandbox, database_url: str) -> None:
    box.clerk.add_user("user_1")
    async with working(box, database_url, events="listen", timings=QUICK) as parts:
        await box.lake.listeners.wait_connected(1)
        await box.lake.mutate([created("e1", "user_1", plan="pro")], author=ADA)
        await until(lambda: not wrong(box))
        await box.lake.mutate([{"delete": {"id": "e1"}}], author=BEN)
        await until(lambda: "plan" not in box.clerk.users["user_1"]["public_metadata"])
        await until(lambda: not wrong(box))
        assert await writes(parts) == [("listen:e1", ADA), ("listen:e1", BEN)]


async def test_the_editor_who_renames_a_course_is_the_editor_of_all_that_follows(box: Sandbox, sqlite_url: str) -> None:
    box.clerk.add_user("user_1")
    async with working(box, sqlite_url, events="listen", timings=QUICK) as parts:
        await box.lake.listeners.wait_connected(1)
        await box.lake.mutate([{"create": {"_id": "c1", "_type": "course", "slug": {"current": "algebra"}}}])
        await box.lake.mutate([created("e1", "user_1", courses=[reference("c1")])], author=ADA)
        await until(lambda: not wrong(box))
        await until_idle(sqlite_url)
        await box.lake.mutate([{"patch": {"id": "c1", "set": {"slug.current": "geometry"}}}], author=BEN)
        await until(lambda: not wrong(box))
        assert await writes(parts) == [("listen:e1", ADA), ("document:c1", BEN)]


async def test_the_transaction_log_says_who_deleted(box: Sandbox, database_url: str) -> None:
    box.clerk.add_user("user_1")
    async with working(box, database_url) as parts:
        await box.lake.mutate([created("e1", "user_1", plan="pro")])
        store = parts.store
        for clock in (ShiftedClock(-3600), ShiftedClock(1200)):
            await poll_of(parts, clock).run()
            await store.queue.enqueue([WorkItem("user:user_1")])
            await until(lambda: not wrong(box))
            await until_idle(database_url)  # a poll finds what was written a while ago, and indexed since
            await box.lake.mutate([{"delete": {"id": "e1"}}], author=BEN)
        await until(lambda: "plan" not in box.clerk.users["user_1"]["public_metadata"])
        await until(lambda: not wrong(box))
        assert (await writes(parts))[-1][1] == BEN


BODY = {
    "v": 1,
    "operation": "update",
    "projectId": "p",
    "dataset": "d",
    "id": "e1",
    "type": "entitlement",
    "before": None,
    "after": {"_type": "entitlement", "clerkUserId": "user_1"},
}


@pytest.mark.parametrize(
    ("given", "by"), [({"by": ADA}, ADA), ({}, ""), ({"by": None}, ""), ({"by": 7}, ""), ({"by": "<a b>"}, "")]
)
def test_a_webhook_may_say_who_published_and_counts_all_the_same(given: dict[str, Any], by: str) -> None:
    event = parse(json.dumps({**BODY, **given}).encode())
    assert event is not None
    (item,) = items_of(event, "delivery", 0.0, 60.0)
    assert (item.key, str(item.cause), item.cause.by) == ("user:user_1", "webhook:e1", by)


@pytest.mark.parametrize("value", ["", "a" * 129, "a b", "a@example.org", "<script>", None, ["p"]])
def test_what_is_no_id_of_an_editor_is_not_kept(value: object) -> None:
    assert not editor(value)

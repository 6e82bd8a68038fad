"""Without any webhook, in real processes: whatever the log, the stream and the processes go through, nobody is wrong.

`LISTEN_EVENTS=10000 LISTEN_KILLS=100 pytest -s -m full -k killed tests/triggers/test_full_size.py` is a long run; `-s`
shows the figures.
"""

from __future__ import annotations

import asyncio
import os
import time
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from sync_worker.sandbox.listeners import ListenFaults
from tests.crash.load import Editors
from tests.crash.site import Site
from tests.crash.test_under_load import Immortal
from tests.oracle import GUARD, until, until_seen, wrong

if TYPE_CHECKING:
    from pathlib import Path

    from sync_worker.sandbox.server import Sandbox

pytestmark = [pytest.mark.anyio, pytest.mark.full("real processes, and the minute that the poll leaves to webhooks")]
EACH = 50
PEOPLE = 100
POLLED = 90.0 + GUARD
EVENTS = int(os.environ.get("LISTEN_EVENTS", "400"))
KILLS = int(os.environ.get("LISTEN_KILLS", "8"))
LOG = "/v2025-02-19/data/history"
QUERY = "/v2025-02-19/data/query"


@pytest.fixture
def site(box: Sandbox, sqlite_url: str, tmp_path: Path) -> Site:
    return Site(box, sqlite_url, tmp_path)


def row(document: str, user: str) -> dict[str, Any]:
    return {"_id": document, "_type": "entitlement", "clerkUserId": user, "plan": "pro"}


async def begin(site: Site, rows: list[dict[str, Any]], **settings: str) -> None:
    """Publish entitlements, and reconcile everybody."""
    site.environment |= {"POLL_SECONDS": "2", "MAX_REVOCATIONS": "1000", **settings}
    await site.box.lake.mutate([{"create": one} for one in rows])
    assert await site.ends("reconcile") == 0, site.reported()


async def first_poll(site: Site) -> None:
    """Wait until a poll has noted from where on the next ones look."""
    async with site.store() as store:
        await until_seen(lambda: store.queue.recall("deletes"))


async def connected(site: Site) -> None:
    async with asyncio.timeout(GUARD):
        await site.box.lake.listeners.wait_connected(1)


@pytest.mark.parametrize("log_is_forbidden", [False, True], ids=["by the log", "by the ids"])
async def test_lost_deletes_unpublishes_moves_and_corrected_ids_are_found_by_the_poll(
    site: Site, log_is_forbidden: bool
) -> None:
    box = site.box
    users = [box.clerk.add_user(f"user_{n:03}") for n in range(4 * EACH)]
    others = [box.clerk.add_user(f"user_other_{n:03}") for n in range(EACH)]
    ids = [f"ent-{n:03}" for n in range(4 * EACH)]
    named = [*users[: 3 * EACH], *(f"{user}_typo" for user in users[3 * EACH :])]
    await begin(site, list(map(row, ids, named)), FULL_CHECK_SECONDS="5" if log_is_forbidden else "3600")
    if log_is_forbidden:
        box.lake.faults.some("forbidden", 1.0, path_prefix=LOG)
    async with site.worker():
        await first_poll(site)
        started = time.monotonic()
        await box.lake.mutate([{"delete": {"id": id_}} for id_ in ids[:EACH]])
        for id_, user in zip(ids[EACH : 2 * EACH], users[EACH:], strict=False):
            draft = {**row(id_, user), "_id": f"drafts.{id_}"}
            await box.lake.mutate([{"createOrReplace": draft}, {"delete": {"id": id_}}])
        for id_, other in zip(ids[2 * EACH : 3 * EACH], others, strict=True):
            await box.lake.mutate([{"patch": {"id": id_, "set": {"clerkUserId": other}}}])
        for id_, user in zip(ids[3 * EACH :], users[3 * EACH :], strict=True):
            await box.lake.mutate([{"patch": {"id": id_, "set": {"clerkUserId": user}}}])
        await until(lambda: not wrong(box), POLLED)
        print(f"\n{4 * EACH} changes without a webhook are right after {time.monotonic() - started:.0f} s")
        await site.comes_to_rest()


async def test_garbage_in_the_log_and_in_queries_revokes_nobody(site: Site) -> None:
    box = site.box
    users = [box.clerk.add_user(f"user_{n:03}") for n in range(PEOPLE)]
    await begin(site, [row(f"ent-{user}", user) for user in users], FULL_CHECK_SECONDS="5")
    writes = box.clerk.requests.count("PATCH")
    for fault in ("garbled", "error_line", "truncated", "forbidden"):
        box.lake.faults.some(fault, 0.3, path_prefix=LOG)
    for fault in ("garbled", "truncated", "error_in_ok"):
        box.lake.faults.some(fault, 0.3, path_prefix=QUERY)
    requested = box.lake.requests.count()
    async with site.worker():
        await until(lambda: box.lake.requests.count() > requested + 30)
    assert box.clerk.requests.count("PATCH") == writes
    assert not wrong(box)


async def test_many_deletes_at_once_are_held(site: Site) -> None:
    box = site.box
    users = [box.clerk.add_user(f"user_{n:03}") for n in range(PEOPLE)]
    await begin(site, [row(f"ent-{user}", user) for user in users], MAX_REVOCATIONS="10%")
    async with site.worker(), site.store() as store:
        await first_poll(site)
        await box.lake.mutate([{"delete": {"id": f"ent-{user}"}} for user in users[:40]])
        async with asyncio.timeout(POLLED):
            while sum(one.size for one in await store.approvals.changesets()) != 40:
                await asyncio.sleep(0.1)
    assert sum("plan" in user["public_metadata"] for user in box.clerk.users.values()) == PEOPLE


async def test_two_hundred_edits_and_deletes_are_received(site: Site) -> None:
    box, started = site.box, time.monotonic()
    editors = await Editors.begin(box, 60)
    site.environment |= {"EVENTS": "listen", "SANITY_WEBHOOK_SECRET": "", "POLL_SECONDS": "0"}
    async with site.receiver("serve"):
        await connected(site)
        for _ in range(200):
            await editors.edit()
        await site.until_in_sync()
    print(f"\n{editors.made} edits reported, {time.monotonic() - started:.0f} s")


@pytest.mark.parametrize(
    ("events", "cuts", "kills", "dropped"),
    [pytest.param(300, 20, 3, 0.05, id="cut-and-dropped"), pytest.param(EVENTS, 0, KILLS, 0.0, id="killed")],
)
async def test_however_the_stream_and_its_listener_end_nobody_is_wrong(
    site: Site, events: int, cuts: int, kills: int, dropped: float
) -> None:
    box, random, started = site.box, Random(7), time.monotonic()
    editors = await Editors.begin(box, max(60, events // 20))
    # Without a poll nothing but the stream, and the catch-up where it cannot go on, may find what was missed.
    polls = "2" if dropped else "0"
    site.environment |= {"EVENTS": "listen", "SANITY_WEBHOOK_SECRET": "", "POLL_SECONDS": polls}
    # What one catch-up finds after a kill is one cause, whose losses would be held; here nobody is there to approve. A
    # percentage would be of the last reconcile, and there was none.
    site.environment["MAX_REVOCATIONS"] = str(events)
    assert await site.ends("release") == 0, site.reported()
    listener = Immortal(site.worker)
    try:
        await connected(site)
        await first_poll(site)
        box.lake.listeners.faults = ListenFaults(drop=dropped, duplicate=0.05, delay=0.05)
        cut_at = set(random.sample(range(events), cuts))
        killed_at = set(random.sample(range(events // 20, events), kills))
        for number in range(events):
            await editors.edit()
            if number in cut_at:
                box.lake.listeners.cut()
            if number in killed_at:
                await connected(site)
                await asyncio.sleep(random.uniform(0.0, 0.05))
                listener.kill()
        await site.until_in_sync(POLLED)
    finally:
        await listener.end()
    print(
        f"\n{editors.made} edits, {cuts} cuts, {kills} kills, {listener.starts} starts, "
        f"{box.lake.listeners.sent} events sent, {box.lake.listeners.dropped} dropped, "
        f"{time.monotonic() - started:.0f} s, wrong {len(wrong(box))}"
    )

"""Several web and worker processes on one PostgreSQL, each as if it was on a machine of its own; and deploys.

`CRASH_EDITS=2000` is the run that is not done every time.
"""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import httpx
import pytest

from sync_worker.cli.processes import free_port
from sync_worker.storage.migrations import STEPS
from sync_worker.storage.work_items import WorkItem
from tests.crash.grants import busiest, granted, keep_grants
from tests.crash.load import Account, Editors
from tests.crash.site import Site
from tests.oracle import GUARD, until, wrong
from tests.trouble import Trouble

if TYPE_CHECKING:
    from pathlib import Path

    from sync_worker.sandbox.server import Sandbox

pytestmark = pytest.mark.anyio
EDITS = int(os.environ.get("CRASH_EDITS", "300"))
ELSEWHERE = Trouble(elsewhere=True)
LEASES_END = "UPDATE work SET visible_at = 0 WHERE lease_token IS NOT NULL AND key <> 'user:user_later'"
DEPLOYS = pytest.mark.full("releases roll out seldom")


@pytest.fixture
def site(box: Sandbox, postgres_url: str, tmp_path: Path) -> Site:
    return Site(box, postgres_url, tmp_path)


def second(site: Site) -> Site:
    """Return the same installation as the next machine sees it."""
    other = replace(site, port=free_port())
    other.log, other.environment = site.folder / "second", site.environment
    return other


async def publish(site: Site, user: str) -> None:
    row = {"_id": f"e-{user}", "_type": "entitlement", "clerkUserId": user, "plan": "pro"}
    await site.box.lake.mutate([{"create": row}])


@pytest.mark.full("hundreds of edits")
async def test_two_web_and_two_worker_processes_share_the_work(site: Site) -> None:
    box, machines = site.box, (site, second(site))
    editors, account = await Editors.begin(box, 50), Account(box)
    box.clerk.faults.latency = 0.02
    async with AsyncExitStack() as stack:
        for machine in machines:
            await stack.enter_async_context(machine.receiver(trouble=ELSEWHERE))
            await stack.enter_async_context(machine.worker(ELSEWHERE))
            machine.install_hook()  # each web process hears of every edit
        for _ in range(EDITS):
            await editors.edit()
        await box.lake.hooks_idle()
        await site.until_in_sync()
        async with site.store() as store:
            assert await account.lost(store) == 0
    assert all("access_changed" in machine.log.read_text() for machine in machines)


@pytest.mark.full("waits out Clerk's window of ten seconds")
async def test_all_processes_together_stay_within_the_budget(site: Site) -> None:
    box, budget = site.box, 30
    site.environment["CLERK_BUDGET"] = str(budget)
    users = [box.clerk.add_user(f"user_{n}") for n in range(45)]
    await keep_grants(site)
    async with site.receiver(), site.worker(ELSEWHERE), second(site).worker(ELSEWHERE):
        site.install_hook()
        for user in users:
            await publish(site, user)
        await site.until_in_sync()
    calls = await granted(site)
    assert budget < box.clerk.requests.count() <= calls.total(), "the budget was never used up, or not by every call"
    assert busiest(calls) <= budget


async def test_the_work_of_a_machine_that_is_lost_is_taken_over_when_its_lease_ends_and_no_sooner(site: Site) -> None:
    box = site.box
    users = [box.clerk.add_user(f"user_{n}") for n in range(20)]
    for user in users:
        await publish(site, user)
    box.clerk.faults.some("hang", 1.0, method="PATCH")
    async with site.store() as store:
        await store.queue.enqueue([WorkItem(f"user:{user}") for user in users])
        async with site.worker(ELSEWHERE) as lost:
            await until(lambda: box.clerk.faults.hits["hang"] >= len(users))
            lost.kill()
            await lost.wait()
        box.clerk.faults.release()
        await until(lambda: all(request.ended for request in box.clerk.requests.writes))
        async with second(site).worker(replace(ELSEWHERE, lease=1.0)):
            await publish(site, box.clerk.add_user("user_later"))
            await store.queue.enqueue([WorkItem("user:user_later")])
            await until(lambda: wrong(box) == users)
            await store.database.run(lambda tx: tx.execute(LEASES_END))
            await store.queue.enqueue([WorkItem("user:user_later")])  # a worker that waits looks again
            await site.until_in_sync()


@pytest.mark.full("one more clock that is wrong")
async def test_a_machine_whose_clock_is_an_hour_off_says_that_it_is_ready_all_the_same(site: Site) -> None:
    jumps = Trouble(clock_jump=3600.0)
    async with site.worker(), site.receiver(trouble=jumps) as web, httpx.AsyncClient() as client:
        await until_ready(client, site)
        web.send_signal(signal.SIGUSR1)
        checks = (await client.get(f"{site.url}/readyz")).json()["checks"]
    assert (checks["database"]["ok"], checks["worker"]["ok"]) == (True, True)
    assert 0 <= checks["worker"]["age"] < 30


async def until_ready(client: httpx.AsyncClient, site: Site) -> None:
    async with asyncio.timeout(GUARD):
        while not (await client.get(f"{site.url}/readyz")).json()["checks"].get("worker", {}).get("ok"):
            await asyncio.sleep(0.05)


@DEPLOYS
async def test_an_older_release_works_on_while_a_newer_one_is_rolled_out_and_after_a_rollback(site: Site) -> None:
    box, newer = site.box, Trouble(steps=((1, "ALTER TABLE work ADD COLUMN news TEXT NOT NULL DEFAULT ''"),))
    users = [box.clerk.add_user(f"user_{n}") for n in range(3)]
    async with site.receiver(), site.worker():
        site.install_hook()
        await publish(site, users[0])
        await site.until_in_sync()
        assert await site.ends("release", newer) == 0
        await publish(site, users[1])
        await site.until_in_sync()
    async with site.receiver(trouble=newer), site.worker(), second(site).worker(newer):
        await publish(site, users[2])
        await site.until_in_sync()
        async with site.store() as store:
            assert await store.database.schema_version() == len(STEPS) + 1


@DEPLOYS
async def test_an_older_release_that_cannot_work_any_more_refuses_to_start_and_loses_nothing(site: Site) -> None:
    box, account = site.box, Account(site.box)
    breaking = len(STEPS) + 1, "ALTER TABLE work RENAME COLUMN cause_kind TO reason"
    users = [box.clerk.add_user(f"user_{n}") for n in range(2)]
    async with site.receiver() as older:
        site.install_hook()
        await publish(site, users[0])
        await box.lake.hooks_idle()
        assert await site.ends("release", Trouble(steps=(breaking,))) == 0
        await publish(site, users[1])
        await until(lambda: account.by_status()[503] > 0)
        assert account.by_status().keys() == {202, 503}
        assert older.returncode is None
    assert await site.ends("worker") == 1
    assert "Install the newer release again." in site.log.read_text()
    back = "ALTER TABLE work RENAME COLUMN reason TO cause_kind"
    newest = Trouble(steps=(breaking, (len(STEPS) + 2, back)))
    async with site.receiver(trouble=newest), site.worker(newest):
        await box.lake.hooks_idle()
        await until(lambda: not wrong(box))

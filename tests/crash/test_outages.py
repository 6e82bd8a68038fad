"""Clerk or Sanity is down, slow, hung or refuses us: the receiver goes on accepting, work waits, recovery is smooth."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.crash.grants import busiest, granted, keep_grants
from tests.crash.load import Account
from tests.crash.site import Site
from tests.oracle import until, wrong
from tests.trouble import Trouble

if TYPE_CHECKING:
    from pathlib import Path

    from sync_worker.sandbox.faults import Faults
    from sync_worker.sandbox.server import Sandbox

pytestmark = pytest.mark.anyio
OUTAGE = 1.0
"""Seconds in which the worker's requests are counted."""
MOST_REQUESTS = 100
"""Requests a second to both services in an outage; a worker that spins makes thousands."""
PLENTY, TIGHT = 100_000, 50
PENDING = "SELECT COUNT(*) FROM work WHERE generation > completed_generation"


@pytest.fixture
def site(box: Sandbox, sqlite_url: str, tmp_path: Path) -> Site:
    return Site(box, sqlite_url, tmp_path)


def faults_of(box: Sandbox, service: str) -> Faults:
    return box.clerk.faults if service == "Clerk" else box.lake.faults


async def metric(site: Site, name: str) -> float:
    """Return what /metrics says, all labels together."""
    async with httpx.AsyncClient() as client:
        text = (await client.get(f"{site.url}/metrics")).text
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))


async def publish(site: Site, users: int, kind: str = "first") -> None:
    """Publish for so many users; return once Sanity has reported it."""
    for number in range(users):
        user = site.box.clerk.add_user(f"user_{kind}_{number}")
        row = {"_id": f"e-{user}", "_type": "entitlement", "clerkUserId": user, "plan": "pro"}
        await site.box.lake.mutate([{"create": row}])
    await site.box.lake.hooks_idle()


@pytest.mark.parametrize(
    ("service", "fault", "budget", "users"),
    [
        ("Clerk", "unavailable", PLENTY, 5),
        ("Sanity", "unavailable", PLENTY, 5),
        pytest.param("Clerk", "rate_limited", PLENTY, 40, marks=pytest.mark.full("one more outage")),
        pytest.param("Clerk", "unavailable", TIGHT, 40, marks=pytest.mark.full("waits out Clerk's window")),
    ],
)
async def test_work_waits_for_a_service_that_is_down_and_does_not_rush_it_when_it_is_back(
    site: Site, service: str, fault: str, budget: int, users: int
) -> None:
    box, account = site.box, Account(site.box)
    site.environment["CLERK_BUDGET"] = str(budget)
    faults_of(box, service).some(fault, 1.0)
    await keep_grants(site)
    async with site.receiver("serve"):
        site.install_hook()
        await publish(site, users)
        assert account.by_status().keys() == {202}
        await until(lambda: faults_of(box, service).hits[fault] > 0)
        began, requested = time.monotonic(), requests_of(box)
        await until(lambda: time.monotonic() - began > OUTAGE)
        assert (requests_of(box) - requested) / (time.monotonic() - began) < MOST_REQUESTS
        assert await waiting(site) == users
        async with httpx.AsyncClient() as client:
            checks = (await client.get(f"{site.url}/readyz")).json()["checks"]
            assert (checks["database"]["ok"], checks["worker"]["ok"]) == (True, True)
        faults_of(box, service).clear()
        await site.until_in_sync()
        assert (await waiting(site), await metric(site, "sync_worker_failed")) == (0, 0)
    calls = await granted(site)
    assert box.clerk.requests.count() <= calls.total()
    assert busiest(calls) <= budget


def requests_of(box: Sandbox) -> int:
    """Return how many requests both services have had."""
    return box.clerk.requests.count() + box.lake.requests.count()


async def waiting(site: Site) -> int:
    """Return how many subjects the database holds that a finished run has not served."""
    async with site.store() as store:
        return int((await store.database.read(lambda tx: tx.execute(PENDING)))[0][0])


@pytest.mark.full("every answer takes most of a second")
async def test_slow_answers_only_slow_work_down(site: Site) -> None:
    site.box.clerk.faults.latency = site.box.lake.faults.latency = 0.8
    async with site.receiver("serve"):
        site.install_hook()
        await publish(site, 40)
        await site.until_in_sync()
    assert not site.is_logged("run_failed")


async def test_a_subject_whose_writes_hang_holds_up_nobody_else(site: Site) -> None:
    box = site.box
    box.clerk.faults.some("hang", 1.0, path_prefix="/v1/users/user_first_")
    async with site.receiver("serve"):
        site.install_hook()
        await publish(site, 2)
        await until(lambda: box.clerk.faults.hits["hang"] > 0)
        await publish(site, 10, "later")
        await until(lambda: wrong(box) == ["user_first_0", "user_first_1"])
        box.clerk.faults.clear()
        await until(lambda: not wrong(box))


@pytest.mark.full("waits until the connections time out")
async def test_reads_that_hang_hold_up_only_those_who_wait_on_them(site: Site) -> None:
    box = site.box
    box.clerk.faults.next("hang", 2, method="GET")
    async with site.receiver("serve"):
        site.install_hook()
        await publish(site, 2)
        await until(lambda: box.clerk.faults.hits["hang"] > 0)
        hanging = set(wrong(box))
        await publish(site, 20, "later")
        await until(lambda: set(wrong(box)) <= hanging)
        box.clerk.faults.clear()
        await site.until_in_sync()


@pytest.mark.full("waits for probes of a key that is refused, which the worlds do in the quick run")
@pytest.mark.parametrize("service", ["Clerk", "Sanity"])
async def test_a_key_that_is_refused_stops_work_loudly_until_it_is_right_again(site: Site, service: str) -> None:
    box, account = site.box, Account(site.box)
    faults_of(box, service).some("unauthorized", 1.0)
    async with site.receiver("serve", Trouble(probe_after=1.0)):
        site.install_hook()
        await publish(site, 40)
        assert account.by_status().keys() == {202}
        await until(lambda: site.is_logged("worker_paused"))
        began, requested = time.monotonic(), requests_of(box)
        await until(lambda: requests_of(box) > requested)  # it is probed
        await until(lambda: time.monotonic() - began > OUTAGE)
        assert requests_of(box) - requested < 10 * (time.monotonic() - began), "only now and then"
        faults_of(box, service).clear()
        await site.until_in_sync()

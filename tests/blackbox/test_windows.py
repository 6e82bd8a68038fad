"""Access that begins and ends at a set time, without any webhook: also after a crash, also when the time is edited."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from sync_worker.cli.processes import install_hook, settings_for
from tests import nursery
from tests.nursery import listening, process
from tests.oracle import until, until_idle, wrong

if TYPE_CHECKING:
    from pathlib import Path

    from sync_worker.sandbox.server import Sandbox
    from tests.blackbox.conftest import Deployment

pytestmark = pytest.mark.anyio
virtual = pytest.mark.full("waits for real seconds; every commit does it on a virtual clock: tests/worker, tests/sim")


def ahead(seconds: float) -> tuple[str, float]:
    """Return a moment as Sanity writes it, and on the monotonic clock."""
    moment = datetime.now(UTC) + timedelta(seconds=seconds)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"), time.monotonic() + seconds


async def publish(box: Sandbox, **fields: Any) -> None:
    await box.lake.mutate(
        [{"createOrReplace": {"_id": "e1", "_type": "entitlement", "clerkUserId": "user_1", "plan": "pro", **fields}}]
    )


def plan(box: Sandbox) -> Any:
    return box.clerk.users["user_1"]["public_metadata"].get("plan")


@pytest.fixture(autouse=True)
def user(box: Sandbox) -> None:
    box.clerk.add_user("user_1")


@pytest.mark.usefixtures("deployment")
async def test_access_ends_at_its_second_without_a_webhook(box: Sandbox) -> None:
    await publish(box, endsAt=ahead(3600)[0])
    await until(lambda: plan(box) == "pro")
    text, end = ahead(2)
    await publish(box, endsAt=text)
    await box.lake.hooks_idle()
    box.lake.webhooks.deliveries.pause()
    await until(lambda: plan(box) is None)
    assert time.monotonic() >= end


@pytest.mark.usefixtures("deployment")
async def test_access_begins_at_its_second_without_a_webhook(box: Sandbox) -> None:
    text, begin = ahead(2)
    await publish(box, startsAt=text)
    await box.lake.hooks_idle()
    box.lake.webhooks.deliveries.pause()
    await until(lambda: plan(box) == "pro")
    assert time.monotonic() >= begin


@virtual
@pytest.mark.usefixtures("deployment")
async def test_a_window_that_is_moved_ends_at_the_new_second(box: Sandbox) -> None:
    await publish(box, endsAt=ahead(3600)[0])
    await until(lambda: plan(box) == "pro")
    text, end = ahead(2)
    await publish(box, endsAt=text)
    await until(lambda: plan(box) is None)
    assert time.monotonic() >= end


@virtual
async def test_a_window_that_is_prolonged_does_not_end_at_the_old_second(box: Sandbox, deployment: Deployment) -> None:
    await publish(box, endsAt=ahead(3600)[0])
    await until(lambda: plan(box) == "pro")
    text, end = ahead(2)
    await publish(box, endsAt=text)
    await publish(box, endsAt=ahead(3600)[0])
    await box.lake.hooks_idle()
    await until(lambda: time.monotonic() > end)
    await until_idle(deployment.environment["DATABASE_URL"])
    assert plan(box) == "pro"


@virtual
async def test_access_ends_on_time_although_the_worker_was_killed_in_between(
    box: Sandbox, database_url: str, tmp_path: Path
) -> None:
    environment, log = settings_for(box, database_url), tmp_path / "log"
    async with listening("web", environment, log) as url:
        install_hook(box, url)
        async with process("worker", environment, log) as worker:
            await publish(box, endsAt=ahead(3600)[0])
            await until(lambda: plan(box) == "pro")
            text, end = ahead(3)
            await publish(box, endsAt=text)
            await box.lake.hooks_idle()
            await until_idle(environment["DATABASE_URL"])
            worker.kill()
            await worker.wait()
        async with process("worker", environment, log):
            await until(lambda: plan(box) is None)
            assert time.monotonic() >= end


@virtual
async def test_the_reconcile_arms_the_windows_of_a_fresh_database(
    box: Sandbox, database_url: str, tmp_path: Path
) -> None:
    environment, log = settings_for(box, database_url), tmp_path / "log"
    text, end = ahead(12)
    await publish(box, endsAt=text)
    assert (await nursery.run("reconcile", cwd=tmp_path, environment=environment)).code == 0
    assert plan(box) == "pro"
    async with process("worker", environment, log):
        await until(lambda: plan(box) is None)
        assert time.monotonic() >= end


@virtual
@pytest.mark.usefixtures("deployment")
async def test_a_paused_status_takes_access_away_and_an_active_one_gives_it(box: Sandbox) -> None:
    await publish(box, status="active")
    await until(lambda: plan(box) == "pro")
    await publish(box, status="paused")
    await until(lambda: plan(box) is None)
    await publish(box)
    await until(lambda: not wrong(box))
    assert plan(box) == "pro"

"""Trouble of the machine: the receiver answers 503, never a 4xx or a 500, and afterwards everything is right."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import subprocess
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import psycopg
import pytest

from tests.crash.load import Account, Editors
from tests.crash.site import Site
from tests.nursery import NOTHING_WRONG
from tests.oracle import GUARD, until, wrong
from tests.trouble import Trouble

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from contextlib import AbstractContextManager

    from sync_worker.sandbox.server import Sandbox
    from tests.nursery import Child
    from tests.postgres_server import PostgresServer

pytestmark = pytest.mark.anyio

ROOM_ON_A_SMALL_DISK = "size=2m"
ON_POSTGRES = pytest.mark.full("the same on PostgreSQL")


async def publish(site: Site, user: str, plan: str = "pro") -> None:
    row = {"_id": f"e-{user}", "_type": "entitlement", "clerkUserId": user, "plan": plan}
    await site.box.lake.mutate([{"createOrReplace": row}])


@asynccontextmanager
async def serving(site: Site, trouble: Trouble = NOTHING_WRONG) -> AsyncIterator[Child]:
    """Run `serve` and install the webhook; one user is right already."""
    site.install_hook()
    async with site.receiver("serve", trouble) as running:
        await publish(site, site.box.clerk.add_user("user_before"))
        await site.until_in_sync()
        yield running


async def refuses_more(account: Account) -> None:
    seen = account.by_status()[503]
    await until(lambda: account.by_status()[503] > seen)


async def refuses_for_now(site: Site, account: Account) -> None:
    """Publish for somebody: the webhook is answered 503, and the process says that it is not ready."""
    await publish(site, site.box.clerk.add_user("user_during"))
    await refuses_more(account)
    async with httpx.AsyncClient(timeout=GUARD) as client:
        assert (await client.get(f"{site.url}/readyz")).status_code == 503
        assert (await client.get(f"{site.url}/healthz")).status_code == 200
    assert wrong(site.box) == ["user_during"]


@contextmanager
def files_cannot_grow(running: Child, database: Path) -> Iterator[None]:
    """A file size limit: a write beyond it fails, as on a disk with a quota. It needs no rights."""
    size = database.with_name(f"{database.name}-wal").stat().st_size
    before = resource.prlimit(running.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    yield
    resource.prlimit(running.pid, resource.RLIMIT_FSIZE, before)


async def test_a_file_that_cannot_grow_is_503_until_it_can(box: Sandbox, sqlite_url: str, tmp_path: Path) -> None:
    site, account = Site(box, sqlite_url, tmp_path), Account(box)
    async with serving(site) as running:
        with files_cannot_grow(running, tmp_path / "work.db"):
            await refuses_for_now(site, account)
        await box.lake.hooks_idle()
        await site.until_in_sync()
        assert running.returncode is None
    assert account.by_status().keys() == {202, 503}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own; only root may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", ROOM_ON_A_SMALL_DISK, "tmpfs", str(disk)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a file system cannot be mounted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def fill(disk: Path) -> Path:
    """Leave no byte."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    assert os.statvfs(disk).f_bavail == 0
    return ballast


@pytest.mark.full("a file that cannot grow shows the same, and needs no rights")
async def test_a_full_disk_is_503_until_there_is_room(box: Sandbox, small_disk: Path, tmp_path: Path) -> None:
    site, account = Site(box, f"sqlite:///{small_disk}/work.db", tmp_path), Account(box)
    async with serving(site) as running:
        ballast = fill(small_disk)
        await refuses_for_now(site, account)
        ballast.unlink()
        await box.lake.hooks_idle()
        await site.until_in_sync()
        assert running.returncode is None
    assert account.by_status().keys() == {202, 503}


@pytest.mark.full("one more trouble of a disk, on both databases")
async def test_a_log_that_cannot_be_written_stops_nothing(site: Site) -> None:
    account = Account(site.box)
    site.log = Path("/dev/full")
    async with serving(site) as running:
        await publish(site, site.box.clerk.add_user("user_1"))
        await site.box.lake.hooks_idle()
        await site.until_in_sync()
        assert running.returncode is None
    assert account.by_status().keys() == {202}


@contextmanager
def locked_sqlite(url: str) -> Iterator[None]:
    holder = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    yield
    holder.execute("ROLLBACK")
    holder.close()


@contextmanager
def locked_postgres(url: str) -> Iterator[None]:
    with psycopg.connect(url) as holder:
        holder.execute("LOCK TABLE work, state IN ACCESS EXCLUSIVE MODE")
        yield
        holder.rollback()


LOCKED: dict[str, Callable[[str], AbstractContextManager[None]]] = {
    "sqlite": locked_sqlite,
    "postgresql": locked_postgres,
}


@pytest.mark.parametrize("database_url", ["sqlite_url", pytest.param("postgres_url", marks=ON_POSTGRES)], indirect=True)
async def test_a_lock_that_is_held_longer_than_we_wait_is_503_until_it_is_free(site: Site) -> None:
    account = Account(site.box)
    async with serving(site, Trouble(patience=1)) as running:
        with LOCKED[site.database_url.partition(":")[0]](site.database_url):
            await refuses_for_now(site, account)
        await site.box.lake.hooks_idle()
        await site.until_in_sync()
        assert running.returncode is None
    assert account.by_status().keys() == {202, 503}


@pytest.mark.full("120 edits; a restart without load is in tests/blackbox/test_interruptions.py")
async def test_a_database_that_restarts_under_load_loses_nothing(
    box: Sandbox, own_server: PostgresServer, tmp_path: Path
) -> None:
    site = Site(box, own_server.url, tmp_path)
    editors, account = await Editors.begin(box, 30), Account(box)
    site.install_hook()
    async with site.receiver() as receiver, site.worker(Trouble(lease=6.0)) as worker:
        for number in range(120):
            await editors.edit()
            if number == 60:
                await until(lambda: box.clerk.requests.count("PATCH") > 0)
                own_server.stop()
                await editors.edit()
                await refuses_more(account)
                own_server.start()
        await box.lake.hooks_idle()
        await site.until_in_sync()
        async with site.store() as store:
            assert await account.lost(store) == 0
        assert (receiver.returncode, worker.returncode) == (None, None)
    assert account.by_status().keys() == {202, 503}


@pytest.mark.parametrize(
    ("database_url", "jump"),
    [
        pytest.param("sqlite_url", 3600.0, id="ahead"),
        *(
            pytest.param(url, jump, marks=pytest.mark.full("both directions, on both databases"))
            for url, jump in (("sqlite_url", -3600.0), ("postgres_url", 3600.0), ("postgres_url", -3600.0))
        ),
    ],
    indirect=["database_url"],
)
async def test_a_clock_that_jumps_by_an_hour_holds_up_nobody(site: Site, jump: float) -> None:
    box = site.box
    async with serving(site, Trouble(clock_jump=jump)) as running:
        os.kill(running.pid, signal.SIGUSR1)
        await publish(site, box.clerk.add_user("user_after"))
        await publish(site, "user_before", plan="basic")
        await site.until_in_sync()
        box.clerk.faults.hold(1, method="PATCH")
        await publish(site, "user_before", plan="team")
        await until(lambda: box.clerk.faults.held == 1)
        os.kill(running.pid, signal.SIGUSR1)
        box.clerk.faults.release()
        await site.until_in_sync()

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from sync_worker.runtime.wiring import open_database
from sync_worker.storage.process_identity import identity, is_gone
from sync_worker.storage.queue import WorkQueue
from sync_worker.storage.work_items import WorkItem
from tests.clock import CLOCK, TIMINGS
from tests.leases import holds

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.anyio
WAITING = "from sync_worker.storage.process_identity import identity; print(identity(), flush=True); input()"


@pytest.fixture
def other() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Another process of this machine, and who it says it is."""
    command = [sys.executable, "-c", WAITING]
    with subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
        process.kill()


def test_a_process_that_lives_is_not_gone(other: tuple[subprocess.Popen[str], str]) -> None:
    assert other[1] != identity()
    assert not is_gone(other[1])


def test_a_process_that_was_killed_is_gone(other: tuple[subprocess.Popen[str], str]) -> None:
    process, name = other
    process.kill()
    process.wait()
    assert is_gone(name)


def test_a_killed_process_that_nobody_waited_for_is_gone(other: tuple[subprocess.Popen[str], str]) -> None:
    process, name = other
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert is_gone(name)


def test_a_process_id_that_was_given_to_another_process_is_gone(other: tuple[subprocess.Popen[str], str]) -> None:
    assert is_gone(other[1].rpartition("/")[0] + "/1")


@pytest.mark.parametrize("name", ["", "another-boot/1/2/3", "x/y/not-a-number/z", "a/b/c"])
def test_of_other_machines_nothing_is_known(name: str) -> None:
    assert not is_gone(name)


@pytest.fixture
def without_proc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A machine whose system does not identify its processes."""
    identity.cache_clear()
    monkeypatch.setattr("sync_worker.storage.process_identity._PROC", tmp_path)
    yield
    identity.cache_clear()


@pytest.mark.usefixtures("without_proc")
@pytest.mark.parametrize("name", ["", "boot/1/2/3"])
def test_where_processes_do_not_know_who_they_are_nothing_is_known(name: str) -> None:
    assert identity() == ""
    assert not is_gone(name)


async def test_the_subjects_of_a_killed_process_are_due_at_once(
    other: tuple[subprocess.Popen[str], str], database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    process, name = other
    database = open_database(database_url, CLOCK, TIMINGS)
    await database.start()
    queue = WorkQueue(database, TIMINGS)
    try:
        await queue.enqueue([WorkItem("user:mine"), WorkItem("user:theirs", lane=1)])
        (mine,) = await queue.claim(0, 10, 30.0)
        monkeypatch.setattr("sync_worker.storage.queue.identity", lambda: name)
        await queue.claim(1, 10, 30.0)
        assert await queue.reclaim_orphaned() == 0
        process.kill()
        process.wait()
        assert await queue.reclaim_orphaned() == 1
        assert [claim.key for claim in await queue.claim(1, 10, 30.0)] == ["user:theirs"]
        assert await holds(queue, [mine]) == {"user:mine"}
    finally:
        await database.close()

"""The work queue under real processes that share it, and that are killed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sync_worker.runtime.wiring import open_database
from sync_worker.storage.queue import WorkQueue
from tests.clock import CLOCK, TIMINGS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from sync_worker.storage.database import Database

pytestmark = pytest.mark.anyio

PROGRAM = Path(__file__).parents[1] / "queue_process.py"
DEADLINE = 120.0


class Program:
    """One process. What it reports goes to a file, so that it never waits for us."""

    def __init__(self, url: str, output: Path) -> None:
        self.output = output
        with output.open("wb") as file:
            self.process = subprocess.Popen([sys.executable, PROGRAM, url], stdin=subprocess.PIPE, stdout=file)

    @property
    def reported(self) -> list[list[Any]]:
        whole_lines, _, _ = self.output.read_text().rpartition("\n")  # it may be writing one just now
        return [json.loads(line) for line in whole_lines.splitlines()]

    def listen(self, lines: int) -> None:
        """Wait until it has reported so many things."""
        deadline = time.monotonic() + DEADLINE
        while len(self.reported) < lines:
            assert time.monotonic() < deadline
            assert self.process.poll() is None, "the process ended by itself"
            time.sleep(0.002)

    def kill(self) -> None:
        """SIGKILL, in the middle of whatever it does."""
        self.process.kill()
        self.process.wait(DEADLINE)
        assert self.process.stdin is not None
        self.process.stdin.close()

    def end(self) -> None:
        """Let it enqueue no more, and work until nothing is due."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def wait(self) -> None:
        assert self.process.wait(DEADLINE) == 0


class Fleet:
    """Processes on one database."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self.programs: list[Program] = []

    def start(self) -> Program:
        program = Program(self.url, self.folder / f"reported-{len(self.programs)}")
        self.programs.append(program)
        return program

    @property
    def reported(self) -> list[list[Any]]:
        return [what for program in self.programs for what in program.reported]

    @property
    def items(self) -> Counter[str]:
        return Counter(key for what, key, *_ in self.reported if what == "item")

    @property
    def runs(self) -> dict[str, list[tuple[float, float]]]:
        runs: dict[str, list[tuple[float, float]]] = {}
        for what, key, *times in self.reported:
            if what == "run":
                runs.setdefault(key, []).append((times[0], times[1]))
        return runs


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Database]:
    database = open_database(database_url, CLOCK, TIMINGS)
    await database.start()
    yield database
    await database.close()


@pytest.fixture
def fleet(database_url: str, db: Database, tmp_path: Path) -> Iterator[Fleet]:  # noqa: ARG001 - its tables are there
    fleet = Fleet(database_url, tmp_path)
    yield fleet
    for program in fleet.programs:
        if program.process.poll() is None:
            program.kill()


async def assert_all_is_well(fleet: Fleet, db: Database) -> None:
    """Every acknowledged item is counted, everything has been done, and no two runs of a subject overlapped."""
    generations: dict[str, int] = dict(await db.read(lambda tx: tx.execute("SELECT key, generation FROM work")))
    assert all(generations[key] >= items for key, items in fleet.items.items())
    assert await WorkQueue(db, TIMINGS).next_due() is None
    assert await db.read(lambda tx: tx.execute("SELECT key FROM work WHERE generation <> completed_generation")) == []
    for key, runs in fleet.runs.items():
        for (_, end), (begin, _) in pairwise(sorted(runs)):
            assert end <= begin, key


@pytest.mark.parametrize(
    "database_url",
    [pytest.param("sqlite_url", marks=pytest.mark.full("the same on SQLite")), "postgres_url"],
    indirect=True,
)
async def test_processes_that_share_the_work_never_overlap_and_finish_all(fleet: Fleet, db: Database) -> None:
    first, second = fleet.start(), fleet.start()
    first.listen(400)
    second.listen(400)
    first.end()
    second.end()
    first.wait()
    second.wait()
    assert fleet.runs.keys() == fleet.items.keys()
    await assert_all_is_well(fleet, db)


MANY = pytest.mark.full("more kills, on both databases")


@pytest.mark.parametrize(
    ("database_url", "kills"),
    [
        pytest.param("sqlite_url", (37,), id="one-kill"),
        pytest.param("sqlite_url", (37, 110, 3, 260, 71), id="kills-sqlite", marks=MANY),
        pytest.param("postgres_url", (37, 110, 3, 260, 71), id="kills-postgres", marks=MANY),
    ],
    indirect=["database_url"],
)
async def test_what_a_killed_process_acknowledged_is_there_and_its_work_is_taken_over(
    fleet: Fleet, db: Database, kills: tuple[int, ...]
) -> None:
    survivor = fleet.start()
    for lines in kills:
        victim = fleet.start()
        victim.listen(lines)
        victim.kill()
    survivor.listen(1)
    survivor.end()
    survivor.wait()
    await assert_all_is_well(fleet, db)

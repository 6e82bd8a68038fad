"""What a batch costs beside a list of held losses: the same, however long the list is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import pytest

from sync_worker.runtime.wiring import open_database
from sync_worker.storage import approvals as statements
from sync_worker.storage.approvals import Approvals, HeldChange
from tests.clock import CLOCK, TIMINGS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path

    from sync_worker.storage.database import Database, Parameters, Row, Transaction

pytestmark = pytest.mark.anyio
BATCH = 100
SHORT, LONG = 30, 30_000
KEYED = (
    "DROP_EXPIRED_SUBJECTS",
    "HOLD",
    "PROLONG",
    "LISTS_OF",
    "RELEASE",
    "DROP_EMPTY",
    "DROP_SUBJECTS",
    "SUBJECTS",
)


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    database = open_database(f"sqlite:///{tmp_path / 'work.db'}", CLOCK, TIMINGS)
    await database.start()
    yield database
    await database.close()


@dataclass
class Counted:
    """A database that counts its statements, and the rows that they take and return."""

    db: Database
    statements: int = 0
    rows: int = 0
    tx: Any = field(default=None)

    async def run(self, work: Any) -> Any:
        return await self.db.run(lambda tx: work(self._watch(tx)))

    async def read(self, work: Any) -> Any:
        return await self.db.read(lambda tx: work(self._watch(tx)))

    def _watch(self, tx: Transaction) -> Counted:
        self.tx = tx
        return self

    def execute(self, sql: str, parameters: Parameters = ()) -> list[Row]:
        return self._count(1, self.tx.execute(sql, parameters))

    def executemany(self, sql: str, parameters: Iterable[Parameters]) -> list[Row]:
        several = list(parameters)
        return self._count(len(several), self.tx.executemany(sql, several))

    def _count(self, times: int, found: list[Row]) -> list[Row]:
        self.statements += times
        self.rows += len(found)
        return found


def changes(numbers: range) -> list[HeldChange]:
    return [HeldChange(f"user:user_{number:06}", {"plan": "pro"}, {}) for number in numbers]


async def cost_of_a_batch(db: Database, listed: int) -> tuple[int, int]:
    """Return the statements and rows that a batch of the guard takes when so many losses are held already."""
    await Approvals(db, TIMINGS).hold("document:plan", changes(range(listed)), "too many")
    counted = Counted(db)
    approvals = Approvals(cast("Database", counted), TIMINGS)
    batch = changes(range(LONG, LONG + BATCH))
    subjects = [change.subject for change in batch]
    await approvals.lists_of(subjects)
    await approvals.count_losses("document:plan", subjects)
    await approvals.hold("document:plan", batch, "too many")
    await approvals.release(subjects)
    return counted.statements, counted.rows


async def test_a_batch_costs_the_same_beside_a_long_list_as_beside_a_short_one(db: Database) -> None:
    short = await cost_of_a_batch(db, SHORT)
    assert await cost_of_a_batch(db, LONG) == short


@pytest.mark.parametrize("name", KEYED)
async def test_no_statement_of_a_batch_reads_the_whole_list(db: Database, name: str) -> None:
    sql = getattr(statements, name)
    plan = await db.run(lambda tx: tx.execute(f"EXPLAIN QUERY PLAN {sql}", ("0",) * sql.count("?")))
    assert [row[-1] for row in plan if row[-1].startswith("SCAN held")] == []

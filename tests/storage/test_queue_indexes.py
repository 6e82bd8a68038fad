"""Every question to the queue is answered by an index."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sync_worker.runtime.wiring import open_database
from sync_worker.storage import expected_revisions, queue_statements
from sync_worker.storage import queue_admin as admin
from tests.clock import CLOCK, TIMINGS
from tests.storage.queues import LEASE

if TYPE_CHECKING:
    from sync_worker.storage.database import Parameters, Transaction

pytestmark = pytest.mark.anyio


COUNTING = "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"

SCHEDULED = f"""{COUNTING}
INSERT INTO work
  (key, kind, lane, visible_at, generation, completed_generation, error_code, dead, last_finished_at)
SELECT 'user:user_' || i, CASE WHEN i % 10 = 0 THEN 'document' ELSE 'subject' END, i % 3, NOW() + 3600 + i,
  1, 1, '', 0, NOW()
FROM n
""".replace("%", "%%")

IDLE = f"""{COUNTING}
INSERT INTO work (key, kind, lane, generation, completed_generation, error_code, dead, last_finished_at)
SELECT 'user:idle_' || i, 'subject', 0, 1, 1, '', 0, NOW() - i FROM n
"""


def claim_of(lane: int, limit: int) -> dict[str, object]:
    return {"lane": lane, "limit": limit, "token": "token", "lease": LEASE}


QUESTIONS: dict[str, tuple[str, Parameters, str]] = {
    "claim": (queue_statements.CLAIM, claim_of(0, 100), "work_due"),
    "claim of documents": (queue_statements.CLAIM_LOOKUPS, claim_of(1, 1), "work_due_lookups"),
    "expected revisions": (expected_revisions.OF_CLAIM, {"token": "token"}, "work_owner"),
    "next due": (admin.NEXT_DUE, (), "work_due"),
    "running": (admin.RUNNING, (), "work_owner"),
    "failed": (admin.FAILED, ("", 10), "work_dead"),
    "noted": (admin.NOTED, ("", 10), "work_noted"),
    "purge": (admin.IDLE, (60, 10), "work_idle"),
}


async def test_with_200_000_rows_every_question_is_answered_by_an_index(database_url: str) -> None:
    sqlite = database_url.startswith("sqlite")

    def plans(tx: Transaction) -> dict[str, str]:
        tx.execute(SCHEDULED.replace("%%", "%") if sqlite else SCHEDULED, (150_000,))
        tx.execute(IDLE, (50_000,))
        tx.execute("ANALYZE")
        explain = "EXPLAIN QUERY PLAN" if sqlite else "EXPLAIN"
        return {
            question: "\n".join(str(row[-1]) for row in tx.execute(f"{explain} {sql}", parameters)) + "\n"
            for question, (sql, parameters, _) in QUESTIONS.items()
        }

    db = open_database(database_url, CLOCK, TIMINGS)  # by the database's own clock, whose expression decides
    await db.start()
    reported = await db.run(plans)
    await db.close()
    for question, (_, _, index) in QUESTIONS.items():
        assert index in reported[question], reported[question]
        assert "SCAN work\n" not in reported[question], reported[question]
        assert "Seq Scan on work" not in reported[question], reported[question]

"""The work queue as operators see it: what waits, what failed and why, what is noted, and how to retry it.

Health checks and the nightly clean-up use it too.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from sync_worker.domain.work import Cause, CauseKind
from sync_worker.storage.queue_statements import IS_LOOKUP, IS_SUBJECT
from sync_worker.storage.state import NamedValues
from sync_worker.storage.work_items import WorkItem

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sync_worker.domain.timings import Timings
    from sync_worker.storage.database import Database, Transaction
    from sync_worker.storage.database import Row as Columns

LANES = (0, 1, 2)
"""Direct, fan-out, repair."""

PURGE_BATCH = 500
"""Rows deleted in one transaction, so that the clean-up holds up nobody else."""

COLUMNS = (
    "key, lane, visible_at, lease_token, generation, completed_generation, attempts, dead, error_code, error_detail, "
    "cause_kind, cause_id, enqueued_at, last_finished_at"
)

GET = f"SELECT {COLUMNS} FROM work WHERE key = ?"  # noqa: S608 - constants

FAILED = f"SELECT {COLUMNS} FROM work WHERE dead = 1 AND key > ? ORDER BY key LIMIT ?"  # noqa: S608 - constants

NOTED = f"SELECT {COLUMNS} FROM work WHERE dead = 0 AND error_code <> '' AND key > ? ORDER BY key LIMIT ?"  # noqa: S608

# Lane by lane, because over all lanes at once no index would serve.
NEXT_DUE = " UNION ALL ".join(
    f"""
SELECT {lane}, {lookup}, MIN(visible_at) - NOW() FROM work WHERE {kind} AND lane = {lane} AND visible_at IS NOT NULL
"""  # noqa: S608 - constants
    for lookup, kind in enumerate((IS_SUBJECT, IS_LOOKUP))
    for lane in LANES
)

# Only columns of the index, in its order: so it is answered from the index alone.
DUES = " UNION ALL ".join(
    f"""
SELECT lane, COUNT(*) FILTER (WHERE visible_at <= NOW()), COUNT(*) FILTER (WHERE visible_at > NOW()),
  NOW() - MIN(visible_at)
FROM work WHERE {kind} AND visible_at IS NOT NULL GROUP BY lane
"""  # noqa: S608 - constants
    for kind in (IS_SUBJECT, IS_LOOKUP)
)

RUNNING = """
SELECT lane, COUNT(*) FILTER (WHERE visible_at > NOW()) FROM work WHERE lease_token IS NOT NULL GROUP BY lane
"""

COUNTS = """
SELECT (SELECT COUNT(*) FROM work WHERE dead = 1), (SELECT COUNT(*) FROM work WHERE dead = 0 AND error_code <> '')
"""

# Neither failed nor running, and nothing waits that is due: what is noted of it is what its last run found.
AT_REST = """dead = 0 AND attempts = 0 AND lease_token IS NULL
  AND (generation = completed_generation OR enqueued_at > NOW())"""

FAILED_CODES = "SELECT error_code, COUNT(*) FROM work WHERE dead = 1 GROUP BY error_code"
CODES = """
SELECT error_code, CASE WHEN attempts > 0 THEN 1 ELSE 0 END AS retrying, COUNT(*) FROM work
WHERE dead = 0 AND error_code <> '' GROUP BY error_code, retrying
"""

CAUSED = f"""
SELECT COUNT(*) FROM work
WHERE cause_kind = ? AND cause_id = ? AND {IS_SUBJECT} AND generation > completed_generation
"""  # noqa: S608 - constants

IN_STEP = f"""
SELECT COUNT(*) FILTER (
    WHERE {IS_SUBJECT} AND (generation = completed_generation OR enqueued_at > NOW())
      AND dead = 0 AND error_code = ''),
  MIN(enqueued_at) FILTER (WHERE generation > completed_generation AND dead = 0 AND enqueued_at <= NOW())
FROM work
"""  # noqa: S608 - constants

REVIVE = """
UPDATE work SET dead = 0, attempts = 0, error_code = '', error_detail = '', generation = generation + 1,
  enqueued_at = NOW(),
  visible_at = CASE WHEN lease_token IS NULL THEN NOW() ELSE visible_at END
WHERE key IN (SELECT key FROM work WHERE dead = 1 {which} ORDER BY key FOR UPDATE) RETURNING key
"""

IDLE = """
SELECT key FROM work WHERE visible_at IS NULL AND dead = 0 AND error_code = '' AND last_finished_at < NOW() - ?
ORDER BY last_finished_at LIMIT ? FOR UPDATE SKIP LOCKED
"""

NOTED_BEFORE = f"SELECT key FROM work WHERE error_code <> '' AND {AT_REST} AND last_finished_at < ?"  # noqa: S608 - constants

NOTED_WITH = """
SELECT key FROM work WHERE key IN (EACH(?)) AND error_code <> '' AND error_code IN (EACH(?)) AND dead = 0
"""

CLEAR_NOTES = f"""
UPDATE work SET error_code = '', error_detail = '' WHERE key IN (EACH(?)) AND error_code <> '' AND {AT_REST}
"""  # noqa: S608 - constants

NOTE = """
INSERT INTO work (key, kind, lane, error_code, error_detail, last_finished_at) VALUES (?, ?, 2, ?, ?, NOW())
ON CONFLICT (key) DO UPDATE SET error_code = excluded.error_code, error_detail = excluded.error_detail
WHERE work.dead = 0 AND work.attempts = 0 AND work.lease_token IS NULL
  AND (work.generation = work.completed_generation OR work.enqueued_at > NOW())
  AND (work.last_finished_at IS NULL OR work.last_finished_at < ?)
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the work queue. Times are epoch seconds; `last_finished_at` is when a run last ended.

    `visible_at` is None when there is nothing to do, and the end of the lease while `lease_token` is set. `pending` is
    set while an item has not been served by a finished run.
    """

    key: str
    lane: int
    visible_at: float | None
    lease_token: str | None
    pending: bool
    attempts: int
    dead: bool
    error_code: str
    error_detail: str
    cause: Cause
    enqueued_at: float | None
    last_finished_at: float | None


@dataclass(frozen=True, slots=True)
class LaneDepth:
    """How many rows of a lane are due, due later, and in flight."""

    lane: int
    due: int
    scheduled: int
    running: int


@dataclass(frozen=True, slots=True)
class Depth:
    """How much there is to do. `oldest` is for how many seconds the longest waiting row has been due, 0 if none is."""

    lanes: tuple[LaneDepth, ...]
    failed: int
    noted: int
    oldest: float


@dataclass(frozen=True, slots=True)
class Tally:
    """`synced` subjects had a last run that left nothing to say.

    `oldest` is when the oldest change came that no finished run has served (epoch seconds).
    """

    synced: int
    oldest: float | None


class QueueAdmin(NamedValues):
    """Reads of the work queue, and the changes operators make to it. Errors: DatabaseUnavailable."""

    def __init__(self, db: Database, timings: Timings) -> None:
        super().__init__(db)
        self._timings = timings

    async def get(self, key: str) -> Row | None:
        """Return the row of a subject or document, if there is one."""
        rows = await self._db.read(lambda tx: tx.execute(GET, (key,)))
        return _row(rows[0]) if rows else None

    async def failed(self, limit: int, after: str = "") -> list[Row]:
        """Return up to `limit` rows that were given up, in the order of their keys, after the key `after`."""
        return [_row(row) for row in await self._db.read(lambda tx: tx.execute(FAILED, (after, limit)))]

    async def noted(self, limit: int, after: str = "") -> list[Row]:
        """Return rows that carry a code but are alive: being tried again, or finished with a note."""
        return [_row(row) for row in await self._db.read(lambda tx: tx.execute(NOTED, (after, limit)))]

    async def next_due_by_lane(self) -> Mapping[tuple[int, bool], float]:
        """Return in how many seconds a row of each lane can be claimed, 0 if one can be now.

        The keys are the lane, and whether the row is a lookup; a lane without such a row is missing.
        """
        rows = await self._db.read(lambda tx: tx.execute(NEXT_DUE))
        return {(lane, bool(lookup)): max(0.0, due) for lane, lookup, due in rows if due is not None}

    async def next_due(self) -> float | None:
        """Return in how many seconds a row can be claimed, 0 if one can be now, None if none ever will."""
        return min((await self.next_due_by_lane()).values(), default=None)

    async def depth(self) -> Depth:
        """Return how much there is to do, lane by lane. It counts every row that is due some time."""

        def work(tx: Transaction) -> Depth:
            due, later, oldest = Counter[int](), Counter[int](), 0.0
            for lane, due_now, due_later, age in tx.execute(DUES):
                due[lane] += due_now
                later[lane] += due_later
                oldest = max(oldest, age)
            running: dict[int, int] = dict(tx.execute(RUNNING))
            failed, noted = tx.execute(COUNTS)[0]
            lanes = (LaneDepth(n, due[n], later[n] - running.get(n, 0), running.get(n, 0)) for n in LANES)
            return Depth(tuple(lanes), failed, noted, oldest)

        return await self._db.read(work)

    async def noted_by_code(self) -> Mapping[tuple[str, bool], int]:
        """Count the rows that `noted` returns, by their code and whether they are being tried again."""
        rows = await self._db.read(lambda tx: tx.execute(CODES))
        return {(code, bool(retrying)): count for code, retrying, count in rows}

    async def failed_by_code(self) -> Mapping[str, int]:
        """Count the rows that were given up, by their code."""
        return dict(await self._db.read(lambda tx: tx.execute(FAILED_CODES)))

    async def tally(self) -> Tally:
        """Count subjects in sync. It reads every row, so it is for people, not for every scrape."""
        return Tally(*(await self._db.read(lambda tx: tx.execute(IN_STEP)))[0])

    async def caused_by(self, cause: Cause) -> int:
        """Return how many subjects still wait because of `cause`."""
        return int((await self._db.read(lambda tx: tx.execute(CAUSED, (cause.kind.value, cause.id))))[0][0])

    async def revive(self, keys: Iterable[str] | None = None) -> int:
        """Make failed rows due now, all or those named; return how many it were."""
        which, named = ("", ()) if keys is None else ("AND key IN (EACH(?))", (json.dumps(list(keys)),))

        def work(tx: Transaction) -> int:
            tx.notify()
            return len(tx.execute(REVIVE.format(which=which), named))

        return await self._db.run(work)

    async def clear_notes(self, keys: Iterable[str], *codes: str) -> None:
        """Clear the notes with these codes: what they described is over. Where there are none, nothing is written."""
        named = (json.dumps(sorted(keys)), json.dumps(codes))
        if named[0] != "[]" and (noted := await self._db.read(lambda tx: tx.execute(NOTED_WITH, named))):
            await self._clear([key for (key,) in noted])

    async def replace_notes(self, notes: Mapping[str, tuple[str, str]], before: float) -> None:
        """Make exactly these rows carry notes, each a code and a detail.

        Left alone are rows that run, wait or failed, and those of which a run found something else since `before`
        (epoch seconds).
        """
        noted = {key for (key,) in await self._db.read(lambda tx: tx.execute(NOTED_BEFORE, (before,)))}
        over = sorted(noted - notes.keys())
        for start in range(0, len(over), PURGE_BATCH):
            await self._clear(over[start : start + PURGE_BATCH])
        rows = [(key, WorkItem(key).kind.value, *note, before) for key, note in sorted(notes.items())]
        for start in range(0, len(rows), PURGE_BATCH):
            await self._db.run(partial(_note, rows[start : start + PURGE_BATCH]))

    async def _clear(self, keys: Sequence[str]) -> None:
        await self._db.run(lambda tx: tx.execute(CLEAR_NOTES, (json.dumps(keys),)))

    async def purge(self, older_than: float) -> int:
        """Forget rows without work, failure or note whose last run ended over `older_than` seconds ago.

        Returns how many it were. It goes in small transactions, each at most PURGE_BATCH rows.
        """
        total, age = 0, max(older_than, self._timings.pace_memory)
        while (deleted := await self._db.run(lambda tx: _purge(tx, age))) == PURGE_BATCH:
            total += deleted
        return total + deleted

    async def settled_since(self, at: float) -> list[str]:
        """Return the keys of rows whose run ended after `at` (epoch seconds), or is under way."""
        sql = "SELECT key FROM work WHERE last_finished_at >= ? OR lease_token IS NOT NULL"
        return [row[0] for row in await self._db.read(lambda tx: tx.execute(sql, (at,)))]

    async def now(self) -> float:
        """Return the time by the clock of the database, which sets all times of rows."""
        return await self._db.read(lambda tx: tx.now)


def _row(columns: Columns) -> Row:
    key, lane, visible_at, lease_token, generation, completed_generation, attempts, dead, *rest = columns
    code, detail, cause_kind, cause_id, enqueued_at, last_finished_at = rest
    return Row(
        key,
        lane,
        visible_at,
        lease_token,
        generation > completed_generation,
        attempts,
        bool(dead),
        code,
        detail,
        Cause(CauseKind(cause_kind), cause_id),
        enqueued_at,
        last_finished_at,
    )


def _note(rows: Sequence[tuple[str | float, ...]], tx: Transaction) -> None:
    tx.executemany(NOTE, rows)


def _purge(tx: Transaction, older_than: float) -> int:
    keys = json.dumps([row[0] for row in tx.execute(IDLE, (older_than, PURGE_BATCH))])
    tx.execute("DELETE FROM expected_revision WHERE key IN (EACH(?))", (keys,))
    return len(tx.execute("DELETE FROM work WHERE key IN (EACH(?)) RETURNING key", (keys,)))

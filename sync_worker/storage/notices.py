"""Which notices were sent and which are still to be sent: one per cause and hour, whichever process sends it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sync_worker.domain.backoff import backoff

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sync_worker.domain.timings import Timings
    from sync_worker.storage.database import Database, Transaction

# News: it is new, it has grown, or it came back. Within the pause it waits; the next look finds it again.
RECORD = """
INSERT INTO notice (event, cause, size, body, at, send_at) VALUES (:event, :cause, :size, :body, NOW(), NOW())
ON CONFLICT (event, cause) DO UPDATE SET
  size = excluded.size, ended = 0, body = excluded.body, at = excluded.at, attempts = 0, send_at = excluded.send_at
WHERE notice.at <= NOW() - :pause AND (notice.ended = 1 OR notice.size < excluded.size)
"""
SHRINK = "UPDATE notice SET size = :size WHERE event = :event AND cause = :cause AND size > :size"
KNOWN = "SELECT event, cause FROM notice WHERE ended = 0"
END = "UPDATE notice SET ended = 1 WHERE event = ? AND cause = ?"
FORGET = "DELETE FROM notice WHERE ended = 1 AND send_at IS NULL AND at < NOW() - ?"

# Taking a notice moves its next attempt, so that no other process sends it meanwhile.
DUE = """
SELECT event, cause, body, at, attempts FROM notice
WHERE send_at <= NOW() ORDER BY send_at LIMIT ? FOR UPDATE SKIP LOCKED
"""
TAKE = "UPDATE notice SET attempts = attempts + 1, send_at = NOW() + ? WHERE event = ? AND cause = ?"
DONE = "UPDATE notice SET send_at = NULL WHERE event = ? AND cause = ? AND at = ?"


@dataclass(frozen=True, slots=True)
class Situation:
    """Something that operators should know. `size` grows when there is more to tell; `facts` holds ids and counts."""

    event: str
    cause: str
    text: str
    size: int
    facts: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Notice:
    """A notice to send. `at` is when it was recorded, in epoch seconds; `attempts` were made before."""

    event: str
    cause: str
    body: Mapping[str, Any]
    at: float
    attempts: int = 0

    @classmethod
    def of(cls, one: Situation, at: float) -> Notice:
        """Return the notice of a situation."""
        return cls(one.event, one.cause, _body(one), at)


class Notices:
    """The table `notice`. Errors: DatabaseUnavailable."""

    def __init__(self, db: Database, timings: Timings) -> None:
        self._db = db
        self._timings = timings

    async def record(self, situations: Sequence[Situation]) -> None:
        """Record everything there is to know now; what is not among it is over."""
        await self._db.run(lambda tx: self._record(tx, situations))

    def _record(self, tx: Transaction, situations: Sequence[Situation]) -> None:
        for one in situations:
            row = {"event": one.event, "cause": one.cause, "size": one.size}
            tx.execute(RECORD, {**row, "body": json.dumps(_body(one)), "pause": self._timings.notify_pause})
            tx.execute(SHRINK, row)
        current = {(one.event, one.cause) for one in situations}
        tx.executemany(END, [key for key in tx.execute(KNOWN) if tuple(key) not in current])
        tx.execute(FORGET, (max(self._timings.notify_pause, self._timings.notify_patience),))

    async def take(self, limit: int) -> list[Notice]:
        """Return notices to send now. Each comes back after a growing delay, unless `done` is called."""

        def work(tx: Transaction) -> list[Notice]:
            found = [
                Notice(e, c, json.loads(body), at, attempts) for e, c, body, at, attempts in tx.execute(DUE, (limit,))
            ]
            tx.executemany(TAKE, [(self._delay(one.attempts), one.event, one.cause) for one in found])
            return found

        return await self._db.run(work)

    async def done(self, notice: Notice) -> None:
        """Send it no more, unless it was recorded again meanwhile."""
        await self._db.run(lambda tx: tx.execute(DONE, (notice.event, notice.cause, notice.at)))

    def _delay(self, attempts: int) -> float:
        return backoff(attempts, self._timings.notify_first_retry, self._timings.notify_max_retry, jitter=0.0)


def _body(one: Situation) -> Mapping[str, Any]:
    return {"event": one.event, "cause": one.cause, "text": one.text, "facts": dict(one.facts)}

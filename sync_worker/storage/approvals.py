"""What the guard keeps: how much each cause took away lately, and the losses that wait for a person.

A subject is on one list at most, one row each, so that nobody falls off a list while two workers add to it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sync_worker.storage.ledger import record

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from sync_worker.domain.timings import Timings
    from sync_worker.storage.database import Database, Row, Transaction
    from sync_worker.storage.ledger import Entry

PAGE = 1000

# Losses: each subject counts once for a cause, at the last time it was reviewed.
FORGET_OLD_LOSSES = "DELETE FROM loss WHERE at < NOW() - ?"
ADD_LOSS = """
INSERT INTO loss (cause, subject, at) VALUES (?, ?, NOW()) ON CONFLICT (cause, subject) DO UPDATE SET at = excluded.at
"""
COUNT_LOSSES = "SELECT COUNT(*) FROM loss WHERE cause = ?"

# Lists.
DROP_EXPIRED_SUBJECTS = "DELETE FROM held WHERE changeset IN (SELECT id FROM changeset WHERE expires <= NOW())"
DROP_EXPIRED_LISTS = "DELETE FROM changeset WHERE expires <= NOW()"
OPEN_LIST = """
INSERT INTO changeset (id, at, expires, reason) VALUES (?, NOW(), NOW() + ?, ?)
ON CONFLICT (id) DO UPDATE SET reason = CASE excluded.reason WHEN '' THEN changeset.reason ELSE excluded.reason END
"""
HOLD = """
INSERT INTO held (subject, changeset, before, after) VALUES (?, ?, ?, ?)
ON CONFLICT (subject) DO UPDATE SET before = excluded.before, after = excluded.after
"""
PROLONG = """
UPDATE changeset SET expires = NOW() + ? WHERE id IN (SELECT changeset FROM held WHERE subject IN (EACH(?)))
"""
LISTS_OF = """
SELECT held.subject, held.changeset FROM held JOIN changeset ON changeset.id = held.changeset
WHERE changeset.expires > NOW() AND held.subject IN (EACH(?))
"""
HELD_OF = """
SELECT held.subject, held.before, held.after, held.changeset FROM held JOIN changeset ON changeset.id = held.changeset
WHERE changeset.expires > NOW() AND held.subject IN (EACH(?))
"""
LISTED = """
SELECT held.subject FROM held JOIN changeset ON changeset.id = held.changeset WHERE changeset.expires > NOW()
"""
RELEASE = "DELETE FROM held WHERE subject IN (EACH(?)) RETURNING changeset"
DROP_EMPTY = """
DELETE FROM changeset WHERE NOT EXISTS (SELECT 1 FROM held WHERE held.changeset = changeset.id) RETURNING id
"""
DROP_SUBJECTS = "DELETE FROM held WHERE changeset = ?"
DROP_LIST = "DELETE FROM changeset WHERE id = ? RETURNING id"
LISTS = """
SELECT id, at, expires, reason, (SELECT COUNT(*) FROM held WHERE held.changeset = changeset.id)
FROM changeset WHERE expires > NOW() ORDER BY at DESC, id
"""
LIST = """
SELECT id, at, expires, reason, (SELECT COUNT(*) FROM held WHERE held.changeset = changeset.id)
FROM changeset WHERE expires > NOW() AND id = ?
"""
SUBJECTS = """
SELECT subject, before, after, changeset FROM held WHERE changeset = ? AND subject > ? ORDER BY subject LIMIT ?
"""


@dataclass(frozen=True, slots=True)
class HeldChange:
    """The loss of one subject that waits for approval: its managed keys before and after, and the id of its list."""

    subject: str
    before: Mapping[str, object]
    after: Mapping[str, object]
    changeset: str = ""


@dataclass(frozen=True, slots=True)
class HeldChangeset:
    """A list of losses that wait for a person, and how many subjects are on it. Times are epoch seconds."""

    id: str
    at: float
    expires: float
    reason: str
    size: int


class Approvals:
    """The tables `loss`, `changeset` and `held`. Errors: DatabaseUnavailable."""

    def __init__(self, db: Database, timings: Timings) -> None:
        self._db = db
        self._timings = timings

    async def count_losses(self, cause: str, subjects: Collection[str]) -> int:
        """Record losses by one cause; return how many subjects lose by it within the window, each counted once."""

        def work(tx: Transaction) -> int:
            tx.execute(FORGET_OLD_LOSSES, (self._timings.loss_window,))
            tx.executemany(ADD_LOSS, [(cause, subject) for subject in sorted(subjects)])
            return int(tx.execute(COUNT_LOSSES, (cause,))[0][0])

        return await self._db.run(work)

    async def hold(self, cause: str, changes: Sequence[HeldChange], reason: str) -> dict[str, str]:
        """Hold changes until they are approved or expire; return the id of each one's list, by subject.

        A subject that is on a live list stays on it, which lasts longer then.
        """
        id_ = changeset_id(cause)
        subjects = json.dumps(sorted(change.subject for change in changes))
        rows = [(c.subject, id_, _json(c.before), _json(c.after)) for c in sorted(changes, key=lambda c: c.subject)]

        def work(tx: Transaction) -> dict[str, str]:
            tx.execute(DROP_EXPIRED_SUBJECTS, ())
            tx.execute(DROP_EXPIRED_LISTS, ())
            tx.execute(OPEN_LIST, (id_, self._timings.approval_expiry, reason))
            tx.executemany(HOLD, rows)
            tx.execute(PROLONG, (self._timings.approval_expiry, subjects))
            tx.execute(DROP_EMPTY, ())
            return {row[0]: row[1] for row in tx.execute(LISTS_OF, (subjects,))}

        return await self._db.run(work)

    async def lists_of(self, subjects: Collection[str]) -> dict[str, str]:
        """Return the id of the live list of each subject that is on one."""
        keys = json.dumps(sorted(subjects))
        return {row[0]: row[1] for row in await self._db.read(lambda tx: tx.execute(LISTS_OF, (keys,)))}

    async def held_of(self, subjects: Collection[str]) -> dict[str, HeldChange]:
        """Return what is held of each subject that is on a live list."""
        keys = json.dumps(sorted(subjects))
        return {row[0]: _change(row) for row in await self._db.read(lambda tx: tx.execute(HELD_OF, (keys,)))}

    async def listed(self) -> list[str]:
        """Return all subjects that are on a live list."""
        return [row[0] for row in await self._db.read(lambda tx: tx.execute(LISTED, ()))]

    async def release(self, subjects: Collection[str]) -> list[str]:
        """Take subjects off their lists: nothing of theirs is held any more. Return the lists that are empty now."""
        keys = json.dumps(sorted(subjects))

        def work(tx: Transaction) -> list[str]:
            return [row[0] for row in tx.execute(DROP_EMPTY, ())] if tx.execute(RELEASE, (keys,)) else []

        return await self._db.run(work)

    async def changesets(self) -> list[HeldChangeset]:
        """Return the lists that can be approved, the newest first."""
        return [HeldChangeset(*row) for row in await self._db.read(lambda tx: tx.execute(LISTS, ()))]

    async def find(self, id_: str) -> HeldChangeset | None:
        """Return one list, unless it expired."""
        rows = await self._db.read(lambda tx: tx.execute(LIST, (id_,)))
        return HeldChangeset(*rows[0]) if rows else None

    async def changes(self, id_: str, after: str = "", limit: int = PAGE) -> list[HeldChange]:
        """Return a page of a list in the order of its subjects, from behind the subject `after`."""
        rows = await self._db.read(lambda tx: tx.execute(SUBJECTS, (id_, after, limit)))
        return [_change(row) for row in rows]

    async def all_changes(self, id_: str) -> list[HeldChange]:
        """Return a whole list."""
        changes: list[HeldChange] = []
        while page := await self.changes(id_, changes[-1].subject if changes else ""):
            changes += page
        return changes

    async def drop(self, id_: str, decision: Sequence[Entry] = ()) -> bool:
        """Forget a list without applying it, so that its losses are reviewed anew. Returns whether it existed.

        If it did, the `decision` is recorded in the ledger with it.
        """

        def work(tx: Transaction) -> bool:
            tx.execute(DROP_SUBJECTS, (id_,))
            existed = bool(tx.execute(DROP_LIST, (id_,)))
            if existed and decision:
                record(decision, tx)
            return existed

        return await self._db.run(work)


def changeset_id(cause: str) -> str:
    """Return the id of the list for what a cause takes away."""
    return hashlib.sha256(cause.encode()).hexdigest()[:10]


def _json(value: Mapping[str, object]) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=list)


def _change(row: Row) -> HeldChange:
    subject, before, after, changeset = row
    return HeldChange(subject, json.loads(before), json.loads(after), changeset)

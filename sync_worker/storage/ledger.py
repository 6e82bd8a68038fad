"""The ledger: what this program did to whom, why and when.

An entry is written as `intended` before the PATCH and closed after it; where a process died in between, the next read
of what Clerk holds closes it. One decision rests on it: when to look once more at a write that may land late.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sync_worker.storage.database import Database, Row, Transaction

PURGE_BATCH = 500
"""Rows deleted in one transaction, so that the clean-up holds up nobody else."""

COLUMNS = """
run, subject, kind, before, after, keys, taken_over, documents, cause, cause_by, delivery, id, at, state, settled_at
"""

OWNERS = "SELECT key, lease_token FROM work WHERE visible_at > NOW() AND key IN (EACH(?))"

INTEND = """
INSERT INTO ledger
  (at, run, subject, kind, before, after, keys, taken_over, documents, cause, cause_by, delivery, state)
VALUES (NOW(), ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id
"""

SETTLE = "UPDATE ledger SET state = ?, settled_at = NOW() WHERE id = ?"

# What Clerk may hold of a subject by us: the last write that it applied, and those of which it is unknown.
LATEST = f"""
SELECT {COLUMNS} FROM ledger WHERE state IN ('intended', 'unknown') AND subject IN (EACH(?))
UNION ALL
SELECT {COLUMNS} FROM ledger WHERE id IN (
  SELECT MAX(id) FROM ledger WHERE state = 'applied' AND subject IN (EACH(?)) GROUP BY subject
) ORDER BY id
"""  # noqa: S608 - constants

# Everything that was written, oldest first.
APPLIED = f"SELECT {COLUMNS} FROM ledger WHERE state = 'applied' AND id > ? ORDER BY id LIMIT ?"  # noqa: S608
APPLIED_TO = f"SELECT {COLUMNS} FROM ledger WHERE state = 'applied' AND subject IN (EACH(?)) ORDER BY id"  # noqa: S608

# The last applied write of each subject, where it set a value.
HOLDING = f"""
SELECT {COLUMNS} FROM ledger WHERE id IN (SELECT MAX(id) FROM ledger WHERE state = 'applied' GROUP BY subject)
AND after LIKE ? ESCAPE '!' ORDER BY subject
"""  # noqa: S608 - constants

# Who has what once belonged to the app.
TAKEN_OVER = f"""
SELECT {COLUMNS} FROM ledger WHERE subject = ? AND state = 'applied' AND taken_over <> '{{}}' ORDER BY id DESC LIMIT ?
"""  # noqa: S608 - constants

COUNTED = "SELECT kind, COUNT(*) FROM ledger WHERE at >= ? AND state = 'applied' GROUP BY kind"

HISTORY = f"SELECT {COLUMNS} FROM ledger WHERE id < ? {{which}} ORDER BY id DESC LIMIT ?"  # noqa: S608 - constants

# Only the newest entries are searched, because no index serves it.
OF_DOCUMENT = f"""
SELECT {COLUMNS} FROM ledger WHERE id > (SELECT COALESCE(MAX(id), 0) FROM ledger) - ?
AND (documents LIKE ? ESCAPE '!' OR cause IN (EACH(?))) ORDER BY id DESC LIMIT ?
"""  # noqa: S608 - constants
SEARCHED = 100_000

# The last applied write of a subject proves which of its keys are ours, so it stays while it has any.
PURGE = """
DELETE FROM ledger WHERE id IN (
  SELECT id FROM ledger AS old WHERE at < NOW() - ? AND (
    state <> 'applied' OR keys = '[]' OR taken_over = '{}' AND EXISTS (
      SELECT 1 FROM ledger AS newer
      WHERE newer.subject = old.subject AND newer.state = 'applied' AND newer.id > old.id
    )
  ) ORDER BY at LIMIT ?
) RETURNING id
"""

NEWEST = 2**63 - 1


class State(StrEnum):
    """What is known of a change.

    `unknown`: the request may have been sent, and no answer came. `abandoned`: it was not applied, and will not be.
    """

    INTENDED = "intended"
    APPLIED = "applied"
    REFUSED = "refused"
    UNKNOWN = "unknown"
    ABANDONED = "abandoned"


@dataclass(frozen=True, slots=True)
class Entry:
    """One change: `before` and `after` are managed keys, `documents` the ids that caused it, `delivery` the webhook's.

    `by` is who caused it: the id of the editor, or the name that an operator gave; empty where that is not known.
    `keys` are the places that are managed afterwards, `taken_over` what the app had in some of them. `lease` is the
    token that its subject was claimed with. What follows is set by the ledger. Times are epoch seconds.
    """

    run: str
    subject: str
    kind: str
    before: Mapping[str, object]
    after: Mapping[str, object]
    documents: Sequence[str]
    cause: str = ""
    by: str = ""
    delivery: str = ""
    keys: Sequence[str] = ()
    taken_over: Mapping[str, object] = field(default_factory=dict)
    lease: str = ""
    id: int = 0
    at: float = 0.0
    state: State = State.INTENDED
    settled_at: float | None = None


class Ledger:
    """The entries. Errors: DatabaseUnavailable."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def intend(self, entries: Sequence[Entry]) -> list[int | None]:
        """Record what is about to be sent, in one commit; return the ids in the same order.

        None stands for an entry whose lease is not the one that owns its subject now: it is not recorded, and must not
        be sent. The database knows that even where a clock was set, or a machine slept.
        """
        return await self._db.run(partial(record, entries)) if entries else []

    async def settle(self, ids: Iterable[int], state: State) -> None:
        """Record what became of them."""
        rows = [(str(state), one) for one in sorted(ids)]
        if rows:
            await self._db.run(lambda tx: tx.executemany(SETTLE, rows))

    async def latest(self, subjects: Iterable[str]) -> list[Entry]:
        """Return the last applied write of each subject, and those left `intended` or `unknown`, the oldest first."""
        keys = json.dumps(list(subjects))
        return [_entry(row) for row in await self._db.read(lambda tx: tx.execute(LATEST, (keys, keys)))]

    async def taken_over(self, subject: str, limit: int) -> list[Entry]:
        """Return the writes that took keys of a subject over from the app, the newest first."""
        return [_entry(row) for row in await self._db.read(lambda tx: tx.execute(TAKEN_OVER, (subject, limit)))]

    async def applied(self, after_id: int, limit: int) -> list[Entry]:
        """Return the applied writes that follow `after_id`, the oldest first."""
        return [_entry(row) for row in await self._db.read(lambda tx: tx.execute(APPLIED, (after_id, limit)))]

    async def applied_to(self, subjects: Iterable[str]) -> list[Entry]:
        """Return the applied writes of these subjects, the oldest first."""
        keys = json.dumps(list(subjects))
        return [_entry(row) for row in await self._db.read(lambda tx: tx.execute(APPLIED_TO, (keys,)))]

    async def holding(self, value: str) -> list[Entry]:
        """Return the last applied write of each subject that has `value` somewhere in its values, by subject."""
        pattern = f"%{_escaped(json.dumps(value, ensure_ascii=False))}%"
        return [_entry(row) for row in await self._db.read(lambda tx: tx.execute(HOLDING, (pattern,)))]

    async def history(
        self, subject: str | None = None, limit: int = 100, before_id: int | None = None, kind: str | None = None
    ) -> list[Entry]:
        """Return entries, of one subject or kind or all, the newest first; `before_id` is where the last page ended."""
        chosen = {name: value for name, value in (("subject", subject), ("kind", kind)) if value is not None}
        sql = HISTORY.format(which=" ".join(f"AND {name} = ?" for name in chosen))
        parameters = (NEWEST if before_id is None else before_id, *chosen.values(), limit)
        return [_entry(row) for row in await self._db.read(lambda tx: tx.execute(sql, parameters))]

    async def counted(self, since: float) -> Mapping[str, int]:
        """Return how many changes of each kind were applied since a moment (epoch seconds)."""
        return dict(await self._db.read(lambda tx: tx.execute(COUNTED, (since,))))

    async def of_document(self, document: str, causes: Sequence[str], limit: int) -> list[Entry]:
        """Return entries that a document had a part in, or that have one of these causes, the newest first."""
        parameters = (SEARCHED, f"%{_escaped(json.dumps(document))}%", json.dumps(list(causes)), limit)
        return [_entry(row) for row in await self._db.read(lambda tx: tx.execute(OF_DOCUMENT, parameters))]

    async def purge(self, older_than: float) -> int:
        """Forget entries older than `older_than` seconds, in small transactions; return how many it were."""

        def work(tx: Transaction) -> int:
            return len(tx.execute(PURGE, (older_than, PURGE_BATCH)))

        total = 0
        while (deleted := await self._db.run(work)) == PURGE_BATCH:
            total += deleted
        return total + deleted


def record(entries: Sequence[Entry], tx: Transaction) -> list[int | None]:
    """Record entries in the state that they have, as a part of a transaction. See `Ledger.intend`."""
    leased = json.dumps(sorted({e.subject for e in entries if e.lease}))
    owners = {row[0]: row[1] for row in tx.execute(OWNERS, (leased,))}
    owned = [e for e in entries if not e.lease or owners.get(e.subject) == e.lease]
    rows = [
        (
            e.run,
            e.subject,
            e.kind,
            _json(e.before),
            _json(e.after),
            _json(list(e.keys)),
            _json(e.taken_over),
            _json(list(e.documents)),
            e.cause,
            e.by,
            e.delivery,
            str(e.state),
        )
        for e in owned
    ]
    ids = iter(tx.executemany(INTEND, rows) if rows else ())
    return [next(ids)[0] if entry in owned else None for entry in entries]


def _escaped(text: str) -> str:
    """Return `text` as it stands for itself in a LIKE pattern."""
    return text.replace("!", "!!").replace("_", "!_").replace("%", "!%")


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=list)


def _entry(row: Row) -> Entry:
    run, subject, kind, before, after, keys, taken_over, documents, *origin, number, at, state, settled_at = row
    cause, by, delivery = origin
    return Entry(
        run=run,
        subject=subject,
        kind=kind,
        before=json.loads(before),
        after=json.loads(after),
        keys=tuple(json.loads(keys)),
        taken_over=json.loads(taken_over),
        documents=tuple(json.loads(documents)),
        cause=cause,
        by=by,
        delivery=delivery,
        id=number,
        at=at,
        state=State(state),
        settled_at=settled_at,
    )

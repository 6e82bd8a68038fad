"""The work set: the one durable thing, a row for each subject that may differ now or will at a known time.

Why it exists: a row a subject, not a row an event, is what makes ten events one run, a hundred subjects one batch, and
no event lost. A mark raises `wanted`; a claim takes what is due, with a lease and a token; settling compares `wanted`
with the claim, so that a subject that was marked during its run is run exactly once more. `due` is the end of the lease
while a row is owned, so the rows of a killed process are due again by themselves; on the same machine its successor
need not wait for that. Every write is fenced by the token.

What a run does, how often it is tried and how long it waits is `attempt`'s; looking around is `overview`'s.
"""

from __future__ import annotations

import json
import secrets
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sync_worker.domain.entitlements import ExpectedRevision
from sync_worker.domain.work import WEBHOOK
from sync_worker.storage.process_identity import identity, is_gone
from sync_worker.storage.queue_admin import QueueAdmin

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sync_worker.storage.database import Transaction

SCHEDULED_LANE = 1
"""Where a subject waits for a window to open or close: a course that opens for thousands must not hold up a publish."""

FANOUT = "document:"
"""The prefix of keys that are documents, not subjects: to fan out, or to look up whom they are for."""

MEMBERS = "members:"
"""The prefix of keys that are users whose memberships are to be looked up: an address of theirs may have changed."""

ADDRESSES = ("email:", "external:")
"""The prefixes of keys that are addresses to look up. They are personal data, so a row goes as soon as it is done."""


@dataclass(frozen=True, slots=True)
class WorkItem:
    """That a subject may differ: now, or at `due` (epoch seconds).

    `delivery` is the id of the webhook that told of it. `since` is when that was first heard of, where the mark follows
    from an earlier one. `transition` is when the clock alone will change the subject (epoch seconds), where that is
    known.
    """

    key: str
    lane: int = 0
    due: float | None = None
    expected: ExpectedRevision | None = None
    cause: str = ""
    delivery: str = ""
    since: float | None = None
    transition: float | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """A row that this process may work on until `lease_until` (epoch seconds, clock of the database).

    `attempts` counts the failed runs before; `since` is when the oldest mark came that no finished run has served,
    or the due time where that is later or nobody marked it. `code` is what the last run noted. `transition` is when, by
    the last finished run, the clock alone changes the subject (epoch seconds).
    """

    key: str
    lane: int
    token: str
    generation: int
    attempts: int
    expected_revisions: tuple[ExpectedRevision, ...]
    cause: str
    code: str
    lease_until: float
    since: float
    delivery: str = ""
    transition: float | None = None


@dataclass(frozen=True, slots=True)
class Completed:
    """The run finished. `wrote` says that Clerk counted a write to the subject.

    It is due again at `next_due`, in `lane`; at `transition`, which is not before, the clock alone changes it. A `code`
    and `detail` stay visible as a note, such as rows that were refused.
    """

    claim: Claim
    next_due: float | None = None
    wrote: bool = False
    code: str = ""
    detail: str = ""
    lane: int = SCHEDULED_LANE
    transition: float | None = None


@dataclass(frozen=True, slots=True)
class Retry:
    """The run failed and is due again in `delay` seconds. `wrote`: the write may have reached Clerk all the same.

    `not_before` is in seconds too: what the service asked to wait, which a mark does not shorten.
    """

    claim: Claim
    code: str
    detail: str
    delay: float
    wrote: bool = False
    not_before: float = 0.0


@dataclass(frozen=True, slots=True)
class DeadLettered:
    """The run failed for good: kept and listed, but not run until it is marked or revived, or until `next_due`."""

    claim: Claim
    code: str
    detail: str
    next_due: float | None = None


@dataclass(frozen=True, slots=True)
class Released:
    """The run was not begun, or may begin again: given back as it was, due now."""

    claim: Claim


Completion = Completed | Retry | DeadLettered | Released

# The parameters are the pace and the longest Retry-After that is kept: nobody waits longer than that, even after the
# clock was set back.
PACED_DUE = "GREATEST(excluded.due, LEAST(work.paced, NOW() + ?), LEAST(work.asked, NOW() + ?))"

IS_WEBHOOK = f"substr({{}}, 1, {len(WEBHOOK)}) = '{WEBHOOK}'"

KEEPS_CAUSE = f"""(excluded.cause = '' OR (
    (work.wanted > work.done OR work.dead = 1)
    AND {IS_WEBHOOK.format("work.cause")} AND NOT {IS_WEBHOOK.format("excluded.cause")}))"""

MARK = f"""
INSERT INTO work (key, fanout, lane, due, wanted, since, cause, delivery, transition)
VALUES (?, ?, ?, COALESCE(?, NOW()), 1, COALESCE(?, GREATEST(NOW(), COALESCE(?, NOW()))), ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET
  lane = CASE WHEN work.wanted > work.done THEN LEAST(work.lane, excluded.lane) ELSE excluded.lane END,
  due = CASE WHEN work.owner IS NOT NULL THEN work.due
        ELSE LEAST(COALESCE(work.due, {PACED_DUE}), {PACED_DUE}) END,
  wanted = work.wanted + 1,
  since = LEAST(COALESCE(work.since, excluded.since), excluded.since),
  again = CASE WHEN work.owner IS NOT NULL THEN COALESCE(work.again, excluded.since) END,
  cause = CASE WHEN {KEEPS_CAUSE} THEN work.cause ELSE excluded.cause END,
  delivery = CASE WHEN {KEEPS_CAUSE} THEN work.delivery ELSE excluded.delivery END,
  transition = LEAST(COALESCE(work.transition, excluded.transition), COALESCE(excluded.transition, work.transition)),
  attempts = CASE WHEN work.dead = 1 THEN 0 ELSE work.attempts END,
  code = CASE WHEN work.dead = 1 THEN '' ELSE work.code END,
  detail = CASE WHEN work.dead = 1 THEN '' ELSE work.detail END,
  dead = 0
"""  # noqa: S608 - constants

# Of two witnesses the later one counts. Revisions have no order, so of two in one moment neither proves that a read is
# fresh: then no revision is kept, and the document store has to decide. A delete names the revision that it ended; it
# stays told of where its moment has others, and is no news again when something older, or itself, is told once more.
# Without its Z a time with fractions of a second sorts after the same time without.
ADD_EXPECTED_REVISION = """
INSERT INTO witness (key, document, revision, updated_at, deleted, served, generation)
VALUES (?, ?, ?, ?, ?, ?, (SELECT wanted FROM work WHERE key = ?))
ON CONFLICT (key, document) DO UPDATE SET
  revision = CASE WHEN rtrim(excluded.updated_at, 'Z') < rtrim(witness.updated_at, 'Z') THEN witness.revision
    WHEN excluded.updated_at = witness.updated_at AND excluded.revision <> witness.revision THEN ''
    ELSE excluded.revision END,
  deleted = CASE WHEN rtrim(excluded.updated_at, 'Z') < rtrim(witness.updated_at, 'Z') THEN witness.deleted
    WHEN excluded.updated_at = witness.updated_at THEN GREATEST(excluded.deleted, witness.deleted)
    ELSE excluded.deleted END,
  served = CASE WHEN witness.deleted = 0 OR rtrim(excluded.updated_at, 'Z') > rtrim(witness.updated_at, 'Z')
      OR (excluded.updated_at = witness.updated_at AND excluded.deleted = 1 AND excluded.revision <> witness.revision)
    THEN excluded.served ELSE witness.served END,
  updated_at = CASE WHEN rtrim(excluded.updated_at, 'Z') < rtrim(witness.updated_at, 'Z') THEN witness.updated_at
    ELSE excluded.updated_at END,
  generation = excluded.generation
"""

CLAIM = """
WITH ready AS MATERIALIZED (
  SELECT key FROM work WHERE fanout = ? AND lane = ? AND due <= NOW() ORDER BY due LIMIT ? FOR UPDATE SKIP LOCKED
)
UPDATE work SET owner = ?, due = NOW() + ?, since = COALESCE(since, due), again = NULL
WHERE key IN (SELECT key FROM ready)
RETURNING key, lane, wanted, attempts, cause, code, due, since, delivery, transition
"""

CLAIM_KEYS = """
WITH ready AS MATERIALIZED (
  SELECT key FROM work WHERE key IN (EACH(?)) AND due <= NOW() ORDER BY key FOR UPDATE SKIP LOCKED
)
UPDATE work SET owner = ?, due = NOW() + ?, since = COALESCE(since, due), again = NULL
WHERE key IN (SELECT key FROM ready)
RETURNING key, lane, wanted, attempts, cause, code, due, since, delivery, transition
"""

EXPECTED_REVISIONS = """
SELECT witness.key, document, revision, updated_at, deleted, served
FROM witness JOIN work ON work.key = witness.key WHERE work.owner = ? ORDER BY document
"""

# In the order of keys, as marks are: two transactions that lock the same rows never wait for each other.
LOCK = "SELECT key, due > NOW() FROM work WHERE owner = ? AND key IN (EACH(?)) ORDER BY key FOR UPDATE"

RENEW = "UPDATE work SET due = NOW() + ? WHERE key = ?"

DONE = """
UPDATE work SET owner = NULL, done = ?, attempts = 0, code = ?, detail = ?, settled = NOW(), again = NULL,
  due = CASE WHEN wanted > ? THEN NOW() ELSE CAST(? AS double precision) END, dead = 0,
  lane = CASE WHEN wanted > ? THEN lane ELSE ? END,
  since = CASE WHEN wanted > ? THEN again END,
  cause = CASE WHEN wanted > ? THEN cause ELSE '' END,
  delivery = CASE WHEN wanted > ? THEN delivery ELSE '' END,
  transition = CAST(? AS double precision)
WHERE key = ?
"""

# A delete stays, until the row goes: its create may be told of later, and must not bring the access back.
SERVED = "DELETE FROM witness WHERE key = ? AND generation <= ? AND deleted = 0"

ENDED = "UPDATE witness SET served = 1 WHERE key = ? AND generation <= ?"

RETRY = """
UPDATE work SET owner = NULL, attempts = attempts + 1, code = ?, detail = ?, settled = NOW(), again = NULL,
  due = NOW() + ?, asked = NOW() + ?
WHERE key = ?
"""

FAILED = """
UPDATE work SET owner = NULL, done = ?, code = ?, detail = ?, settled = NOW(), again = NULL,
  due = CASE WHEN wanted > ? THEN NOW() ELSE CAST(? AS double precision) END,
  dead = CASE WHEN wanted > ? THEN 0 ELSE 1 END,
  attempts = CASE WHEN wanted > ? THEN 0 ELSE attempts + 1 END,
  since = CASE WHEN wanted > ? THEN again END
WHERE key = ?
"""

# The clock of the machine that reckoned a window may be ahead of the database's: not before a moment from now.
SOON = "UPDATE work SET due = NOW() + ? WHERE key = ? AND due < NOW() + ? AND wanted = done"

FORGET = """
DELETE FROM work WHERE key = ? AND owner IS NULL AND wanted = done AND dead = 0
"""

RELEASED = "UPDATE work SET owner = NULL, due = NOW(), again = NULL WHERE key = ?"

OWNERS = "SELECT DISTINCT owner FROM work WHERE owner IS NOT NULL"

RELEASE_OWNED = "UPDATE work SET owner = NULL, due = NOW(), again = NULL WHERE owner = ? RETURNING key"

# A leaky bucket (GCRA): `paced` is the moment of the next write. The parameters are the pace, what a whole burst takes,
# and the pace.
WROTE = "UPDATE work SET paced = GREATEST(LEAST(paced, NOW() + ?), NOW() - ?) + ? WHERE key = ?"

PACED = "UPDATE work SET due = paced WHERE key = ? AND due < paced"


class WorkQueue(QueueAdmin):
    """Marks, claims and settles; each is one transaction. Errors: DatabaseUnavailable, and then nothing happened.

    The exception is trouble during the commit itself, when nobody knows; marking or settling again is harmless.
    """

    async def enqueue(self, items: Sequence[WorkItem]) -> None:
        """Record durably, all or nothing, that these subjects may differ.

        A subject that is waiting keeps the earlier due time and the more urgent lane; one that is running will run once
        more; one that had failed is tried afresh. Of two witnesses of one document the later one stays.
        """
        if items:
            await self._db.run(lambda tx: self._mark(tx, items))

    async def claim(self, lane: int, limit: int, lease: float, *, documents: bool = False) -> list[Claim]:
        """Take up to `limit` due subjects of a lane for `lease` seconds, the longest due first.

        With `documents` it takes documents and addresses instead of subjects.
        """
        token = _token()

        def work(tx: Transaction) -> list[Claim]:
            return _claims(tx, tx.execute(CLAIM, (int(documents), lane, limit, token, lease)), token)

        return await self._db.run(work)

    async def enqueue_and_claim(self, items: Sequence[WorkItem], lease: float) -> list[Claim]:
        """Mark these subjects and take them at once, in one transaction, so that nobody else does in between.

        Those that somebody runs already, or that must wait before they are written again, are only marked.
        """
        token = _token()

        def work(tx: Transaction) -> list[Claim]:
            self._mark(tx, items)
            keys = json.dumps(sorted({mark.key for mark in items}))
            return _claims(tx, tx.execute(CLAIM_KEYS, (keys, token, lease)), token)

        return await self._db.run(work) if items else []

    async def renew(self, claims: Iterable[Claim], lease: float) -> set[str]:
        """Start the leases anew, for `lease` seconds from now; return the keys that were still held."""
        tokens = _keys_by_token(claims)

        def work(tx: Transaction) -> set[str]:
            held = {
                key
                for token, keys in tokens.items()
                for key, has_time in tx.execute(LOCK, (token, json.dumps(keys)))
                if has_time
            }
            tx.executemany(RENEW, [(lease, key) for key in sorted(held)])
            return held

        return await self._db.run(work)

    async def reclaim_orphaned(self) -> int:
        """Give back what processes of this machine hold that were killed; return how many rows it were."""
        owners = [row[0] for row in await self._db.read(lambda tx: tx.execute(OWNERS))]
        gone = [(owner,) for owner in owners if is_gone(owner.partition("#")[0])]

        def work(tx: Transaction) -> int:
            tx.notify()
            return len(tx.executemany(RELEASE_OWNED, gone))

        return await self._db.run(work) if gone else 0

    async def complete(self, completions: Iterable[Completion]) -> set[str]:
        """Record how runs ended, in one transaction; return the keys that somebody else had taken over.

        Nothing is changed for those. A subject that was marked after its claim is due now, after Done and after Failed.
        """
        by_claim = {(s.claim.key, s.claim.token): s for s in completions}

        def work(tx: Transaction) -> set[str]:
            tokens = _keys_by_token(s.claim for s in by_claim.values())
            owned = {
                (row[0], token) for token, keys in tokens.items() for row in tx.execute(LOCK, (token, json.dumps(keys)))
            }
            self._record(tx, [completion for claim, completion in sorted(by_claim.items()) if claim in owned])
            tx.notify()
            return {key for key, _ in by_claim.keys() - owned}

        return await self._db.run(work) if by_claim else set()

    def _mark(self, tx: Transaction, items: Sequence[WorkItem]) -> None:
        """Write marks, in the order of keys: two transactions that lock the same rows never wait for each other."""
        ordered = sorted(items, key=lambda mark: mark.key)
        longest = (self._timings.subject_pace, self._timings.max_kept_retry_after)
        tx.executemany(MARK, [(*_columns(mark), *longest, *longest) for mark in ordered])
        tx.executemany(
            ADD_EXPECTED_REVISION,
            [
                (m.key, w.document, w.revision, w.updated_at, int(w.deleted), int(not w.news), m.key)
                for m in ordered
                if (w := m.expected) is not None
            ],
        )
        tx.notify()

    def _record(self, tx: Transaction, completions: Sequence[Completion]) -> None:
        """Write settlements of rows that are owned and locked."""
        done = [s for s in completions if isinstance(s, Completed)]
        tx.executemany(DONE, [_done(s) for s in done])
        served = [(s.claim.key, s.claim.generation) for s in done if s.claim.expected_revisions]
        tx.executemany(SERVED, served)
        tx.executemany(ENDED, served)
        tx.executemany(FORGET, [(s.claim.key,) for s in done if s.claim.key.startswith((MEMBERS, *ADDRESSES))])
        retries = [s for s in completions if isinstance(s, Retry)]
        tx.executemany(RETRY, [(s.code, s.detail, s.delay, s.not_before, s.claim.key) for s in retries])
        tx.executemany(FAILED, [_failed(s) for s in completions if isinstance(s, DeadLettered)])
        scheduled = [
            s.claim.key for s in completions if isinstance(s, Completed | DeadLettered) and s.next_due is not None
        ]
        soonest = self._timings.min_schedule_delay
        tx.executemany(SOON, [(soonest, key, soonest) for key in scheduled])
        tx.executemany(RELEASED, [(s.claim.key,) for s in completions if isinstance(s, Released)])
        wrote = [s.claim.key for s in completions if isinstance(s, Completed | Retry) and s.wrote]
        pace, burst = self._timings.subject_pace, self._timings.subject_burst
        tx.executemany(WROTE, [(pace, (burst - 1) * pace, pace, key) for key in wrote])
        tx.executemany(PACED, [(key,) for key in wrote])


def _token() -> str:
    """Return a token for one claim: it also says which process made it."""
    return f"{identity()}#{secrets.token_hex(8)}"


def _columns(mark: WorkItem) -> tuple[object, ...]:
    """Return what MARK puts into a new row."""
    m = mark
    return (m.key, _is_looked_up(m.key), m.lane, m.due, m.since, m.due, m.cause, m.delivery, m.transition)


def _is_looked_up(key: str) -> int:
    """Tell documents, addresses and members from subjects."""
    return int(key.startswith((FANOUT, MEMBERS, *ADDRESSES)))


def _claims(tx: Transaction, rows: Sequence[tuple[Any, ...]], token: str) -> list[Claim]:
    """Return the claims of rows that were just taken, the longest due first, with their witnesses."""
    expected_revisions: dict[str, list[ExpectedRevision]] = defaultdict(list)
    if rows:
        for key, document, revision, updated_at, deleted, served in tx.execute(EXPECTED_REVISIONS, (token,)):
            expected_revisions[key].append(ExpectedRevision(document, revision, updated_at, bool(deleted), not served))
    return [
        Claim(key, lane, token, wanted, attempts, tuple(expected_revisions[key]), *rest)
        for key, lane, wanted, attempts, *rest in sorted(rows, key=_age_and_key)
    ]


def _age_and_key(row: tuple[Any, ...]) -> tuple[float, str]:
    return row[7], row[0]


def _keys_by_token(claims: Iterable[Claim]) -> dict[str, list[str]]:
    tokens: dict[str, list[str]] = defaultdict(list)
    for claim in claims:
        tokens[claim.token].append(claim.key)
    return tokens


def _done(s: Completed) -> tuple[object, ...]:
    generation = s.claim.generation
    return (
        *(generation, s.code, s.detail),
        *(generation, s.next_due),
        *(generation, s.lane),
        *(generation, generation, generation),
        *(s.transition, s.claim.key),
    )


def _failed(s: DeadLettered) -> tuple[object, ...]:
    generation = s.claim.generation
    return (generation, s.code, s.detail, generation, s.next_due, *[generation] * 3, s.claim.key)

"""The work queue: one row for each subject that may be out of sync, now or at a known time.

One row per subject, not per event, is what makes ten events one run, a hundred subjects one batch, and loses no event.
Enqueueing raises the row's generation; a claim takes what is due, with a lease and a token; completing compares the
generation with the claim's, so a subject that was enqueued during its run runs exactly once more. While a row is leased
its `visible_at` is the end of the lease, so the work of a killed process becomes due again by itself. Every write is
fenced by the lease token.
"""

from __future__ import annotations

import json
import secrets
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sync_worker.domain.work import Cause, CauseKind, WorkKind
from sync_worker.storage import expected_revisions
from sync_worker.storage import queue_statements as sql
from sync_worker.storage.process_identity import identity, is_gone
from sync_worker.storage.queue_admin import QueueAdmin
from sync_worker.storage.work_items import (
    Claim,
    Completed,
    Completion,
    DeadLettered,
    Released,
    Retry,
    SetAside,
    WorkItem,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sync_worker.storage.database import Transaction


class WorkQueue(QueueAdmin):
    """Enqueue, claim, renew and complete; each is one transaction. Errors: DatabaseUnavailable, and nothing happened.

    The exception is trouble during the commit itself, when nobody knows; enqueueing or completing again is harmless.
    """

    async def enqueue(self, items: Sequence[WorkItem]) -> None:
        """Record durably, all or nothing, that these subjects may be out of sync.

        A subject that waits keeps the earlier time and the more urgent lane; one that runs will run once more; one that
        was given up is tried afresh. Expected revisions of one document are merged.
        """
        if items:
            await self._db.run(lambda tx: self._enqueue(tx, items))

    async def claim(self, lane: int, limit: int, lease: float) -> list[Claim]:
        """Take up to `limit` due subjects of a lane for `lease` seconds, the longest due first."""
        return await self._claim(sql.CLAIM, {"lane": lane, "limit": limit, "lease": lease})

    async def claim_lookups(self, lane: int, limit: int, lease: float) -> list[Claim]:
        """Take up to `limit` due documents, addresses and members of a lane, the longest due first."""
        return await self._claim(sql.CLAIM_LOOKUPS, {"lane": lane, "limit": limit, "lease": lease})

    async def enqueue_and_claim(self, items: Sequence[WorkItem], lease: float) -> list[Claim]:
        """Enqueue these subjects and take them in the same transaction, so that nobody else does in between.

        Those that somebody runs already, or that must wait for the next write, are only enqueued.
        """
        token = _token()

        def work(tx: Transaction) -> list[Claim]:
            self._enqueue(tx, items)
            keys = json.dumps(sorted({item.key for item in items}))
            return _claims(tx, tx.execute(sql.CLAIM_KEYS, {"keys": keys, "token": token, "lease": lease}), token)

        return await self._db.run(work) if items else []

    async def renew(self, claims: Iterable[Claim], lease: float) -> set[str]:
        """Start the leases anew, for `lease` seconds from now; return the keys that were still owned."""
        claims = list(claims)

        def work(tx: Transaction) -> set[str]:
            renewed = {key for (key, _), row in _lock(tx, claims).items() if row.has_time}
            tx.executemany(sql.RENEW, [{"lease": lease, "key": key} for key in sorted(renewed)])
            return renewed

        return await self._db.run(work)

    async def reclaim_orphaned(self) -> int:
        """Give back what killed processes of this machine own; return how many rows that were."""
        tokens = [row[0] for row in await self._db.read(lambda tx: tx.execute(sql.LEASE_TOKENS))]
        orphaned = [{"token": token} for token in tokens if is_gone(token.partition("#")[0])]

        def work(tx: Transaction) -> int:
            tx.notify()
            return len(tx.executemany(sql.RELEASE_ALL, orphaned))

        return await self._db.run(work) if orphaned else 0

    async def complete(self, completions: Iterable[Completion]) -> set[str]:
        """Record how runs ended, in one transaction; return the keys that somebody else owns by now.

        Nothing is changed for those. A subject that was enqueued after its claim is due now, however its run ended
        for good.
        """
        by_claim = {(c.claim.key, c.claim.lease_token): c for c in completions}

        def work(tx: Transaction) -> set[str]:
            locked = _lock(tx, [completion.claim for completion in by_claim.values()])
            self._record(tx, [(by_claim[claim], locked[claim]) for claim in sorted(locked)])
            tx.notify()
            return {key for key, _ in by_claim.keys() - locked.keys()}

        return await self._db.run(work) if by_claim else set()

    async def _claim(self, statement: str, limits: Mapping[str, object]) -> list[Claim]:
        token = _token()
        # A claim that a loss of power undoes was that of a process that is gone too.
        return await self._db.run_volatile(
            lambda tx: _claims(tx, tx.execute(statement, {**limits, "token": token}), token)
        )

    def _enqueue(self, tx: Transaction, items: Sequence[WorkItem]) -> None:
        ordered = sorted(items, key=lambda item: item.key)
        limits = {
            "subject_pace": self._timings.subject_pace,
            "max_kept_retry_after": self._timings.max_kept_retry_after,
        }
        tx.executemany(sql.ENQUEUE, [{**_row_of(item), **limits} for item in ordered])
        expected_revisions.expect(tx, [(i.key, i.expected) for i in ordered if i.expected is not None])
        tx.notify()

    def _record(self, tx: Transaction, ended: Sequence[tuple[Completion, Locked]]) -> None:
        """Write how runs of owned and locked rows ended, then what follows: a statement for all rows at once."""
        batch: dict[str, list[dict[str, object]]] = defaultdict(list)
        for completion, row in ended:
            for statement, parameters in self._statements(completion, row):
                batch[statement].append(parameters)
        for statement in (
            *(sql.RELEASE, sql.RETRY, sql.REQUEUE, sql.DEAD_LETTER, sql.SET_ASIDE, sql.COMPLETE),
            *(expected_revisions.SERVE, expected_revisions.TRIM),
            *(sql.FORGET, expected_revisions.FORGET, sql.COUNT_WRITE, sql.WAIT_FOR_PACE),
        ):
            tx.executemany(statement, batch.pop(statement, ()))

    def _statements(self, completion: Completion, row: Locked) -> Iterable[tuple[str, dict[str, object]]]:
        """Yield what ends one run. A subject that was enqueued after its claim runs once more."""
        claim = completion.claim
        key: dict[str, object] = {"key": claim.key}
        match completion:
            case Released():
                yield sql.RELEASE, key
            case Retry():
                yield sql.RETRY, _retry(completion)
            case Completed() | SetAside() | DeadLettered() if row.generation > claim.generation:
                yield sql.REQUEUE, self._ended(completion, row)
            case DeadLettered():
                yield sql.DEAD_LETTER, self._ended(completion, row)
            case SetAside():
                yield sql.SET_ASIDE, self._ended(completion, row)
            case Completed():
                yield sql.COMPLETE, self._ended(completion, row)
        if isinstance(completion, Completed | SetAside) and claim.expected_revisions:
            memory, kept = self._timings.revision_memory, self._timings.revisions_kept
            yield expected_revisions.SERVE, {**key, "generation": claim.generation}
            yield expected_revisions.TRIM, {**key, "memory": memory, "kept": kept}
        if isinstance(completion, Completed) and claim.kind in (WorkKind.MEMBERS, WorkKind.ADDRESS):
            yield from ((sql.FORGET, key), (expected_revisions.FORGET, key))
        if not isinstance(completion, Released) and completion.wrote:
            pace = self._timings.subject_pace
            yield sql.COUNT_WRITE, {**key, "pace": pace, "burst": (self._timings.subject_burst - 1) * pace}
            yield sql.WAIT_FOR_PACE, key

    def _ended(self, completion: Completed | SetAside | DeadLettered, row: Locked) -> dict[str, object]:
        lane = completion.lane if isinstance(completion, Completed) else completion.claim.lane
        transition_at = row.transition_at if isinstance(completion, DeadLettered) else completion.transition_at
        return {
            "key": completion.claim.key,
            "generation": completion.claim.generation,
            "error_code": completion.error_code,
            "error_detail": completion.error_detail,
            "next_due": completion.next_due,
            "min_schedule_delay": self._timings.min_schedule_delay,
            "lane": lane,
            "transition_at": transition_at,
        }


@dataclass(frozen=True, slots=True)
class Locked:
    """A row that a claim still owns, locked until the end of the transaction."""

    has_time: bool
    generation: int
    transition_at: float | None


def _lock(tx: Transaction, claims: Iterable[Claim]) -> dict[tuple[str, str], Locked]:
    """Lock the rows that these claims still own; return them by key and token."""
    keys: dict[str, list[str]] = defaultdict(list)
    for claim in claims:
        keys[claim.lease_token].append(claim.key)
    return {
        (key, token): Locked(*row)
        for token, some in keys.items()
        for key, *row in tx.execute(sql.LOCK, {"token": token, "keys": json.dumps(some)})
    }


def _token() -> str:
    """Return a token for one claim: it also says which process made it."""
    return f"{identity()}#{secrets.token_hex(8)}"


def _row_of(item: WorkItem) -> dict[str, object]:
    return {
        "key": item.key,
        "kind": item.kind.value,
        "lane": item.lane,
        "visible_at": item.visible_at,
        "enqueued_at": item.enqueued_at,
        "cause_kind": item.cause.kind.value,
        "cause_id": item.cause.id,
        "cause_by": item.cause.by,
        "delivery": item.delivery,
        "transition_at": item.transition_at,
    }


def _retry(retry: Retry) -> dict[str, object]:
    return {
        "key": retry.claim.key,
        "error_code": retry.error_code,
        "error_detail": retry.error_detail,
        "delay": retry.delay,
        "not_before": retry.not_before,
    }


def _claims(tx: Transaction, rows: Sequence[tuple[Any, ...]], token: str) -> list[Claim]:
    """Return the claims of rows that were just taken, the longest due first, with the revisions they expect."""
    expected = expected_revisions.of_claim(tx, token) if rows else {}
    claims = [
        Claim(
            key,
            WorkKind(kind),
            lane,
            token,
            generation,
            attempts,
            expected.get(key, ()),
            Cause(CauseKind(cause_kind), cause_id, cause_by),
            *rest,
        )
        for key, kind, lane, generation, attempts, cause_kind, cause_id, cause_by, *rest in rows
    ]
    return sorted(claims, key=lambda claim: (claim.enqueued_at, claim.key))

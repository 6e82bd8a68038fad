"""What needs somebody: each row of the work set that is not simply done, and each list that is held, in plain words.

Why it exists: the verb `failed` and the status page must list the same things, with the reason and the next step, so
that nobody has to search logs. It is pure: rows come from `overview`, held lists from `runs`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from sync_worker.errors import RevocationHeld, SyncWorkerError, error_named
from sync_worker.formatting import masked, rfc3339
from sync_worker.sync.address_resolution import AMBIGUOUS_ADDRESS, PENDING, REFUSED

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sync_worker.storage.queue_admin import Row
    from sync_worker.storage.reconcile_runs import Held


class Sort(StrEnum):
    """What sort of trouble it is, the most urgent first."""

    HELD = "held"
    FAILED = "failed"
    REFUSED = "refused"
    RETRYING = "retrying"
    PENDING = "pending"


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing that needs somebody, or will be tried again. Times are epoch seconds.

    `key` is a subject, a document or the id of a held changeset; `again` is when it is tried next, if it is.
    """

    sort: Sort
    key: str
    code: str
    reason: str
    since: float | None
    attempts: int
    again: float | None
    next_step: str


HELD_CODE = RevocationHeld().code
NEXT_STEPS = {
    PENDING: "Nothing to do: access follows the sign-up by itself. If the address is wrong, correct it and publish.",
    AMBIGUOUS_ADDRESS: "Leave the address to one of them in Clerk, or name the right one by clerkUserId, and publish.",
    REFUSED: "Correct the field that is named, in Sanity, and publish. Until then the row counts for nothing.",
}
"""What to do about notes, which are no errors."""


def next_step(code: str, key: str = "SUBJECT") -> str:
    """Return what to do about `code`, with the key where the advice says SUBJECT."""
    error = error_named(code) or SyncWorkerError
    return NEXT_STEPS.get(code, error.next_step()).replace("SUBJECT", key)


def of_row(row: Row) -> Trouble:
    """Describe a row that failed for good, is tried again, or carries a note."""
    key = masked(row.key)
    sort = Sort.FAILED if row.dead else sort_of(row.code)
    return Trouble(
        sort=sort,
        key=key,
        code=row.code,
        reason=masked(row.detail),
        since=row.since if sort is Sort.RETRYING else row.settled,
        attempts=row.attempts,
        again=None if row.dead else row.due,
        next_step=next_step(row.code, key),
    )


def of_held(held: Held) -> Trouble:
    """Describe a held changeset."""
    return Trouble(
        sort=Sort.HELD,
        key=held.id,
        code=HELD_CODE,
        reason=held.reason,
        since=held.at,
        attempts=0,
        again=None,
        next_step=f"Read the list with `sync-worker approve`, then `sync-worker approve {held.id}`; or publish again "
        f"what is missing. It expires at {rfc3339(held.expires)}.",
    )


def gathered(rows: Iterable[Row], held: Sequence[Held]) -> list[Trouble]:
    """Return all that needs somebody, the most urgent first. Whoever stands on a held list is told there."""
    order = list(Sort)
    listed = {subject for one in held for subject in one.subjects}
    told = [of_row(row) for row in rows if row.code != HELD_CODE or row.key not in listed]
    return sorted([*map(of_held, held), *told], key=lambda one: (order.index(one.sort), one.key))


def as_json(one: Trouble) -> dict[str, object]:
    """Return one object, as the verb and the page give it."""
    return {
        "state": one.sort.value,
        "key": one.key,
        "code": one.code,
        "reason": one.reason,
        "since": rfc3339(one.since),
        "attempts": one.attempts,
        "nextAttempt": rfc3339(one.again),
        "nextStep": one.next_step,
    }


def sort_of(code: str) -> Sort:
    """Return the sort of a row that is alive and carries `code`."""
    return {PENDING: Sort.PENDING, AMBIGUOUS_ADDRESS: Sort.REFUSED, REFUSED: Sort.REFUSED}.get(code, Sort.RETRYING)

"""What needs attention or is being retried, with the reason and the next step: one list for `failed` and the pages."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from sync_worker.domain.entitlements import Refusal
from sync_worker.errors import LossHeld, SyncWorkerError, error_named
from sync_worker.formatting import masked, rfc3339
from sync_worker.sync.address_resolution import AMBIGUOUS_ADDRESS, PENDING, REFUSED, UNRESOLVED
from sync_worker.sync.notes import code_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sync_worker.storage.approvals import HeldChangeset
    from sync_worker.storage.queue_admin import Row


class IssueKind(StrEnum):
    """What kind of issue it is, most urgent first."""

    HELD = "held"
    FAILED = "failed"
    REFUSED = "refused"
    INCOMPLETE = "incomplete"
    RETRYING = "retrying"
    PENDING = "pending"


@dataclass(frozen=True, slots=True)
class Issue:
    """One item that needs attention or will be retried. Times are epoch seconds.

    `key` is a subject, a document or the id of a held changeset; `retry_at` is the next attempt, if there is one.
    `document` and `field` name what is wrong in Sanity, if anything is.
    """

    kind: IssueKind
    key: str
    code: str
    reason: str
    since: float | None
    attempts: int
    retry_at: float | None
    next_step: str
    document: str = ""
    field: str = ""

    @property
    def where(self) -> str:
        """The reason with the document and field that it is about."""
        return ": ".join(filter(None, (self.document, self.field, self.reason)))


HELD_CODE = LossHeld().code
NEXT_STEPS = {
    PENDING: "Nothing to do: access is granted after the sign-up. If the address is wrong, correct it and publish.",
    AMBIGUOUS_ADDRESS: "Leave the address to one user in Clerk, or name the right user by clerkUserId and publish.",
    REFUSED: "Correct the named field in Sanity and publish. Until then the row grants nothing.",
    UNRESOLVED: "Publish the referenced plans, cohorts and courses, each with a slug, or remove the references. "
    "Everything else of the document is granted.",
}
"""Next steps for the codes that are not errors."""
KINDS = {
    PENDING: IssueKind.PENDING,
    AMBIGUOUS_ADDRESS: IssueKind.REFUSED,
    REFUSED: IssueKind.REFUSED,
    UNRESOLVED: IssueKind.INCOMPLETE,
}


def next_step(code: str, key: str = "SUBJECT") -> str:
    """Return what to do about `code`, with `key` in place of SUBJECT."""
    error = error_named(code) or SyncWorkerError
    return NEXT_STEPS.get(code, error.next_step()).replace("SUBJECT", key)


def from_row(row: Row) -> list[Issue]:
    """Return the issues of a row that failed, is being retried or carries a code: one for each field that is wrong."""
    issue = _issue(row)
    if row.dead or row.attempts:
        return [issue]
    return [_about(issue, line) for line in row.error_detail.split("\n")]


def _about(issue: Issue, line: str) -> Issue:
    """Return the issue that one line of a note is: pending, or a remark with document, field and reason."""
    remark = Refusal.parse(masked(line))
    if remark is None:
        return replace(issue, reason=masked(line))
    code = issue.code if issue.code == PENDING else code_of(remark)
    return replace(
        issue,
        kind=kind_of(code),
        code=code,
        document="" if remark.document == issue.key else remark.document,
        field="" if remark.field == code and code not in KINDS else remark.field,
        reason=remark.reason,
        next_step=next_step(code, issue.key),
    )


def _issue(row: Row) -> Issue:
    key = masked(row.key)
    kind = IssueKind.FAILED if row.dead else kind_of(row.error_code, retrying=row.attempts > 0)
    return Issue(
        kind=kind,
        key=key,
        code=row.error_code,
        reason=masked(row.error_detail),
        since=row.enqueued_at if kind is IssueKind.RETRYING else row.last_finished_at,
        attempts=row.attempts,
        retry_at=None if row.dead else row.visible_at,
        next_step=next_step(row.error_code, key),
    )


def from_held(held: HeldChangeset) -> Issue:
    """Return the issue of a held changeset."""
    return Issue(
        kind=IssueKind.HELD,
        key=held.id,
        code=HELD_CODE,
        reason=f"{held.size} held: {held.reason}",
        since=held.at,
        attempts=0,
        retry_at=None,
        next_step=f"Review the list with `sync-worker approve`. Apply it with `sync-worker approve {held.id}`, "
        f"or publish what is missing. It expires at {rfc3339(held.expires)}.",
    )


def collect_issues(rows: Iterable[Row], held: Sequence[HeldChangeset]) -> list[Issue]:
    """Return all issues, most urgent first. A subject on a held list is covered by the issue of that list."""
    order = list(IssueKind)
    issues = [one for row in rows if not (held and row.error_code == HELD_CODE) for one in from_row(row)]
    return sorted([*map(from_held, held), *issues], key=lambda issue: (order.index(issue.kind), issue.key))


def issue_json(one: Issue) -> dict[str, object]:
    """Return one issue as JSON."""
    return {
        "state": one.kind.value,
        "key": one.key,
        "code": one.code,
        "document": one.document or None,
        "field": one.field or None,
        "reason": one.reason,
        "since": rfc3339(one.since),
        "attempts": one.attempts,
        "nextAttempt": rfc3339(one.retry_at),
        "nextStep": one.next_step,
    }


def kind_of(code: str, *, retrying: bool = False) -> IssueKind:
    """Return the kind of issue that `code` means on a row that has not failed."""
    return IssueKind.RETRYING if retrying else KINDS.get(code, IssueKind.REFUSED)

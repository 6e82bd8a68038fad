"""Explains one subject: which published rows grant access, what Clerk has, and one sentence with a next step.

Pure: it judges what `explainer` read with the same merge and the same diff as a sync.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sync_worker.diagnostics.explanation import (
    ADVICE,
    NO_ACCESS,
    ExplainedRow,
    Explanation,
    RowStatus,
    SyncState,
    Verdict,
    approve_step,
    is_waiting,
)
from sync_worker.diagnostics.issues import next_step
from sync_worker.domain import merge as policy
from sync_worker.domain.changeset import Drift, classify
from sync_worker.domain.diff import diff, values_in_place
from sync_worker.domain.entitlements import Access, ChangeKind, Entitlement, Refusal
from sync_worker.errors import DatasetEmpty, NoSuchSubject, RefusedError
from sync_worker.formatting import ago, at, describe
from sync_worker.sync.address_resolution import AMBIGUOUS_REASON, PENDING_REASON, UNRESOLVED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sync_worker.diagnostics.explanation import PublishedRow, SubjectFacts
    from sync_worker.domain.entitlements import Change
    from sync_worker.domain.timings import Timings
    from sync_worker.storage.queue_admin import Row

NO_WEBHOOK = "no webhook arrived for this change"
UNCOUNTED_STEP = (
    "Make it the verified primary address of that user in Clerk, or name the user by clerkUserId, and publish."
)


def explain_subject(facts: SubjectFacts, timings: Timings) -> Explanation:
    """Judge what was read about one subject."""
    now = datetime.fromtimestamp(facts.now, UTC)
    contents = [row.content for row in facts.rows]
    access = policy.merge(
        [content for content in contents if isinstance(content, Entitlement)],
        facts.layout.fields,
        now,
        [content for content in contents if isinstance(content, Refusal)],
    )
    rows = tuple(_explained_row(row, access, facts, now) for row in facts.rows)
    if facts.problem:
        advice = facts.advice or "Try again in a moment. Nothing is revoked while a service cannot be read."
        verdict = Verdict(SyncState.UNKNOWN, f"Cannot tell right now. {facts.problem}", advice)
        return Explanation(facts, verdict, rows, access)
    if facts.subject.is_address:
        return Explanation(facts, _unowned_address(facts, rows), rows, Access(refusals=access.refusals))
    if facts.observed is None:
        return Explanation(facts, _not_in_clerk(facts, access, rows), rows, access)
    try:
        change = diff(
            access,
            facts.observed,
            facts.layout,
            at=now.isoformat(timespec="seconds"),
            written=facts.written,
        )
    except RefusedError as error:
        return Explanation(facts, Verdict(SyncState.REFUSED, str(error), error.next_step()), rows, access)
    if change.kind is ChangeKind.NONE:
        return Explanation(facts, _in_sync(facts, access, rows), rows, access)
    drift = classify(change, facts.observed, facts.layout).drift
    return Explanation(facts, _out_of_sync(facts, timings, change, drift), rows, access, change, drift)


def _explained_row(row: PublishedRow, access: Access, facts: SubjectFacts, now: datetime) -> ExplainedRow:
    status, reason = _status(row, access, facts, now)
    if isinstance(row.content, Refusal):
        return ExplainedRow(row.document, row.revision, row.published, status, reason)
    content, unresolved = row.content, row.content.unresolved
    if unresolved is not None:
        reason = f"{reason}; {unresolved.sentence}" if reason else unresolved.sentence
    return ExplainedRow(row.document, row.revision, row.published, status, reason, content.values, unresolved)


def _status(row: PublishedRow, access: Access, facts: SubjectFacts, now: datetime) -> tuple[RowStatus, str]:
    content = row.content
    refused = _refused(row, access)
    if refused is not None:
        return refused
    assert isinstance(content, Entitlement)  # noqa: S101 - each refusal is among access.refusals
    if content.status not in (None, "active"):
        return RowStatus.INACTIVE, f"its status is {content.status!r}"
    if content.ends_at is not None and content.ends_at <= now:
        return RowStatus.ENDED, f"it ended {_moment(content.ends_at, facts.now)}"
    if facts.subject.is_address:
        return RowStatus.PENDING, PENDING_REASON
    if not policy.is_active(content, now):
        assert content.starts_at is not None  # noqa: S101 - the only other reason to be inactive
        return RowStatus.SCHEDULED, f"it starts {_moment(content.starts_at, facts.now)}"
    return RowStatus.ACTIVE, f"until {_moment(content.ends_at, facts.now)}" if content.ends_at is not None else ""


def _refused(row: PublishedRow, access: Access) -> tuple[RowStatus, str] | None:
    content = row.content
    if isinstance(content, Refusal) and content.reason == AMBIGUOUS_REASON:
        return RowStatus.AMBIGUOUS_ADDRESS, f"several users in Clerk have its {content.field}"
    invalid = [f"{r.field} is invalid: {r.reason}" for r in access.refusals if r.document == row.document]
    return (RowStatus.REFUSED, "; ".join(invalid)) if invalid else None


def _unowned_address(facts: SubjectFacts, rows: tuple[ExplainedRow, ...]) -> Verdict:
    """Judge an address that not exactly one user has."""
    if facts.owners:
        owners = ", ".join(map(str, facts.owners))
        headline = f"Several users have this address: {owners}."
        return Verdict(SyncState.REFUSED, headline, ADVICE[RowStatus.AMBIGUOUS_ADDRESS])
    if facts.uncounted:
        (user, reason), *_ = facts.uncounted.items()
        state = _no_access(rows).state if rows else SyncState.UNKNOWN
        return Verdict(state, f"{user} has this address, but it does not count because {reason}.", UNCOUNTED_STEP)
    if not rows:
        return Verdict(
            SyncState.UNKNOWN,
            "No user in Clerk has this address, and no published entitlement names it.",
            "To grant access, publish an entitlement that names this address.",
        )
    return _no_access(rows)


def _not_in_clerk(facts: SubjectFacts, access: Access, rows: tuple[ExplainedRow, ...]) -> Verdict:
    if access.sources or access.next_transition is not None:
        documents = ", ".join(row.document for row in rows)
        headline = f"Clerk has nobody with this id, so no access was granted for {documents}."
        return Verdict(SyncState.REFUSED, headline, next_step(NoSuchSubject().code, str(facts.subject)))
    return Verdict(
        SyncState.UNKNOWN,
        "Clerk has nobody with this id, and no published entitlement grants it access.",
        "Check the id. Does it belong to another Clerk instance?",
    )


def _in_sync(facts: SubjectFacts, access: Access, rows: tuple[ExplainedRow, ...]) -> Verdict:
    if access.sources:
        headline = f"Clerk has what is published: {_described(access.values)}."
        refused = [row for row in rows if NO_ACCESS.get(row.status) is SyncState.REFUSED]
        if not refused and access.unresolved:
            return Verdict(SyncState.SYNCED, f"{headline} {access.unresolved[0]}.", next_step(UNRESOLVED))
        if not refused:
            return Verdict(SyncState.SYNCED, headline)
        headline += f" {refused[0].document} does not count because {refused[0].reason}."
        return Verdict(SyncState.SYNCED, headline, ADVICE[refused[0].status])
    if rows:
        return _no_access(rows)
    assert facts.observed is not None  # noqa: S101 - checked by the caller
    stored = values_in_place(facts.observed, facts.layout)
    if not stored:
        advice = DatasetEmpty.next_step() if facts.visible == 0 else ""
        return Verdict(SyncState.SYNCED, "No published entitlement names it, and Clerk has no access for it.", advice)
    why = (
        "which is the baseline"
        if stored == policy.baseline(facts.layout.fields)
        else "which is unmanaged and left alone"
    )
    return Verdict(SyncState.SYNCED, f"No published entitlement names it. Clerk has {_described(stored)}, {why}.")


def _no_access(rows: tuple[ExplainedRow, ...]) -> Verdict:
    """Judge a subject without any active row, by the row that comes closest to granting access."""
    closest = min(rows, key=lambda row: list(NO_ACCESS).index(row.status))
    headline = f"No access: {closest.document} does not count because {closest.reason}."
    return Verdict(NO_ACCESS[closest.status], headline, ADVICE[closest.status])


def _out_of_sync(facts: SubjectFacts, timings: Timings, change: Change, drift: Drift) -> Verdict:
    difference = f"Clerk has {_described(change.before)}, but Sanity grants {_described(change.after)}"
    key, work = str(facts.subject), facts.work
    if change.losses and facts.held:
        headline = f"The loss is held because too many subjects would lose access at once. {difference}."
        return Verdict(SyncState.HELD, headline, approve_step(facts.held[0]))
    if work is not None and work.dead:
        headline = f"Failed after {_attempts(work.attempts)}. {work.error_detail}"
        return Verdict(SyncState.REFUSED, headline, next_step(work.error_code, key))
    if work is None or not is_waiting(work, facts.now):
        missing = _missing_write(facts)
        unmanaged = "the value in Clerk is unmanaged" if change.before else missing
        why = {Drift.EDITED: "it was edited in Clerk", Drift.UNMANAGED: unmanaged}.get(drift, missing)
        return Verdict(SyncState.LATE, f"{difference}: {why}.", f"Run `sync-worker sync {key}` to sync it now.")
    if facts.heartbeat is None or facts.now - facts.heartbeat > timings.worker_gone_after:
        since = "" if facts.heartbeat is None else f" since {at(facts.heartbeat, facts.now)} UTC"
        return Verdict(
            SyncState.LATE,
            f"{difference}, and no worker is running{since}.",
            "Start `sync-worker serve` or `sync-worker worker`.",
        )
    return Verdict(SyncState.LATE, f"{difference}. {_progress(work, facts.now)}", "Nothing to do unless this persists.")


def _missing_write(facts: SubjectFacts) -> str:
    """Return why nothing waits although both sides differ: no webhook arrived, or the subject was in sync since."""
    work, published = facts.work, max((row.published or 0.0 for row in facts.rows), default=0.0)
    finished = work.last_finished_at if work is not None else None
    if finished is None or finished < published:
        return NO_WEBHOOK
    return f"it was synced {at(finished, facts.now)} UTC, after the last publish, and differs again"


def _progress(work: Row, now: float) -> str:
    if work.lease_token is not None:
        return "A worker is processing it."
    when = "now" if work.visible_at is None or work.visible_at <= now else f"in {ago(work.visible_at - now)}"
    if work.attempts:
        return f"{_attempts(work.attempts)} failed, next attempt {when}. {work.error_detail}"
    return f"It is queued to sync {when}."


def _attempts(number: int) -> str:
    return "1 attempt" if number == 1 else f"{number} attempts"


def _described(values: Mapping[str, object]) -> str:
    """Return managed keys as part of a sentence, without empty lists unless there is nothing else."""
    filled = {name: value for name, value in values.items() if value not in ([], ())}
    return describe(filled or values) if values else "nothing"


def _moment(moment: datetime, now: float) -> str:
    return f"{at(moment.timestamp(), now)} UTC"

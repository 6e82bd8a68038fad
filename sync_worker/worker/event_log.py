"""What the log says about subjects and documents that a run is done with.

Events and keys are those of `docs/logs.md`; they lead from the delivery of a webhook to Clerk's answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from sync_worker.domain.diff import claims_size
from sync_worker.domain.work import CauseKind
from sync_worker.sync.address_resolution import PENDING

if TYPE_CHECKING:
    from sync_worker.domain.entitlements import Change, Layout
    from sync_worker.storage.work_items import Claim
    from sync_worker.sync.address_resolution import Resolution
    from sync_worker.sync.outcome import Due, Outcome

log = structlog.get_logger("worker")


def log_outcome(outcome: Outcome, layout: Layout) -> None:
    """Log a change, or the error that prevented it, and the rows that were refused."""
    subject, cause = str(outcome.due.subject), log_context(outcome.due)
    if outcome.error is not None:
        log.warning("subject_failed", subject=subject, code=outcome.error.code, detail=outcome.error.detail, **cause)
    if outcome.written is not None and outcome.change is not None:
        log.info(
            "access_changed",
            subject=subject,
            change=outcome.change.kind,
            documents=list(outcome.change.sources),
            taken_over=sorted(outcome.change.taken_over),
            **cause,
            **_seconds(outcome),
        )
        _warn_of_large_claims(subject, outcome.change, layout)
        if is_missed_webhook(outcome):
            log.warning(
                "missed_webhook_detected",
                subject=subject,
                next_step="only the poll found this publish: check the webhook, or with EVENTS=listen the stream",
                **cause,
            )
    for refusal in outcome.access.refusals if outcome.access else ():
        log.warning("row_refused", subject=subject, document=refusal.document, field=refusal.field)
    for one in outcome.access.unresolved if outcome.access else ():
        log.warning("references_unresolved", subject=subject, document=one.document, number=one.number)


def log_resolution(resolution: Resolution, claim: Claim) -> None:
    """Log an entitlement that gives nobody access, or nobody yet."""
    document, code, context = resolution.document, resolution.code, log_context(claim)
    if code == PENDING:
        log.info("entitlement_pending", document=document, **context)
    elif code:
        log.warning("entitlement_refused", document=document, code=code, detail=resolution.reason, **context)


def log_context(work: Due | Claim) -> dict[str, str]:
    """Return the cause of a run, and the webhook that brought it, if there was one."""
    return {"cause": str(work.cause)} | ({"delivery": work.delivery} if work.delivery else {})


def is_missed_webhook(outcome: Outcome) -> bool:
    """Return whether something was written that only the poll found."""
    return outcome.written is not None and outcome.due.cause.kind is CauseKind.POLL


def _seconds(outcome: Outcome) -> dict[str, float]:
    """Return the seconds since it was enqueued and since the publish, as far as they are known."""
    known = {"queue_seconds": outcome.queue_seconds, "publish_latency_seconds": outcome.publish_latency_seconds}
    return {name: round(seconds, 3) for name, seconds in known.items() if seconds is not None}


def _warn_of_large_claims(subject: str, change: Change, layout: Layout) -> None:
    size = claims_size(change.after, layout)
    if size > layout.claims_budget:
        log.warning("claims_large", subject=subject, bytes=size, budget=layout.claims_budget)

"""What the log says of subjects and documents that a run is done with.

Why it exists: whoever asks what happened to whom greps here, from the delivery of a webhook to Clerk's answer. Texts
and keys are those of `docs/logs.md`. What an outcome leads to is decided in `attempt`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from sync_worker.domain.diff import claims_size
from sync_worker.domain.work import POLL
from sync_worker.sync.address_resolution import PENDING

if TYPE_CHECKING:
    from sync_worker.domain.entitlements import Change, Layout
    from sync_worker.storage.queue import Claim
    from sync_worker.sync.address_resolution import Resolution
    from sync_worker.sync.outcome import Due, Outcome

log = structlog.get_logger("worker")


def log_outcome(outcome: Outcome, layout: Layout) -> None:
    """Tell of a change, or of what kept it from being made, and of rows that count for nothing."""
    subject, cause = str(outcome.due.subject), why(outcome.due)
    if outcome.error is not None:
        log.warning("subject_failed", subject=subject, code=outcome.error.code, detail=outcome.error.detail, **cause)
    elif outcome.written is not None and outcome.change is not None:
        log.info(
            "access_changed",
            subject=subject,
            change=outcome.change.kind,
            documents=list(outcome.change.sources),
            **cause,
            **_seconds(outcome),
        )
        _warn_of_large_claims(subject, outcome.change, layout)
        if is_missed_webhook(outcome):
            log.warning(
                "missed_webhook_detected",
                subject=subject,
                next_step="a publish was found by the poll that no webhook told of: is the webhook enabled?",
                **cause,
            )
    for refusal in outcome.access.refusals if outcome.access else ():
        log.warning("row_refused", subject=subject, document=refusal.document, field=refusal.field)


def log_resolution(named: Resolution, claim: Claim) -> None:
    """Tell of an entitlement that gives nobody access, or nobody yet."""
    if named.code == PENDING:
        log.info("entitlement_pending", document=named.document, **why(claim))
    elif named.code:
        log.warning("entitlement_refused", document=named.document, code=named.code, detail=named.reason, **why(claim))


def why(marked: Due | Claim) -> dict[str, str]:
    """Return what led to a run, and the webhook that told of it, if there was one."""
    return {"cause": marked.cause} | ({"delivery": marked.delivery} if marked.delivery else {})


def is_missed_webhook(outcome: Outcome) -> bool:
    """Tell whether something was written that only the poll told of."""
    return outcome.written is not None and outcome.due.cause.startswith(POLL)


def _seconds(outcome: Outcome) -> dict[str, float]:
    """Return how long it took, as far as that is known: since the mark, and since the publish."""
    known = {"queue_seconds": outcome.queue_seconds, "publish_latency_seconds": outcome.publish_latency_seconds}
    return {name: round(seconds, 3) for name, seconds in known.items() if seconds is not None}


def _warn_of_large_claims(subject: str, change: Change, layout: Layout) -> None:
    size = claims_size(change.after, layout)
    if size > layout.claims_budget:
        log.warning("claims_large", subject=subject, bytes=size, budget=layout.claims_budget)

"""What a failed run costs its subject: the one retry policy. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sync_worker.domain.backoff import backoff
from sync_worker.errors import (
    ConfigurationError,
    CredentialsRefused,
    LeaseLost,
    LossHeld,
    NoSuchSubject,
    RefusedError,
    RetryableError,
)
from sync_worker.storage.work_items import DeadLettered, Released, Retry, SetAside

if TYPE_CHECKING:
    from sync_worker.domain.timings import Timings
    from sync_worker.errors import SyncWorkerError
    from sync_worker.storage.work_items import Claim, Completion


def decide(
    claim: Claim,
    error: SyncWorkerError,
    *,
    now: float,
    jitter: float,
    timings: Timings,
    retry_after: float = 0.0,
    next_due: float | None = None,
    transition_at: float | None = None,
    wrote: bool = False,
    removes: bool = False,
) -> Completion:
    """Return how a claim ends whose run failed.

    `now` is in epoch seconds, `jitter` between 0 and 1. `retry_after` is for how many more seconds Clerk wants the
    subject left alone, beside what the error says. `next_due` is when the subject is due in any case, `transition_at`
    when the clock alone changes it. A subject that is not in Clerk is looked up once more. What `removes` something is
    retried for ever, slowly: access that should be gone must not stay because Clerk refused once.
    """
    match error:
        case CredentialsRefused() | ConfigurationError() | LeaseLost():
            return Released(claim)  # nothing is wrong with the subject
        case LossHeld():
            return SetAside(claim, error.code, str(error), next_due, wrote, transition_at)
        case NoSuchSubject() if claim.error_code != error.code:
            # Clerk's lists may not show it yet, and a publish may have taken the place of the event that reported it.
            again: float | None = now + timings.clerk_list_lag
        case RefusedError() if not removes:
            again = None
        case _ if isinstance(error, RefusedError) or claim.attempts + 1 >= timings.max_attempts:
            again = now + timings.dead_letter_retry
        case _:
            wait = max(retry_after, (error.retry_after or 0.0) if isinstance(error, RetryableError) else 0.0)
            delay = wait + backoff(claim.attempts, timings.first_backoff, timings.max_backoff, jitter)
            return Retry(claim, error.code, str(error), delay, wrote, not_before=wait)
    due = min((at for at in (again, next_due) if at is not None), default=None)
    return DeadLettered(claim, error.code, str(error), due, wrote)

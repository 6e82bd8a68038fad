"""What a failed run costs its subject, decided from the error and the attempts alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sync_worker.domain.work import NO_CAUSE, WorkKind
from sync_worker.errors import (
    ConfigurationError,
    CredentialsRefused,
    LeaseLost,
    LossHeld,
    NoSuchSubject,
    RateLimited,
    RequestRefused,
    ServiceUnavailable,
    SyncWorkerError,
)
from sync_worker.storage.work_items import Claim, Completion, DeadLettered, Released, Retry, SetAside
from sync_worker.worker.retry import decide
from tests.clock import TIMINGS

NOW = 1_000_000.0
UNKNOWN = NoSuchSubject("user:user_1")


def claim(attempts: int = 0) -> Claim:
    return Claim("user:user_1", WorkKind.SUBJECT, 0, "token", 1, attempts, (), NO_CAUSE, "", NOW + 30, NOW)


def decided(
    error: SyncWorkerError, attempts: int = 0, *, retry_after: float = 0.0, next_due: float | None = None
) -> Completion:
    return decide(
        claim(attempts),
        error,
        now=NOW,
        jitter=0.0,
        timings=TIMINGS,
        retry_after=retry_after,
        next_due=next_due,
        wrote=True,
    )


def retried(error: SyncWorkerError, attempts: int = 0, retry_after: float = 0.0) -> Retry:
    completion = decided(error, attempts, retry_after=retry_after)
    assert isinstance(completion, Retry)
    return completion


@pytest.mark.parametrize("error", [CredentialsRefused("x"), ConfigurationError("x"), LeaseLost("x")])
def test_what_is_not_the_subjects_fault_costs_no_attempt(error: SyncWorkerError) -> None:
    assert decided(error, TIMINGS.max_attempts) == Released(claim(TIMINGS.max_attempts))


def test_a_refusal_is_final_at_once_and_keeps_the_next_window() -> None:
    error = RequestRefused("x")
    assert decided(error, next_due=NOW + 5) == DeadLettered(claim(), error.code, str(error), NOW + 5, wrote=True)


@pytest.mark.parametrize("attempts", [0, 1_000])
@pytest.mark.parametrize(("next_due", "due"), [(None, NOW + TIMINGS.dead_letter_retry), (NOW + 5, NOW + 5)])
def test_a_refused_removal_is_tried_again_slowly_and_for_ever(
    attempts: int, next_due: float | None, due: float
) -> None:
    error = RequestRefused("x")
    completion = decide(
        claim(attempts), error, now=NOW, jitter=0.0, timings=TIMINGS, next_due=next_due, wrote=True, removes=True
    )
    assert completion == DeadLettered(claim(attempts), error.code, str(error), due, wrote=True)


@pytest.mark.parametrize(("next_due", "due"), [(None, NOW + TIMINGS.clerk_list_lag), (NOW + 5, NOW + 5)])
@pytest.mark.parametrize("before", ["", "stale_read"])
def test_a_subject_that_is_not_in_clerk_is_looked_up_once_more(before: str, next_due: float | None, due: float) -> None:
    first = replace(claim(), error_code=before)
    completion = decide(first, UNKNOWN, now=NOW, jitter=0.0, timings=TIMINGS, next_due=next_due)
    assert completion == DeadLettered(first, UNKNOWN.code, str(UNKNOWN), due)


def test_a_subject_that_is_still_not_in_clerk_waits_for_an_event() -> None:
    again = replace(claim(), error_code=UNKNOWN.code)
    completion = decide(again, UNKNOWN, now=NOW, jitter=0.0, timings=TIMINGS)
    assert completion == DeadLettered(again, UNKNOWN.code, str(UNKNOWN), None)


def test_a_held_loss_is_set_aside_with_its_next_window() -> None:
    error = LossHeld("x")
    completion = decide(
        claim(), error, now=NOW, jitter=0.0, timings=TIMINGS, next_due=NOW + 5, transition_at=NOW + 9, wrote=True
    )
    assert completion == SetAside(claim(), error.code, str(error), NOW + 5, wrote=True, transition_at=NOW + 9)


def test_a_passing_failure_is_retried_and_says_that_the_write_may_have_arrived() -> None:
    completion = retried(ServiceUnavailable("x"))
    assert (completion.delay, completion.not_before, completion.wrote) == (TIMINGS.first_backoff, 0.0, True)


def test_each_further_attempt_waits_twice_as_long_up_to_the_longest_wait() -> None:
    waits = [retried(ServiceUnavailable("x"), attempts).delay for attempts in range(20)]
    assert waits[:4] == [TIMINGS.first_backoff * factor for factor in (1, 2, 4, 8)]
    assert waits[-1] == TIMINGS.max_backoff


@pytest.mark.parametrize(("answered", "recorded"), [(60.0, 0.0), (0.0, 60.0), (60.0, 7.0)])
def test_retry_after_comes_on_top_of_the_backoff_wherever_it_was_reported(answered: float, recorded: float) -> None:
    completion = retried(RateLimited("x", retry_after=answered), retry_after=recorded)
    assert (completion.not_before, completion.delay) == (60.0, 60.0 + TIMINGS.first_backoff)


def test_the_last_attempt_gives_up_until_the_outage_may_be_over() -> None:
    error = ServiceUnavailable("x")
    last = TIMINGS.max_attempts - 1
    later = NOW + TIMINGS.dead_letter_retry
    assert decided(error, last) == DeadLettered(claim(last), error.code, str(error), later, wrote=True)


@pytest.mark.parametrize(("next_due", "due"), [(NOW + 5, NOW + 5), (NOW + 1e6, NOW + TIMINGS.dead_letter_retry)])
def test_what_was_given_up_is_tried_again_at_its_window_where_that_is_sooner(next_due: float, due: float) -> None:
    completion = decided(ServiceUnavailable("x"), TIMINGS.max_attempts - 1, next_due=next_due)
    assert isinstance(completion, DeadLettered)
    assert completion.next_due == due

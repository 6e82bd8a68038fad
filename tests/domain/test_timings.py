"""The relations between timings: contradictions are refused, and the defaults keep what production relies on."""

from __future__ import annotations

import ast
import inspect
from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import pytest

from sync_worker.domain import timings
from sync_worker.domain.timings import DAY, Timings

TIMINGS = Timings()


@pytest.mark.parametrize(
    "given",
    [
        {"run_deadline": TIMINGS.lease - TIMINGS.lease_margin},
        {"lease": TIMINGS.run_deadline},
        {"first_backoff": TIMINGS.max_backoff + 1},
        {"subject_burst": 20},
        {"heartbeat_interval": TIMINGS.worker_gone_after},
        {"first_gather": TIMINGS.max_gather * 2},
        {"transport_first_backoff": TIMINGS.transport_max_backoff * 2},
        {"budget_slot": TIMINGS.budget_window},
        {"reconcile_lock_renewal": TIMINGS.reconcile_lock},
        {"row_retention": TIMINGS.pace_memory / 2},
        {"idle_interval": 0.0},
        {"stale_read_waits": (0.2, -1.0)},
    ],
    ids=", ".join,
)
def test_timings_that_contradict_each_other_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="timings: "):
        replace(TIMINGS, **given)


def test_timings_may_be_shortened_together() -> None:
    short = replace(TIMINGS, lease=1.0, lease_margin=0.1, run_deadline=0.8)
    assert short.run_deadline < short.lease


def test_timings_are_immutable() -> None:
    with pytest.raises(FrozenInstanceError):
        TIMINGS.lease = 1.0  # type: ignore[misc]  # this is the point


def test_every_timing_says_what_it_is_for() -> None:
    body = ast.parse(inspect.getsource(timings)).body
    (reported,) = (node for node in body if isinstance(node, ast.ClassDef))
    documented = {
        field.target.id
        for field, text in zip(reported.body, reported.body[1:], strict=False)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
    }
    assert documented == {field.name for field in fields(Timings)}


# --- what production relies on ---------------------------------------------------------------------------------------


def test_an_abandoned_write_has_landed_before_it_is_checked_again() -> None:
    assert TIMINGS.clerk_timeout < TIMINGS.max_write_delay < TIMINGS.write_settles_after


def test_a_run_has_time_for_a_request_its_wait_and_a_lagging_index() -> None:
    for wait in (TIMINGS.clerk_timeout, TIMINGS.sanity_timeout, TIMINGS.max_transport_wait):
        assert wait < TIMINGS.run_deadline
    assert sum(TIMINGS.stale_read_waits) < TIMINGS.run_deadline / 2


def test_the_pace_keeps_a_subject_below_clerks_limit_of_ten_writes_in_ten_seconds() -> None:
    assert TIMINGS.subject_burst + 10 // TIMINGS.subject_pace < 10


def test_a_subject_is_dead_lettered_after_more_than_an_hour_of_backoff() -> None:
    waits = [min(TIMINGS.max_backoff, TIMINGS.first_backoff * 2**n) for n in range(TIMINGS.max_attempts)]
    assert 3600 < sum(waits) * 0.75 < 3 * 3600


def test_a_worker_that_misses_one_heartbeat_is_not_gone() -> None:
    assert 2 * TIMINGS.heartbeat_interval < TIMINGS.worker_gone_after


def test_a_reconcile_may_miss_a_renewal_of_its_lock() -> None:
    assert 2 * TIMINGS.reconcile_lock_renewal < TIMINGS.reconcile_lock


def test_a_nightly_reconcile_is_never_overdue() -> None:
    assert TIMINGS.reconcile_stale_after > DAY


def test_runs_that_began_beside_the_first_empty_read_are_remembered() -> None:
    assert TIMINGS.empty_dataset_overlap >= 2 * TIMINGS.run_deadline


def test_a_worker_and_a_web_process_end_before_platforms_kill_them() -> None:
    assert TIMINGS.run_deadline + TIMINGS.request_drain < 30


def test_a_pause_outlasts_the_window_it_was_set_for() -> None:
    assert TIMINGS.max_budget_pause > TIMINGS.budget_window + 2 * TIMINGS.budget_slot

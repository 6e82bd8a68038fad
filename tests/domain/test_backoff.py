"""How long to wait before another attempt."""

from __future__ import annotations

import pytest

from sync_worker.domain.backoff import backoff


def test_each_further_attempt_waits_twice_as_long_up_to_the_longest_wait() -> None:
    assert [backoff(attempts, 1.0, 5.0, 0.0) for attempts in (0, 1, 2, 3, 5000)] == [1.0, 2.0, 4.0, 5.0, 5.0]


@pytest.mark.parametrize(("jitter", "part"), [(0.0, 1.0), (0.5, 0.75), (1.0, 0.5)])
def test_jitter_takes_off_up_to_half(jitter: float, part: float) -> None:
    assert backoff(3, 1.0, 60.0, jitter) == part * 8.0

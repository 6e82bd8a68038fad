"""Some thirty worlds: whatever happens in whatever order, the rules hold, and in the end everybody is right.

A failure prints its seed, the rule and the shortest trace that was found. `SIM_SEED=7 pytest tests/sim` or
`python -m tests.sim --seed 7` runs one seed; `make soak` runs thousands.
"""

from __future__ import annotations

import os

import pytest

from tests.sim.run import check, config_of, run, trace_of

SEEDS = 30
AT_ONCE = 10
"""Seeds in one test, so that a failure is small."""

given = os.environ.get("SIM_SEED")
starts = range(int(given), int(given) + 1) if given else range(0, SEEDS, AT_ONCE)


@pytest.mark.parametrize("first", starts)
def test_whatever_happens_the_rules_hold_and_everybody_is_right_in_the_end(first: int) -> None:
    for seed in (first,) if given else range(first, first + AT_ONCE):
        check(seed)


def test_a_seed_happens_the_same_way_every_time() -> None:
    one, other = (run(config_of(5), trace_of(config_of(5))) for _ in range(2))
    assert one.trace == other.trace
    assert (one.calls, one.writes) == (other.calls, other.writes)
    assert one.writes

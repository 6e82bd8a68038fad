"""What the simulation itself promises. The worlds are run beside the tests: `python -m tests.sim`, `make worlds`."""

from __future__ import annotations

from tests.sim import steps
from tests.sim.run import config_of, run, trace_of


def test_a_seed_happens_the_same_way_every_time() -> None:
    one, other = (run(config_of(5), trace_of(config_of(5), 150)) for _ in range(2))
    assert one.trace == other.trace
    assert (one.calls, one.writes) == (other.calls, other.writes)
    assert one.writes


def test_each_step_has_a_name_of_its_own() -> None:
    assert len(steps.NAMED) == len(steps.STEPS)

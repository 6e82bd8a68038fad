"""Runs worlds: a few before each commit, one again to look at it, or thousands.

`python -m tests.sim` runs the first thirty with fewer steps, those that ever failed with all, and those of the planted
bugs with as many as catch the bug; `--rest 300` runs what that leaves of the first 300; `--seed 7` replays one;
`--soak 5000` runs many; `--bugs` searches for seeds that catch the planted bugs.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TYPE_CHECKING

from tests.sim.bugs import BUGS, search
from tests.sim.run import HASHES, QUICK_STEPS, STEPS, check_all, config_of, run, trace_of

if TYPE_CHECKING:
    from collections.abc import Sequence

FAILED_ONCE = (23, 68, 76, 92, 107, 108, 117, 129, 206, 214, 256, 367, 543, 986, 1394, 1768, 2180, 3320, 3332)
"""Seeds that have found a bug of the worker, which has been fixed since."""
OF_BUGS = {(bug.seed, bug.steps) for bug in BUGS.values()}
"""Without its bug the world of a planted bug must break no rule."""
QUICK = [
    *((seed, STEPS) for seed in FAILED_ONCE),
    *((seed, QUICK_STEPS) for seed in range(30) if seed not in FAILED_ONCE),
    *sorted(OF_BUGS),
]


def main() -> int:
    """Return 0 when no rule was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seed", type=int, help="run this seed, print its trace")
    parser.add_argument("--soak", type=int, default=0, help="run so many seeds")
    parser.add_argument("--rest", type=int, default=0, help="run so many seeds but those that are always run whole")
    parser.add_argument("--bugs", action="store_true", help="search for the shortest world that catches each bug")
    parser.add_argument("--first", type=int, default=0, help="the first seed of a soak")
    parser.add_argument("--steps", type=int, default=STEPS, help="steps of each seed")
    given = parser.parse_args()
    if sys.flags.hash_randomization:
        os.execve(sys.executable, [sys.executable, "-m", "tests.sim", *sys.argv[1:]], {**os.environ, **HASHES})
    if given.bugs:
        return search_bugs()
    if given.seed is not None:
        return replay(given.seed, given.steps)
    if given.rest:
        return check_seeds([(seed, STEPS) for seed in range(given.rest) if seed not in FAILED_ONCE])
    soak = range(given.first, given.first + given.soak)
    return check_seeds([(seed, given.steps) for seed in soak] or QUICK)


def replay(seed: int, steps: int) -> int:
    """Run one seed and print everything that happened."""
    config = config_of(seed)
    print(config)
    outcome = run(config, trace_of(config, steps))
    print("\n".join(outcome.trace))
    print(f"{outcome.calls} calls, {outcome.writes} writes, {outcome.seconds:.2f} s")
    if outcome.broken is None:
        return 0
    print("rule broken: {}\n  {}".format(*outcome.broken))
    return 1


def search_bugs() -> int:
    """Print for each planted bug the shortest world that catches it; return how many are not caught."""
    missed = 0
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as processes:
        for name, (seed, steps, rule) in zip(BUGS, processes.map(search, BUGS), strict=True):
            recorded = "" if (seed, steps) == (BUGS[name].seed, BUGS[name].steps) else " (not the one on record)"
            print(f"{name}: seed {seed}, {steps} steps, {rule}{recorded}", flush=True)
            missed += seed < 0
    return missed


def check_seeds(worlds: Sequence[tuple[int, int]]) -> int:
    """Run many seeds, each with so many steps, with a line of progress on a terminal; print each failure."""
    started, calls, writes, failed, count = time.monotonic(), 0, 0, [], len(worlds)
    for done, (seed, outcome) in enumerate(check_all(worlds), 1):
        if isinstance(outcome, str):
            failed.append(seed)
            print(f"\n{outcome}\n", flush=True)
        else:
            calls, writes = calls + outcome.calls, writes + outcome.writes
        if sys.stderr.isatty() and (done % 10 == 0 or done == count):
            rate = done / (time.monotonic() - started)
            print(f"\r{done}/{count} seeds, {rate:.1f}/s, {len(failed)} failed", end="", file=sys.stderr, flush=True)
    seconds = time.monotonic() - started
    print(
        f"{count} seeds, {sum(steps for _, steps in worlds)} steps: {len(failed)} failed {sorted(failed) or ''}, "
        f"{calls} calls, {writes} writes, {seconds:.0f} s"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

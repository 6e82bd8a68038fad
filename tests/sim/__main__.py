"""Runs worlds: a few before each commit, one again to look at it, or thousands.

`python -m tests.sim` runs the first thirty, all that ever failed and those of the planted bugs; `--seed 7` replays one;
`--soak 5000` runs many; `--bugs` searches for seeds that catch the planted bugs.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import TYPE_CHECKING

from tests.sim.bugs import BUGS, search
from tests.sim.run import HASHES, STEPS, check_all, config_of, run, trace_of

if TYPE_CHECKING:
    from collections.abc import Sequence

FAILED_ONCE = (23, 68, 107, 108, 3320, 3332)
"""Seeds that have found a bug of the worker, which has been fixed since."""
QUICK = sorted({*range(30), *FAILED_ONCE, *(bug.seed for bug in BUGS.values())})
"""Those of the planted bugs are among them: without its bug such a seed must break no rule."""


def main() -> int:
    """Return 0 when no rule was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seed", type=int, help="run this seed, print its trace")
    parser.add_argument("--soak", type=int, default=0, help="run so many seeds")
    parser.add_argument("--bugs", action="store_true", help="search for a seed that catches each planted bug")
    parser.add_argument("--first", type=int, default=0, help="the first seed of a soak")
    parser.add_argument("--steps", type=int, default=STEPS, help="steps of each seed")
    given = parser.parse_args()
    if sys.flags.hash_randomization:
        os.execve(sys.executable, [sys.executable, "-m", "tests.sim", *sys.argv[1:]], {**os.environ, **HASHES})
    if given.bugs:
        return search_bugs()
    if given.seed is not None:
        return replay(given.seed, given.steps)
    return check_seeds(range(given.first, given.first + given.soak) if given.soak else QUICK, given.steps)


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
    """Print for each planted bug the first seed that catches it; return how many no seed catches."""
    found = {name: search(name) for name in BUGS}
    for name, (seed, rule) in found.items():
        print(f"{name}: seed {seed}, {rule}" + ("" if seed == BUGS[name].seed else f" (on record: {BUGS[name].seed})"))
    return sum(seed < 0 for seed, _ in found.values())


def check_seeds(seeds: Sequence[int], steps: int) -> int:
    """Run many seeds, with a line of progress on a terminal; print each failure."""
    started, calls, writes, failed, count = time.monotonic(), 0, 0, [], len(seeds)
    for done, (seed, outcome) in enumerate(check_all(seeds, steps), 1):
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
        f"{count} seeds x {steps} steps: {len(failed)} failed {sorted(failed) or ''}, "
        f"{calls} calls, {writes} writes, {seconds:.0f} s"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

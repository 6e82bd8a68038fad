"""Replays one seed, or runs thousands: `python -m tests.sim --seed 7`, `python -m tests.sim --soak 5000`."""

from __future__ import annotations

import argparse
import os
import sys
import time

from tests.sim.run import HASHES, STEPS, check_all, config_of, run, trace_of


def main() -> int:
    """Return 0 when no rule was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seed", type=int, help="run this seed, print its trace")
    parser.add_argument("--soak", type=int, default=0, help="run so many seeds")
    parser.add_argument("--first", type=int, default=0, help="the first seed of a soak")
    parser.add_argument("--steps", type=int, default=STEPS, help="steps of each seed")
    given = parser.parse_args()
    if sys.flags.hash_randomization:
        os.execve(sys.executable, [sys.executable, "-m", "tests.sim", *sys.argv[1:]], {**os.environ, **HASHES})
    return soak(given.first, given.soak, given.steps) if given.seed is None else replay(given.seed, given.steps)


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


def soak(first: int, count: int, steps: int) -> int:
    """Run many seeds, with a line of progress; print each failure."""
    started, calls, writes, failed = time.monotonic(), 0, 0, []
    for done, (seed, outcome) in enumerate(check_all(range(first, first + count), steps), 1):
        if isinstance(outcome, str):
            failed.append(seed)
            print(f"\n{outcome}\n", flush=True)
        else:
            calls, writes = calls + outcome.calls, writes + outcome.writes
        if done % 10 == 0 or done == count:
            rate = done / (time.monotonic() - started)
            print(f"\r{done}/{count} seeds, {rate:.1f}/s, {len(failed)} failed", end="", file=sys.stderr, flush=True)
    seconds = time.monotonic() - started
    print(
        f"\n{count} seeds x {steps} steps: {len(failed)} failed {sorted(failed) or ''}, "
        f"{calls} calls, {writes} writes, {seconds:.0f} s"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

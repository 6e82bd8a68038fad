"""How long to wait before another attempt, so that a service in trouble can recover. Pure."""

from __future__ import annotations


def backoff(attempts: int, first: float, longest: float, jitter: float) -> float:
    """Return the seconds to wait after so many failed attempts and one more: doubling, less up to half as jitter.

    `jitter` is between 0 and 1.
    """
    return min(longest, first * 2.0 ** min(attempts, 30)) * (1 - jitter / 2)

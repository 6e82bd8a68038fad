"""Clerk's rate limits: for the whole instance, and for writes to one user, organization or membership.

Over a limit, the response is 429 with `Retry-After` in seconds, and the endpoint stays blocked until then. The figures
are Clerk's system limits.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from sync_worker.sandbox.clerk_errors import too_many_requests

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

WINDOW_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Requests per 10 seconds; None means no limit."""

    instance: int | None = None
    subject: int | None = None

    @classmethod
    def of_key(cls, secret_key: str) -> Self:
        """Return the limits of the instance that the key is for, production or development."""
        return cls(instance=1000 if secret_key.startswith("sk_live_") else 100, subject=10)


@dataclass
class _Window:
    """The times of the requests that counted in the last 10 seconds."""

    times: deque[float] = field(default_factory=deque)

    def wait(self, now: float, most: int) -> float:
        """Count a request and return 0, or return the seconds until the next one is allowed."""
        while self.times and self.times[0] <= now - WINDOW_SECONDS:
            self.times.popleft()
        if len(self.times) >= most:
            return self.times[0] + WINDOW_SECONDS - now
        self.times.append(now)
        return 0.0


class Limiter:
    """Counts requests and refuses those over the limits. `limits` may be changed at any time."""

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        self.limits = limits
        self._clock = clock
        self._instance = _Window()
        self._subjects: dict[Hashable, _Window] = {}
        self._blocked: dict[Hashable, float] = {}

    def check(self, endpoint: str, subject: str) -> None:
        """Count one request; `subject` is empty for a request that writes no subject. Raises ClerkError 429."""
        now = self._clock()
        self._refuse_until(self._blocked.get(endpoint, 0.0), now)
        self._refuse_until(self._blocked.get((endpoint, subject), 0.0), now)
        if self.limits.instance is not None:
            self._take(self._instance, self.limits.instance, endpoint, now)
        if self.limits.subject is not None and subject:
            window = self._subjects.setdefault(subject, _Window())
            self._take(window, self.limits.subject, (endpoint, subject), now)

    def clear(self) -> None:
        """Reset all counts."""
        self._instance = _Window()
        self._subjects.clear()
        self._blocked.clear()

    def _take(self, window: _Window, most: int, endpoint: Hashable, now: float) -> None:
        wait = window.wait(now, most)
        if wait:
            # The header has whole seconds, so the endpoint stays blocked for as long as it says.
            self._blocked[endpoint] = now + max(1, math.ceil(wait))
            self._refuse_until(self._blocked[endpoint], now)

    def _refuse_until(self, until: float, now: float) -> None:
        if now < until:
            raise too_many_requests(max(1, math.ceil(until - now)))

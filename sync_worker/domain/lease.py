"""The right to write one subject, for a limited time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from sync_worker.errors import LeaseLost

if TYPE_CHECKING:
    from sync_worker.domain.clock import Clock


@dataclass(slots=True)
class Lease:
    """Held by one run, under the `token` of its claim.

    It ends by both times of the clock: the monotonic one may stop while a machine sleeps, and the time of day
    may be set. It also remembers Clerk's Retry-After, because a run may be cut off before its write has returned.
    """

    key: str
    token: str
    clock: Clock
    ends: float
    ends_monotonic: float
    _not_before: float = 0.0

    @classmethod
    def begin(cls, key: str, token: str, clock: Clock, seconds: float) -> Self:
        """Return a lease that lasts for `seconds` from now."""
        return cls(key, token, clock, clock.now() + seconds, clock.monotonic() + seconds)

    def ensure_held(self) -> None:
        """Raise LeaseLost if another run may own the subject by now."""
        if self.clock.monotonic() > self.ends_monotonic or self.clock.now() > self.ends:
            raise LeaseLost(self.key)

    @property
    def retry_after(self) -> float:
        """For how many more seconds Clerk wants the subject left alone."""
        return max(0.0, self._not_before - self.clock.monotonic())

    def record_retry_after(self, seconds: float) -> None:
        """Remember that Clerk wants the subject left alone for so many seconds from now."""
        self._not_before = self.clock.monotonic() + seconds

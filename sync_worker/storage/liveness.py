"""When the last webhook of a service was accepted.

A write per webhook would double the cost of accepting it, so each process writes at most once per interval; readers
allow for that.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sync_worker.errors import DatabaseUnavailable

if TYPE_CHECKING:
    from sync_worker.domain.clock import Clock
    from sync_worker.domain.timings import Timings
    from sync_worker.storage.queue_admin import QueueAdmin


ANOTHER_INSTANCE = "clerk:another-instance"
"""Whose events are ignored: an endpoint in Clerk that belongs to another instance than our key."""


def note_of(service: str) -> str:
    """Return the name under which the time is stored for `sanity`, `clerk` or ANOTHER_INSTANCE."""
    return f"heard:{service}"


@dataclass(slots=True)
class Liveness:
    """Records when webhooks are accepted."""

    admin: QueueAdmin
    clock: Clock
    timings: Timings
    _next: dict[str, float] = field(default_factory=dict)

    async def now(self, service: str) -> None:
        """Record a webhook, at most once per interval. Raises nothing: the webhook is enqueued already."""
        now = self.clock.monotonic()
        if now < self._next.get(service, 0.0):
            return
        self._next[service] = now + self.timings.liveness_note_interval
        with suppress(DatabaseUnavailable):
            await self.admin.remember(note_of(service), "")

"""Authentication of the pages: ADMIN_TOKEN in a header, or a session cookie signed with it at sign-in.

Sessions are stateless: the cookie carries its own expiry, every process can verify it, and a new token ends them all.
Wrong tokens are counted per client, and a client with too many is rejected before any comparison.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sync_worker.domain.clock import Clock
    from sync_worker.domain.timings import Timings

WRONG_GUESSES = 10
"""Wrong tokens per client in `guess_window`. All clients behind one proxy count as one."""
CLIENTS = 1000
"""Clients remembered; beyond that the oldest are dropped."""


@dataclass(slots=True)
class LoginThrottle:
    """Counts wrong tokens per client."""

    clock: Clock
    timings: Timings
    _seen: dict[str, list[float]] = field(default_factory=dict)

    def exhausted(self, client: str) -> bool:
        """Return whether a client has to wait before its next attempt."""
        return len(self._recent(client)) >= WRONG_GUESSES

    def wrong(self, client: str) -> None:
        """Record a wrong token."""
        recent = [*self._recent(client), self.clock.monotonic()]
        self._seen.pop(client, None)
        if len(self._seen) >= CLIENTS:
            del self._seen[next(iter(self._seen))]
        self._seen[client] = recent

    def _recent(self, client: str) -> list[float]:
        since = self.clock.monotonic() - self.timings.guess_window
        return [moment for moment in self._seen.get(client, ()) if moment > since]


@dataclass(frozen=True, slots=True)
class Authenticator:
    """Checks tokens, and creates and verifies sessions."""

    token: bytes = field(repr=False)
    guesses: LoginThrottle
    clock: Clock
    timings: Timings

    def is_token(self, given: bytes) -> bool:
        """Return whether this is the token, in constant time for any length."""
        return hmac.compare_digest(hashlib.sha256(given).digest(), hashlib.sha256(self.token).digest())

    def new_session(self) -> str:
        """Return a cookie value that is valid for `session_lifetime`."""
        claim = f"{int(self.clock.now() + self.timings.session_lifetime)}.{secrets.token_urlsafe(16)}"
        return f"{claim}.{self._signature('session', claim)}"

    def is_session(self, cookie: str) -> bool:
        """Return whether a cookie was issued with this token and has not expired."""
        claim, _, signature = cookie.rpartition(".")
        if not same(signature, self._signature("session", claim)):
            return False
        return int(claim.partition(".")[0]) > self.clock.now()

    def form_code(self, cookie: str, purpose: str) -> str:
        """Return the CSRF code of a session's form for one purpose."""
        return self._signature(purpose, cookie)

    def _signature(self, purpose: str, text: str) -> str:
        return hmac.new(self.token, f"{purpose}:{text}".encode(), hashlib.sha256).hexdigest()


def same(given: str, expected: str) -> bool:
    """Compare two strings in constant time."""
    return hmac.compare_digest(given.encode(), expected.encode())

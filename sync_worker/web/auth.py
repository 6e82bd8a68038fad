"""Who may see the pages: whoever knows ADMIN_TOKEN, by header, or by a cookie that was signed with it at the sign-in.

Why it exists: the pages name people and their access. There are no accounts to keep: the cookie carries its own end and
a signature whose key is the token, so that every process knows it, and a new token ends every session. Wrong guesses
are counted per client, before anything is compared. The forms themselves are `pages`.
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
"""Wrong tokens that one client may send in `guess_window`. A proxy in front makes all its clients one."""
CLIENTS = 1000
"""Clients of which guesses are remembered; beyond that the first are forgotten."""


@dataclass(slots=True)
class LoginThrottle:
    """Counts wrong guesses by client."""

    clock: Clock
    timings: Timings
    _seen: dict[str, list[float]] = field(default_factory=dict)

    def exhausted(self, client: str) -> bool:
        """Tell whether a client has to wait before the next guess."""
        return len(self._recent(client)) >= WRONG_GUESSES

    def wrong(self, client: str) -> None:
        """Count one."""
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
    """Knows the token."""

    token: bytes = field(repr=False)
    guesses: LoginThrottle
    clock: Clock
    timings: Timings

    def is_token(self, given: bytes) -> bool:
        """Compare in a time that tells nothing of the token, not even its length."""
        return hmac.compare_digest(hashlib.sha256(given).digest(), hashlib.sha256(self.token).digest())

    def new_session(self) -> str:
        """Return the value of a cookie that is good for `session_lifetime`."""
        claim = f"{int(self.clock.now() + self.timings.session_lifetime)}.{secrets.token_urlsafe(16)}"
        return f"{claim}.{self._signature('session', claim)}"

    def is_session(self, cookie: str) -> bool:
        """Tell whether a cookie was made here and has not ended."""
        claim, _, signature = cookie.rpartition(".")
        if not same(signature, self._signature("session", claim)):
            return False
        return int(claim.partition(".")[0]) > self.clock.now()

    def sign_out_code(self, cookie: str) -> str:
        """Return what the sign-out form of a session carries, so that no other site can send it."""
        return self._signature("sign-out", cookie)

    def _signature(self, purpose: str, text: str) -> str:
        return hmac.new(self.token, f"{purpose}:{text}".encode(), hashlib.sha256).hexdigest()


def same(given: str, wanted: str) -> bool:
    """Compare two texts in a time that does not tell where they differ."""
    return hmac.compare_digest(given.encode(), wanted.encode())

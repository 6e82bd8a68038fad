"""Authentication of the pages: ADMIN_TOKEN in a header, or a session cookie signed with it at sign-in.

A cookie carries its own expiry, and every process can verify it with the session key, which is in the database. Signing
out replaces that key, which ends all sessions, also of a cookie that was copied. A new token ends them too.
Wrong tokens are counted per client. The right token is never refused: others may share its client's address.
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
"""Different wrong tokens per client in `guess_window`. A program that repeats an old token counts as one."""
SESSION_KEY = "sessions:key"
"""The name in the database of what every session is signed with, besides the token."""
CLIENTS = 1000
"""Clients remembered; beyond that the oldest are dropped."""


@dataclass(slots=True)
class LoginThrottle:
    """Counts the different wrong tokens of each client."""

    clock: Clock
    timings: Timings
    _seen: dict[str, dict[bytes, float]] = field(default_factory=dict)

    def exhausted(self, client: str, token: bytes) -> bool:
        """Record a wrong token. Return whether its client has sent too many others before."""
        now = self.clock.monotonic()
        seen = self._seen.pop(client, {})
        recent = {digest: at for digest, at in seen.items() if at > now - self.timings.guess_window}
        digest = hashlib.sha256(token).digest()
        exhausted = len(recent) >= WRONG_GUESSES and digest not in recent
        if not exhausted:
            recent[digest] = now
        if len(self._seen) >= CLIENTS:
            del self._seen[next(iter(self._seen))]
        self._seen[client] = recent
        return exhausted


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

    def new_session(self, key: str) -> str:
        """Return a cookie value that is valid for `session_lifetime`, or until the session key is replaced."""
        claim = f"{int(self.clock.now() + self.timings.session_lifetime)}.{secrets.token_urlsafe(16)}"
        return f"{claim}.{self._signature(f'session:{key}', claim)}"

    def is_session(self, cookie: str, key: str) -> bool:
        """Return whether a cookie was issued with this token and session key, and has not expired."""
        claim, _, signature = cookie.rpartition(".")
        if not same(signature, self._signature(f"session:{key}", claim)):
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

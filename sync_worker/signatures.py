"""Signatures: whether the holder of one of our secrets sent exactly these bytes.

Why it exists: a webhook can only be trusted by its signature over the raw body. Headers are not part of it, so nothing
else is read from them. What a good body means is the receiver's affair.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SANITY_HEADER = "sanity-webhook-signature"
_SANITY = re.compile(r"t=([0-9]{1,16}),\s?v1=([A-Za-z0-9_-]{43})", re.ASCII)
EARLIEST_MS = 1_609_459_200_000
"""Sanity's toolkit takes an earlier time for one in seconds, and refuses it."""


def verify_sanity(headers: Mapping[str, str], body: bytes, secrets: Sequence[str]) -> bool:
    """Tell whether Sanity signed `body` with one of `secrets`.

    The header is `t=<ms>,v1=<base64url of HMAC-SHA256 over "t.body">`. Age is not judged: Sanity repeats a delivery
    for half an hour, whether with a new time is not documented, and a replayed body can only cause one more read.
    """
    match = _SANITY.fullmatch(headers.get(SANITY_HEADER, "").strip())
    if match is None or int(match[1]) < EARLIEST_MS:
        return False
    good = False
    for secret in secrets:
        digest = hmac.new(secret.encode(), f"{match[1]}.".encode() + body, hashlib.sha256).digest()
        expected = base64.urlsafe_b64encode(digest).rstrip(b"=")
        good |= hmac.compare_digest(expected, match[2].encode())
    return good


def sign_sanity(body: bytes, secret: str, milliseconds: int) -> str:
    """Return the header that Sanity would send with `body`."""
    digest = hmac.new(secret.encode(), f"{milliseconds}.".encode() + body, hashlib.sha256).digest()
    return f"t={milliseconds},v1={base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"

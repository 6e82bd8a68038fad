"""Signatures: whether the holder of one of our secrets sent exactly these bytes.

A signature covers the raw body and nothing else, so no other header is trusted.
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
_SANITY = re.compile(r"t=([0-9]{1,16}),v1=([A-Za-z0-9_-]{43})", re.ASCII)
SVIX_ID, SVIX_TIMESTAMP, SVIX_SIGNATURE = "svix-id", "svix-timestamp", "svix-signature"
_SVIX_SIGNATURES = re.compile(r"v[0-9]+[a-z]?,[A-Za-z0-9+/]+={0,2}( v[0-9]+[a-z]?,[A-Za-z0-9+/]+={0,2})*", re.ASCII)
EARLIEST_MS = 1_609_459_200_000
"""Sanity's toolkit takes an earlier time for seconds, and refuses it."""


def verify_sanity(headers: Mapping[str, str], body: bytes, secrets: Sequence[str]) -> bool:
    """Return whether Sanity signed `body` with one of `secrets`.

    The header is `t=<ms>,v1=<base64url of HMAC-SHA256 over "t.body">`. Age is not judged: Sanity repeats a delivery
    for half an hour, perhaps with the old time, and a replayed body can only cause one more read.
    """
    match = _SANITY.fullmatch(headers.get(SANITY_HEADER, ""))
    if match is None or int(match[1]) < EARLIEST_MS:
        return False
    good = False
    for secret in secrets:
        digest = hmac.new(secret.encode(), f"{match[1]}.".encode() + body, hashlib.sha256).digest()
        expected = base64.urlsafe_b64encode(digest).rstrip(b"=")
        good |= hmac.compare_digest(expected, match[2].encode())
    return good


def verify_svix(headers: Mapping[str, str], body: bytes, secrets: Sequence[str]) -> bool:
    """Return whether Svix signed `body` with one of `secrets` (whsec_…) within five minutes of now.

    Svix's own package decides. It reads base64 and numbers leniently, and raises various errors on malformed headers;
    so the shape is checked first, and any error is a refusal.
    """
    from svix.webhooks import Webhook  # noqa: PLC0415 - 0.5 s to import; `app` does it beforehand

    given = {name: headers.get(name, "") for name in (SVIX_ID, SVIX_TIMESTAMP, SVIX_SIGNATURE)}
    signatures = given[SVIX_SIGNATURE]
    if not re.fullmatch(r"[0-9]{1,12}", given[SVIX_TIMESTAMP], re.ASCII) or not _SVIX_SIGNATURES.fullmatch(signatures):
        return False
    given[SVIX_SIGNATURE] = " ".join(filter(_is_canonical, signatures.split(" ")))
    for secret in secrets:
        try:
            Webhook(secret).verify(body, given)
        except Exception:  # noqa: BLE001, S112 - any error means that the signature was not verified
            continue
        return True
    return False


def _is_canonical(signature: str) -> bool:
    """Return whether a signature has the version that is verified, and is the only text for its bytes."""
    version, _, text = signature.partition(",")
    try:
        return version == "v1" and base64.b64encode(base64.b64decode(text, validate=True)).decode() == text
    except ValueError:
        return False


def sign_sanity(body: bytes, secret: str, milliseconds: int) -> str:
    """Return the header that Sanity would send with `body`."""
    digest = hmac.new(secret.encode(), f"{milliseconds}.".encode() + body, hashlib.sha256).digest()
    return f"t={milliseconds},v1={base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"

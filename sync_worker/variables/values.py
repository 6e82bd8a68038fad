"""Checks of raw values. Each function raises ValueError with what to write, without repeating the value of a secret."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from sync_worker.domain.text import escaped, invisible_character

if TYPE_CHECKING:
    from collections.abc import Sequence

MIN_SECRET_LENGTH = 16
"""In characters: what is shorter can be guessed."""
GENERATE = "generate it with `openssl rand -hex 32`"
_SVIX_SECRET = re.compile(r"whsec_([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{4}|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{2}==)")


def items(text: str) -> tuple[str, ...]:
    """Return the items of a list separated by commas."""
    check_visible(text)
    if text.strip().startswith(("[", "{")) or any(sign in text for sign in ";\"'"):
        raise ValueError(f"must be a list separated by commas, without brackets and quotes: {_plainly(text) or 'a,b'}")
    found = tuple(item.strip() for item in text.split(",") if item.strip())
    if repeated := next((item for item in found if found.count(item) > 1), ""):
        raise ValueError(f"must name each item once: {repeated} is repeated")
    return found


def _plainly(text: str) -> str:
    """Return a list of another notation as one of ours."""
    bare = re.sub(r"[\[\]{}\"']", "", text).replace(";", ",")
    return ",".join(re.sub(r"\s*[:=]\s*", "=", part.strip()) for part in bare.split(",") if part.strip())


def secrets(text: str) -> list[str]:
    """Return the secrets of a text: spaces and commas separate several."""
    if text.strip().startswith(('"', "'", "[")):
        raise ValueError(
            "must be written without quotes and brackets. A secret cannot contain a comma, because commas separate "
            f"several: {GENERATE}"
        )
    return [secret for secret in re.split(r"[\s,]+", text) if secret]


def check_networks(several: Sequence[str]) -> None:
    """Check addresses and networks. Any client could name itself if every address were trusted, so `*` is refused."""
    for text in several:
        try:
            network = ipaddress.ip_network(text)
        except ValueError:
            network = None
        if network is None or network.prefixlen == 0:
            raise ValueError(f"must be addresses or networks of your proxies, such as 10.0.0.0/8, not {escaped(text)}")


def check_secret(secret: str) -> None:
    """Check a secret of our own."""
    if len(secret) < MIN_SECRET_LENGTH:
        raise ValueError(f"must have at least {MIN_SECRET_LENGTH} characters: {GENERATE}")
    check_visible(secret)


def check_secrets(several: Sequence[str]) -> None:
    """Check secrets of our own that one variable holds."""
    if len(several) > 1 and any(len(secret) < MIN_SECRET_LENGTH for secret in several):
        raise ValueError(
            f"must have at least {MIN_SECRET_LENGTH} characters in each of its secrets. Commas and spaces separate "
            f"them, so a secret cannot contain one: {GENERATE}"
        )
    for secret in several:
        check_secret(secret)


def check_svix_secret(secret: str, advice: str = "copy the signing secret under Webhooks in Clerk's dashboard") -> None:
    """Check a secret of the form that Svix signs with; `advice` says where to get one."""
    if not _SVIX_SECRET.fullmatch(secret) or len(secret) < MIN_SECRET_LENGTH:
        raise ValueError(f"must be whsec_ and base64, without a comma: {advice}")


def check_key(key: str) -> None:
    """Check a key that goes into a header."""
    if not re.fullmatch(r"[!-~]+", key):
        raise ValueError("contains a character that no key has: copy it again")


def check_url(url: str) -> None:
    """Check the URL of a service."""
    if not re.fullmatch(r"https?://[!-~]+", url) or not _has_host(url):
        raise ValueError("must be a URL that starts with https://")


def _has_host(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def check_visible(text: str) -> None:
    """Check that a text has no character that cannot be seen."""
    if character := invisible_character(text):
        raise ValueError(f"contains the invisible character {escaped(character)}: type it again")

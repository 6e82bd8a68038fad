"""Replaces secrets and e-mail addresses in texts by placeholders.

Errors are redacted when they are created, before they reach the database and the screens, and logs when they are
written: services repeat what they were sent, and an exception can contain anything.
"""

from __future__ import annotations

import re

SECRET, ADDRESS = "[secret]", "[e-mail]"
_DELIMITERS = r"\s@<>()\[\],;:=/"
_FOUND = re.compile(
    rf"""
    (?P<bearer>\b[Bb]earer\s+)\S+
    | (?P<login>://)[^\s/@]*@                                       # user and password in a URL
    | (?P<secret>sk_(?:live|test)_[\w-]+                            # Clerk's keys
        | whsec_[\w+/=-]+                                           # Svix's secrets
        | \beyJ[\w-]+\.[\w-]+\.[\w-]+                              # signed tokens
        | (?<![A-Za-z0-9])sk[A-Za-z0-9]{{40,}})                     # Sanity's tokens
    | (?<![^{_DELIMITERS}])[^{_DELIMITERS}]+(?:@|%40)[^{_DELIMITERS}"']+  # from the start of a word only: linear
    """,
    re.VERBOSE,
)


def redact(text: str) -> str:
    """Return the text with a placeholder for each secret and each e-mail address."""
    if "@" in text or "sk" in text or "earer" in text or "%40" in text or "whsec_" in text or "eyJ" in text:
        return _FOUND.sub(_placeholder, text)
    return text  # the common case


def _placeholder(found: re.Match[str]) -> str:
    if found["bearer"]:
        return f"{found['bearer']}{SECRET}"
    if found["login"]:
        return f"{found['login']}{SECRET}@"
    return SECRET if found["secret"] else ADDRESS

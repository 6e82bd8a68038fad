"""Takes secrets and e-mail addresses out of a text that people or machines will read.

Why it exists: services repeat in their errors what they were sent, and an exception may hold anything. Texts are
cleaned where they enter an error, and so the database and the screens, and once more where they enter the log.
"""

from __future__ import annotations

import re

SECRET, ADDRESS = "[secret]", "[e-mail]"
_NO_ADDRESS = r"\s@<>()\[\],;:=/"
_FOUND = re.compile(
    rf"""
    (?P<bearer>\b[Bb]earer\s+)\S+
    | (?P<login>://)[^\s/@]*@                                       # user and password in a URL
    | (?P<secret>sk_(?:live|test)_[\w-]+                            # Clerk's keys
        | whsec_[\w+/=-]+                                           # Svix's secrets
        | (?<![A-Za-z0-9])sk[A-Za-z0-9]{{40,}})                     # Sanity's tokens
    | (?<![^{_NO_ADDRESS}])[^{_NO_ADDRESS}]+(?:@|%40)[^{_NO_ADDRESS}"']+  # begun only where a word begins: linear
    """,
    re.VERBOSE,
)


def redact(text: str) -> str:
    """Return the text with a mark in the place of each secret and each address."""
    if "@" in text or "sk" in text or "earer" in text or "%40" in text or "whsec_" in text:
        return _FOUND.sub(_mark, text)
    return text  # almost every time


def _mark(found: re.Match[str]) -> str:
    if found["bearer"]:
        return f"{found['bearer']}{SECRET}"
    if found["login"]:
        return f"{found['login']}{SECRET}@"
    return SECRET if found["secret"] else ADDRESS

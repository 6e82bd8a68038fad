"""Characters that people cannot see: pasted with an id or an address, they make it another one."""

from __future__ import annotations

_BLANK = frozenset("\u034f\u115f\u1160\u2800\u3164\uffa0")
"""Characters that Python calls printable, but that print nothing."""


def invisible_character(text: str) -> str:
    """Return the first character that cannot be seen, or an empty string; an ordinary space is not one."""
    if text.isprintable() and (text.isascii() or _BLANK.isdisjoint(text)):
        return ""
    return next(character for character in text if not character.isprintable() or character in _BLANK)


def escaped(character: str) -> str:
    r"""Return a character as an escape in ASCII, such as `\u200b`."""
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")

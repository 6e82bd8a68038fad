"""How moments and addresses are written for people.

Why it exists: the command line and the pages must say the same thing in the same way, and neither may show anybody's
e-mail address. It knows nothing else.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

_ADDRESS = re.compile(r"([^\s@/:\"'(),;<>])[^\s@/:\"'(),;<>]*@([^\s@/:\"'(),;<>]+)")


def masked(text: str) -> str:
    """Return `text` with every e-mail address in it made unreadable: `a***@example.org`."""
    return _ADDRESS.sub(r"\1***@\2", text)


def rfc3339(epoch: float | None) -> str | None:
    """Return a moment in UTC to the second, for programs; None stays None."""
    if epoch is None:
        return None
    return datetime.fromtimestamp(epoch, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def at(epoch: float, now: float) -> str:
    """Return a moment in UTC for people: the time of day, with the date unless it is today's."""
    moment, today = datetime.fromtimestamp(epoch, UTC), datetime.fromtimestamp(now, UTC)
    return f"{moment:%H:%M:%S}" if moment.date() == today.date() else f"{moment:%Y-%m-%d %H:%M:%S}"


def ago(seconds: float) -> str:
    """Return a length of time in its largest unit: `40 s`, `12 min`, `3 h`, `5 days`."""
    for unit, length in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"

"""Formats and parses times, formats managed keys, masks addresses and escapes control characters, for people."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import tzinfo

_ADDRESS = re.compile(r"([^\s@/:\"'(),;<>])[^\s@/:\"'(),;<>]*@([^\s@/:\"'(),;<>]+)")

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}.*")


def masked(text: str) -> str:
    """Return `text` with every e-mail address masked, as `a***@example.org`."""
    return _ADDRESS.sub(r"\1***@\2", text)


def printable(text: str) -> str:
    """Return `text` with each character escaped that could control a terminal or hide there; lines stay lines."""
    if text.isprintable():
        return text  # the common case
    return "".join(c if c.isprintable() or c in "\n\t" else json.dumps(c)[1:-1] for c in text)


def rfc3339(epoch: float | None) -> str | None:
    """Return a time as RFC 3339 in UTC, to the second; None stays None."""
    if epoch is None:
        return None
    return datetime.fromtimestamp(epoch, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def parse_time(text: str) -> datetime:
    """Return an RFC 3339 time, or the first moment of a date, in UTC. Raises ValueError that says what is wrong."""
    try:
        if _DATE.fullmatch(text):
            return datetime.fromisoformat(text).replace(tzinfo=UTC)
        moment = datetime.fromisoformat(text) if _TIME.fullmatch(text) else None
        if moment is not None and moment.tzinfo is not None:
            return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        moment = None
    problem = "is not a time or a date" if moment is None else "has no time zone"
    raise ValueError(f"{problem}; write 2026-05-01T12:00:00Z, for example, or 2026-05-01")


def at(epoch: float, now: float, zone: tzinfo = UTC) -> str:
    """Return a time for people, in UTC unless another zone is given: the time of day, after the date unless today."""
    moment, today = datetime.fromtimestamp(epoch, zone), datetime.fromtimestamp(now, zone)
    return f"{moment:%H:%M:%S}" if moment.date() == today.date() else f"{moment:%Y-%m-%d %H:%M:%S}"


def ago(seconds: float) -> str:
    """Return a duration in its largest unit: `40 s`, `12 min`, `3 h`, `5 days`."""
    for unit, length in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def relative(epoch: float, now: float) -> str:
    """Return a time as seen from now: `5 min ago`, `in 3 h`."""
    return f"in {ago(epoch - now)}" if epoch > now else f"{ago(now - epoch)} ago"


def describe(values: Mapping[str, object]) -> str:
    """Return managed keys on one line: `plan=pro courseSlugs=algebra,geometry`; a dash when there are none."""
    parts = (
        f"{name}={','.join(map(str, value)) if isinstance(value, list | tuple) else value}"
        for name, value in values.items()
    )
    return " ".join(parts) or "—"

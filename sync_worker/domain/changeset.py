"""The changes of one run: why each is needed, how many losses are allowed, and what they cost."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from sync_worker.domain.ownership import is_untouched, managed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sync_worker.domain.entitlements import Change, Layout, Observed
    from sync_worker.domain.subjects import Subject

MIN_ALLOWED_LOSSES = 5
"""Losses that a percentage always allows, so that two cancellations in a small shop are not held."""
IDS_PER_CALL = 100
SHOWN_LOSSES = 5
"""Values named in a verdict, the most frequent first."""


class Drift(StrEnum):
    """Why a subject is, or would be, out of sync."""

    MISSED = "missed by us"
    EDITED = "edited in Clerk"
    MOVED = "moved by settings"
    UNMANAGED = "not managed yet"
    PREVIEWED = "not published yet"


@dataclass(frozen=True, slots=True)
class Difference:
    """One change, and why the subject is out of sync."""

    change: Change
    drift: Drift


@dataclass(frozen=True, slots=True)
class LossLimit:
    """How many subjects may lose something by one cause: a number, or a percentage of the managed subjects."""

    text: str

    def allowed(self, population: int) -> int:
        """Return the number of losses allowed when `population` subjects are managed."""
        if self.text.endswith("%"):
            return max(MIN_ALLOWED_LOSSES, population * int(self.text[:-1]) // 100)
        return int(self.text)


@dataclass(frozen=True, slots=True)
class Forecast:
    """The cost of applying a changeset: calls to Clerk, and seconds within the call budget."""

    calls: int
    seconds: float


@dataclass(slots=True)
class Tally:
    """The number of subjects on each plan, with a hash over them that does not depend on their order."""

    counts: Counter[str]
    hashes: Counter[str]

    @classmethod
    def empty(cls) -> Tally:
        """Return an empty tally."""
        return cls(Counter(), Counter())

    def add(self, subject: Subject, plan: object, values: Mapping[str, object]) -> None:
        """Count a subject with these values."""
        text = json.dumps([str(subject), values], sort_keys=True)
        name = "none" if plan is None else str(plan)
        self.counts[name] += 1
        self.hashes[name] += int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")

    def of(self, plan: str) -> dict[str, int | str]:
        """Return the count and the hash of one plan."""
        return {"count": self.counts[plan], "hash": f"{self.hashes[plan] % 2**64:016x}"}


def compared(sanity: Tally, clerk: Tally) -> list[dict[str, Any]]:
    """Return one entry per plan with the tallies of both sides."""
    plans = sorted(sanity.counts.keys() | clerk.counts.keys())
    return [{"plan": plan, "sanity": sanity.of(plan), "clerk": clerk.of(plan)} for plan in plans]


def classify(change: Change, observed: Observed, layout: Layout) -> Difference:
    """Return why a subject is out of sync, by comparing what Clerk holds with our marker."""
    marker = managed(observed, layout).marker
    if marker is None:
        own = change.before.keys() - change.taken_over.keys()
        return Difference(change, Drift.EDITED if own else Drift.UNMANAGED)
    if not set(marker.keys) <= set(layout.slots) or layout.namespace not in observed.markers:
        return Difference(change, Drift.MOVED)
    return Difference(change, Drift.MISSED if is_untouched(observed, marker) else Drift.EDITED)


def verdict(losing: Sequence[Change], limit: LossLimit, managed: int) -> tuple[str, bool]:
    """Return what would be lost by how many subjects, in words, and whether a reconcile would hold it."""
    if not losing:
        return "Nobody would lose anything.", False
    counts = Counter(what for change in losing for what in _lost(change))
    if counts and set(counts.values()) == {len(losing)} and len(counts) <= SHOWN_LOSSES:
        lost = " and ".join(counts)
    else:
        parts = [f"{number} {what}" for what, number in counts.most_common(SHOWN_LOSSES)]
        lost = f"something ({', '.join(parts)}{', …' if len(counts) > SHOWN_LOSSES else ''})" if parts else "something"
    allowed = limit.allowed(managed)
    held = len(losing) > allowed
    then = "this would be held by a reconcile" if held else "a reconcile would not hold this"
    return f"{len(losing)} would lose {lost}: {then}, because MAX_REVOCATIONS={limit.text} allows {allowed}.", held


def _lost(change: Change) -> list[str]:
    """Return the values and the members of lists that a change takes away or lowers."""
    found = []
    for loss in change.losses:
        kept = loss.after if isinstance(loss.after, list) else []
        before = loss.before if isinstance(loss.before, list) else [loss.before]
        found += [f"{loss.key} {value}" for value in before if value not in kept]
    return found


def forecast(writes: int, budget: int, window: float) -> Forecast:
    """Return the cost of `writes` changes at `budget` calls per `window` seconds: list calls, and one PATCH each."""
    calls = writes + -(-writes // IDS_PER_CALL)
    return Forecast(calls, max(0.0, (calls - budget) / budget * window))

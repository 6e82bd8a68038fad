"""The changes of one run: why each is needed, how many are allowed, and how they print as a table, JSON or Markdown."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from sync_worker.domain.diff import fingerprint

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sync_worker.domain.entitlements import Change, ChangeKind, Layout, Observed
    from sync_worker.domain.subjects import Subject

MIN_ALLOWED_REVOCATIONS = 5
"""Revocations that a percentage always allows, so that two cancellations in a small shop are not held."""
IDS_PER_CALL = 100


class Drift(StrEnum):
    """Why a subject is out of sync: we missed a change, somebody edited it in Clerk, or it is not managed yet."""

    MISSED = "missed by us"
    EDITED = "edited in Clerk"
    UNMANAGED = "not managed yet"


@dataclass(frozen=True, slots=True)
class Difference:
    """One change, and why the subject is out of sync."""

    change: Change
    drift: Drift


@dataclass(frozen=True, slots=True)
class RevocationLimit:
    """How many revocations one changeset may contain: a number, or a percentage of the managed subjects."""

    text: str

    def allowed(self, population: int) -> int:
        """Return the number of revocations allowed when `population` subjects are managed."""
        if self.text.endswith("%"):
            return max(MIN_ALLOWED_REVOCATIONS, population * int(self.text[:-1]) // 100)
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
    """Return why a subject is out of sync, by comparing its values with the fingerprint of the last write."""
    if observed.marker is None:
        return Difference(change, Drift.UNMANAGED)
    untouched = fingerprint(change.before, layout) == observed.marker.fingerprint
    return Difference(change, Drift.MISSED if untouched else Drift.EDITED)


def changeset_id(names: Iterable[Subject | str]) -> str:
    """Return an id that depends on the subjects, or on the cause, and not on their order."""
    joined = "\n".join(sorted(map(str, names)))
    return hashlib.sha256(joined.encode()).hexdigest()[:10]


def forecast(writes: int, budget: int, window: float) -> Forecast:
    """Return the cost of `writes` changes at `budget` calls per `window` seconds: list calls, and one PATCH each."""
    calls = writes + -(-writes // IDS_PER_CALL)
    return Forecast(calls, max(0.0, (calls - budget) / budget * window))


def counts(differences: Iterable[Difference]) -> Mapping[ChangeKind, int]:
    """Count changes by kind."""
    return Counter(difference.change.kind for difference in differences)


def as_rows(differences: Sequence[Difference]) -> list[tuple[str, str, str, str, str]]:
    """Return the cells of a table: subject, change, before, after, why."""
    return [
        (
            str(d.change.subject),
            d.change.kind.value,
            describe(d.change.before),
            describe(d.change.after),
            f"{d.drift}{_documents(d.change)}",
        )
        for d in differences
    ]


def as_json(differences: Sequence[Difference]) -> list[dict[str, object]]:
    """Return one object per change."""
    return [
        {
            "subject": str(d.change.subject),
            "change": d.change.kind.value,
            "before": dict(d.change.before),
            "after": dict(d.change.after),
            "documents": list(d.change.sources),
            "drift": d.drift.value,
        }
        for d in differences
    ]


def as_markdown(differences: Sequence[Difference]) -> str:
    """Return a Markdown table."""
    lines = ["| subject | change | before | after | why |", "|---|---|---|---|---|"]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in as_rows(differences)]
    return "\n".join(lines)


def describe(values: Mapping[str, object]) -> str:
    """Return managed keys on one line: `plan=pro courseSlugs=algebra,geometry`; a dash when there are none."""
    parts = (
        f"{name}={','.join(map(str, value)) if isinstance(value, list | tuple) else value}"
        for name, value in values.items()
    )
    return " ".join(parts) or "—"


def _documents(change: Change) -> str:
    return f" ({', '.join(change.sources[:3])}{', …' if len(change.sources) > 3 else ''})" if change.sources else ""  # noqa: PLR2004

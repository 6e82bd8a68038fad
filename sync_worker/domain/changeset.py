"""The changes of one run: counted, braked, and shown as a table, as JSON or as Markdown.

Why it exists: an operator must see what a run would do, and a wrong filter must not take everyone's access away. This
is pure: it decides which revocations are held, and puts words to changes. Finding changes is `reconcile`, writing them
`converge`, keeping held ones `held`.
"""

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

    from sync_worker.domain.model import Change, ChangeKind, Layout, Observed, Subject

LEAST_ALLOWED = 5
"""Revocations that a percentage always allows, so that a small shop is not held by its second cancellation."""
IDS_A_CALL = 100


class Drift(StrEnum):
    """Why a subject differs: we are late, somebody edited it in Clerk, or it was never ours."""

    MISSED = "missed by us"
    EDITED = "edited in Clerk"
    FOREIGN = "not ours yet"


@dataclass(frozen=True, slots=True)
class Difference:
    """One change with its reason."""

    change: Change
    drift: Drift


@dataclass(frozen=True, slots=True)
class RevocationLimit:
    """How many revocations one changeset may have: a number, or a percentage of the subjects that are ours."""

    text: str

    def allowed(self, population: int) -> int:
        """Return the number for a population of `population` subjects with our marker."""
        if self.text.endswith("%"):
            return max(LEAST_ALLOWED, population * int(self.text[:-1]) // 100)
        return int(self.text)


@dataclass(frozen=True, slots=True)
class Forecast:
    """What applying a changeset costs: calls to Clerk, and seconds at the budget."""

    calls: int
    seconds: float


@dataclass(slots=True)
class Tally:
    """How many subjects hold each plan, with a hash over them that does not depend on their order."""

    counts: Counter[str]
    hashes: Counter[str]

    @classmethod
    def empty(cls) -> Tally:
        """Return a tally of nobody."""
        return cls(Counter(), Counter())

    def add(self, subject: Subject, plan: object, values: Mapping[str, object]) -> None:
        """Count a subject that holds `values`."""
        text = json.dumps([str(subject), values], sort_keys=True)
        name = "none" if plan is None else str(plan)
        self.counts[name] += 1
        self.hashes[name] += int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")

    def of(self, plan: str) -> dict[str, int | str]:
        """Return count and hash of one plan."""
        return {"count": self.counts[plan], "hash": f"{self.hashes[plan] % 2**64:016x}"}


def compared(sanity: Tally, clerk: Tally) -> list[dict[str, Any]]:
    """Return both sides beside each other, a plan a line."""
    plans = sorted(sanity.counts.keys() | clerk.counts.keys())
    return [{"plan": plan, "sanity": sanity.of(plan), "clerk": clerk.of(plan)} for plan in plans]


def classify(change: Change, observed: Observed, layout: Layout) -> Difference:
    """Say why a subject differs: compare what it holds with the fingerprint of what we last wrote."""
    if observed.marker is None:
        return Difference(change, Drift.FOREIGN)
    untouched = fingerprint(change.before, layout) == observed.marker.fingerprint
    return Difference(change, Drift.MISSED if untouched else Drift.EDITED)


def changeset_id(names: Iterable[Subject | str]) -> str:
    """Name a changeset by its subjects, or by its cause: the same ones have the same name."""
    joined = "\n".join(sorted(map(str, names)))
    return hashlib.sha256(joined.encode()).hexdigest()[:10]


def forecast(writes: int, budget: int, window: float) -> Forecast:
    """Return what `writes` changes cost at `budget` calls per `window` seconds: list calls, and one PATCH each."""
    calls = writes + -(-writes // IDS_A_CALL)
    return Forecast(calls, max(0.0, (calls - budget) / budget * window))


def counts(differences: Iterable[Difference]) -> Mapping[ChangeKind, int]:
    """Count changes by kind."""
    return Counter(difference.change.kind for difference in differences)


def as_rows(differences: Sequence[Difference]) -> list[tuple[str, str, str, str, str]]:
    """Return a table's cells: subject, change, before, after, why."""
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
    """Return one object a change."""
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
    """Return a table for a pull request or a chat."""
    lines = ["| subject | change | before | after | why |", "|---|---|---|---|---|"]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in as_rows(differences)]
    return "\n".join(lines)


def describe(values: Mapping[str, object]) -> str:
    """Put owned keys on one line: `plan=pro courseSlugs=algebra,geometry`; a dash when there are none."""
    parts = (
        f"{name}={','.join(map(str, value)) if isinstance(value, list | tuple) else value}"
        for name, value in values.items()
    )
    return " ".join(parts) or "—"


def _documents(change: Change) -> str:
    return f" ({', '.join(change.sources[:3])}{', …' if len(change.sources) > 3 else ''})" if change.sources else ""  # noqa: PLR2004

"""Prints the changes of a reconcile as a table or as Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sync_worker.formatting import describe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sync_worker.domain.changeset import Difference
    from sync_worker.domain.entitlements import Change

HEADER = ("subject", "change", "before", "after", "why")
DOCUMENTS = 3
"""Documents named for a change; a cohort may give hundreds."""


def as_rows(differences: Sequence[Difference]) -> list[tuple[str, str, str, str, str]]:
    """Return the cells of a table, under HEADER."""
    return [
        (
            str(d.change.subject),
            d.change.kind.value,
            describe(d.change.before),
            describe(d.change.after),
            f"{d.drift}{_taken_over(d.change)}{_documents(d.change)}",
        )
        for d in differences
    ]


def as_markdown(differences: Sequence[Difference]) -> str:
    """Return a Markdown table."""
    rows = [HEADER, ("---",) * len(HEADER), *as_rows(differences)]
    return "\n".join("| " + " | ".join(_markdown(cell) for cell in row) + " |" for row in rows)


def _markdown(cell: str) -> str:
    """Return a text that stays one cell."""
    return " ".join(cell.split()).replace("\\", "\\\\").replace("|", "\\|")


def as_json(difference: Difference) -> dict[str, object]:
    """Return one change as JSON."""
    change = difference.change
    return {
        "subject": str(change.subject),
        "change": change.kind.value,
        "before": dict(change.before),
        "after": dict(change.after),
        "documents": list(change.sources),
        "loses": bool(change.losses),
    }


def _taken_over(change: Change) -> str:
    return f", takes over {describe(change.taken_over)} of the app" if change.taken_over else ""


def _documents(change: Change) -> str:
    if not change.sources:
        return ""
    return f" ({', '.join(change.sources[:DOCUMENTS])}{', …' if len(change.sources) > DOCUMENTS else ''})"

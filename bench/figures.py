"""Figures: what was measured, what it should be, and what it cost; as a table, as Markdown and as JSON."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from sync_worker.cli.tables import print_table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@dataclass(frozen=True)
class Figure:
    """One measured value. `goal` is what it should reach: at most, or at least when `more_is_better`.

    `naive` is the same for the handler of the guides, in the same run. The cost is of the worker's processes: calls to
    Clerk and Sanity, CPU seconds and peak MB; None where it was not measured.
    """

    name: str
    value: float
    unit: str
    goal: float | None = None
    more_is_better: bool = False
    naive: float | None = None
    calls: int | None = None
    cpu: float | None = None
    peak_mb: float | None = None

    @property
    def reached(self) -> bool:
        """Whether it is as good as it should be."""
        if self.goal is None:
            return True
        return self.value >= self.goal if self.more_is_better else self.value <= self.goal

    @property
    def ratio(self) -> float | None:
        """How many times better than the goal; below 1 it is missed. None without a goal, or where nothing was used."""
        if self.goal is None:
            return None
        better, worse = (self.value, self.goal) if self.more_is_better else (self.goal, self.value)
        return better / worse if worse else None


def median(runs: Sequence[Sequence[Figure]]) -> list[Figure]:
    """Return for each figure of several runs the run in the middle, with its cost."""
    return [sorted(same, key=lambda f: f.value)[(len(same) - 1) // 2] for same in zip(*runs, strict=True)]


def show(figures: Sequence[Figure]) -> None:
    """Print a table."""
    print_table(HEADINGS, [_cells(figure) for figure in figures], empty="nothing was measured")


def write(figures: Sequence[Figure], path: Path) -> None:
    """Write JSON, with whether each goal was reached."""
    reported = [{**asdict(f), "reached": f.reached, "ratio": f.ratio} for f in figures]
    path.write_text(json.dumps(reported, indent=1) + "\n")


def markdown(figures: Sequence[Figure]) -> str:
    """Return a table for the documentation."""
    rows = ["| " + " | ".join(HEADINGS) + " |", "|" + "---|" * len(HEADINGS)]
    return "\n".join(rows + ["| " + " | ".join(_cells(figure)) + " |" for figure in figures])


HEADINGS = ("figure", "measured", "goal", "ratio", "naive", "calls", "CPU s", "peak MB")


def _cells(figure: Figure) -> list[str]:
    goal = "" if figure.goal is None else f"{'≥' if figure.more_is_better else '≤'} {_number(figure.goal)}"
    ratio = "" if figure.ratio is None else f"{figure.ratio:.1f}{'' if figure.reached else ' missed'}"
    return [
        figure.name,
        f"{_number(figure.value)} {figure.unit}".rstrip(),
        goal,
        ratio,
        *(_number(value) for value in (figure.naive, figure.calls, figure.cpu, figure.peak_mb)),
    ]


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.2g}" if value < 10 else f"{value:.1f}"


def percentile(values: Sequence[float], percent: int) -> float:
    """Return a percentile of at least two values."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]

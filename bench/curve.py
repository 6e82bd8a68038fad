"""How cost grows with the population: a picture (SVG) and its figures (JSON).

The picture has both axes in powers of ten, so that a straight line of slope one is linear growth.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

WIDTH, HEIGHT, MARGIN, LABEL = 640, 400, 56, 14
LINES = (
    ("the guides' handler: seconds", "#9ca3af", "far", "naive"),
    ("seconds", "#2563eb", "far", "seconds"),
    ("seconds, 1 % drift, near", "#dc2626", "drift", "seconds"),
    ("CPU seconds", "#d97706", "far", "cpu"),
    ("the limit: seconds", "#111827", "far", "least"),
    ("Clerk calls", "#16a34a", "far", "clerk_calls"),
    ("peak MB", "#9333ea", "far", "peak_mb"),
)
"""Name, colour, and the figures of which reconcile a line shows: `near` and `drift` are of the sandbox."""
Point = dict[str, dict[str, float]]


def draw(points: Mapping[int, Point], picture: Path, figures: Path) -> None:
    """Write both files."""
    picture.parent.mkdir(exist_ok=True)
    reported = [{"users": users, **point} for users, point in points.items()]
    figures.write_text(json.dumps(reported, indent=1) + "\n")
    picture.write_text(svg(points))


def svg(points: Mapping[int, Point]) -> str:
    """Return the picture."""
    users = list(points)
    lines = [
        [(n, max(0.1, point[which][value])) for n, point in points.items() if which in point]
        for _, _, which, value in LINES
    ]
    values = [[value for _, value in line] for line in lines]
    x = _scale(min(users), max(users), MARGIN, WIDTH - 150)
    y = _scale(0.1, 10 ** math.ceil(math.log10(max(map(max, values)))), HEIGHT - MARGIN, MARGIN / 2)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        *_grid(users, x, y, 10 ** math.ceil(math.log10(max(map(max, values))))),
    ]
    for (_, colour, *_), line in zip(LINES, lines, strict=True):
        spots = [(x(n), y(value)) for n, value in line]
        path = " ".join(f"{left:.1f},{top:.1f}" for left, top in spots)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{left:.1f}" cy="{top:.1f}" r="3" fill="{colour}"/>' for left, top in spots]
    parts += _labels(x(max(users)), [y(line[-1]) for line in values])
    parts.append(f'<text x="{WIDTH / 2 - 60}" y="{HEIGHT - 12}">users</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _labels(right: float, tops: Sequence[float]) -> list[str]:
    """Write each line's name at its end, from the top down, without one on the other."""
    labels, lowest = [], 0.0
    for top, (label, colour, *_) in sorted(zip(tops, LINES, strict=True), key=lambda pair: pair[0]):
        lowest = max(top + 4, lowest + LABEL)
        labels.append(f'<text x="{right + 8:.1f}" y="{lowest:.1f}" fill="{colour}">{label}</text>')
    return labels


def _grid(users: Sequence[int], x: Callable[[float], float], y: Callable[[float], float], top: float) -> list[str]:
    lines = []
    power = 0.1
    while power <= top:
        lines.append(f'<line x1="{MARGIN}" x2="{WIDTH - 150}" y1="{y(power):.1f}" y2="{y(power):.1f}" stroke="#ddd"/>')
        lines.append(f'<text x="{MARGIN - 8}" y="{y(power) + 4:.1f}" text-anchor="end">{power:g}</text>')
        power *= 10
    bottom = HEIGHT - MARGIN + 18
    return lines + [f'<text x="{x(n):.1f}" y="{bottom}" text-anchor="middle">{n:,}</text>' for n in users]


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """Return the position of a value on an axis in powers of ten."""
    span = math.log10(high) - math.log10(low)
    return lambda value: start + (math.log10(value) - math.log10(low)) / span * (end - start)

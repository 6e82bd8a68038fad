"""How cost grows with the population: a picture (SVG) and its figures (JSON).

The picture has both axes in powers of ten, so that a straight line of slope one is linear growth.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

WIDTH, HEIGHT, MARGIN, LABEL = 640, 400, 56, 14
LINES = (
    ("seconds, no drift", "#2563eb", lambda quiet, _: quiet["seconds"]),
    ("seconds, 1 % drift", "#dc2626", lambda _, drift: drift["seconds"]),
    ("CPU seconds, no drift", "#d97706", lambda quiet, _: quiet["cpu"]),
    ("Clerk calls, no drift", "#16a34a", lambda quiet, _: quiet["clerk_calls"]),
    ("peak MB, no drift", "#9333ea", lambda quiet, _: quiet["peak_mb"]),
)
Point = tuple[int, dict[str, float], dict[str, float]]


def draw(points: Sequence[Point], picture: Path, figures: Path) -> None:
    """Write both files."""
    picture.parent.mkdir(exist_ok=True)
    told = [{"users": users, "no drift": quiet, "1 % drift": drift} for users, quiet, drift in points]
    figures.write_text(json.dumps(told, indent=1) + "\n")
    picture.write_text(svg(points))


def svg(points: Sequence[Point]) -> str:
    """Return the picture."""
    users = [point[0] for point in points]
    values = [[max(0.1, float(value(quiet, drift))) for _, quiet, drift in points] for _, _, value in LINES]
    x = _scale(min(users), max(users), MARGIN, WIDTH - 150)
    y = _scale(0.1, 10 ** math.ceil(math.log10(max(map(max, values)))), HEIGHT - MARGIN, MARGIN / 2)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        *_grid(users, x, y, 10 ** math.ceil(math.log10(max(map(max, values))))),
    ]
    for (_, colour, _), line in zip(LINES, values, strict=True):
        spots = [(x(n), y(value)) for n, value in zip(users, line, strict=True)]
        path = " ".join(f"{left:.1f},{top:.1f}" for left, top in spots)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{left:.1f}" cy="{top:.1f}" r="3" fill="{colour}"/>' for left, top in spots]
    parts += _labels(x(max(users)), [y(line[-1]) for line in values])
    parts.append(f'<text x="{WIDTH / 2 - 60}" y="{HEIGHT - 12}">users</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _labels(right: float, tops: Sequence[float]) -> list[str]:
    """Write each line's name at its end, from the top down, without one on the other."""
    labels, lowest = [], 0.0
    for top, (label, colour, _) in sorted(zip(tops, LINES, strict=True), key=lambda pair: pair[0]):
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

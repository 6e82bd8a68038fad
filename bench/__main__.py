"""`python -m bench [PART…]`: measure on the sandbox, print a table, write JSON.

Parts: speed, right, accept, publish, listen, bulk, reconciles, machines, outages, writes, people, small, curve. Without
a part it is all but the curve. Each figure is the median of RUNS runs of its part. Nothing is asserted here; calls and
writes, which are exact, are counted by the tests.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from bench import (
    accept,
    bulk,
    curve,
    listen,
    machines,
    outages,
    people,
    publish,
    reconciles,
    right,
    small,
    speed,
    writes,
)
from bench.figures import Figure, markdown, median, show, write

PARTS = {
    "speed": speed.measure,
    "right": right.measure,
    "accept": accept.measure,
    "publish": publish.measure,
    "listen": listen.measure,
    "bulk": bulk.measure,
    "reconciles": reconciles.measure,
    "machines": machines.measure,
    "outages": outages.measure,
    "writes": writes.measure,
    "people": people.measure,
    "small": small.measure,
}
RUNS = {
    "speed": 3,
    "right": 1,
    "accept": 3,
    "publish": 3,
    "listen": 3,
    "bulk": 1,
    "reconciles": 1,
    "machines": 1,
    "outages": 1,
    "writes": 3,
    "people": 1,
    "small": 1,
}


async def measured(names: list[str], runs: int | None) -> list[Figure]:
    """Return the figures of these parts, one after the other."""
    figures: list[Figure] = []
    for name in names:
        some = [await PARTS[name]() for _ in range(runs or RUNS[name])]
        figures += median(some)
        show(median(some))
    return figures


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, "curve", []], help="what to measure")
    parser.add_argument("--runs", type=int, help="runs of each part; the median counts")
    parser.add_argument("--json", type=Path, default=Path("bench.json"), help="where to write the figures")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown at the end")
    chosen = parser.parse_args()
    if "curve" in chosen.parts:
        curve.draw(asyncio.run(reconciles.curve()), Path("docs/growth.svg"), Path("docs/growth.json"))
    parts = [name for name in chosen.parts if name in PARTS] if chosen.parts else [*PARTS]
    if parts:
        figures = asyncio.run(measured(parts, chosen.runs))
        write(figures, chosen.json)
        if chosen.markdown:
            print(markdown(figures))


if __name__ == "__main__":
    main()

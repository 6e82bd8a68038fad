"""The one renderer of all commands: an aligned table where it fits, else one record after the other.

An id is never broken in two. What is piped to another program has one line for each row.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from sync_worker.cli.output import echo
from sync_worker.formatting import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.text import Text

WIDE = 120
"""Columns from which on a table may wrap its cells at spaces; below, a table that does not fit becomes records."""
PIPED = 10_000
"""The width of what is not a terminal."""
GAP = 2
STYLES = {
    **dict.fromkeys(("synced", "grant", "granted", "applied", "ok"), "green"),
    **dict.fromkeys(("held", "late", "pending", "waiting", "retrying", "incomplete", "unknown"), "yellow"),
    **dict.fromkeys(("failed", "refused", "revoke", "abandoned"), "red"),
}
"""Colours of states and changes. NO_COLOR turns them off."""
STYLED = {"state", "change", "result", "status"}


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
    """Print rows for people, or the sentence `empty` when there are none.

    A cell may be a rich Text with its own style. A column without any content is left out.
    """
    from rich.console import Console

    cells = [[_cell(heading, cell) for heading, cell in zip(headings, row, strict=True)] for row in rows]
    if not cells:
        echo(empty)
        return
    kept = [n for n in range(len(headings)) if any(row[n].plain for row in cells)]
    names, cells = [headings[n] for n in kept], [[row[n] for n in kept] for row in cells]
    width = shutil.get_terminal_size((PIPED, 24)).columns
    console = Console(width=width)
    widths = _widths(names, cells, width)
    for line in _records(names, cells, width) if widths is None else _aligned(names, cells, widths):
        console.print(line, soft_wrap=True)


def _cell(heading: str, cell: object) -> Text:
    from rich.text import Text

    if isinstance(cell, Text):
        return cell
    text = "" if cell is None else printable(str(cell))
    return Text(text, STYLES.get(text, "") if heading in STYLED else "")


def _widths(headings: Sequence[str], rows: Sequence[Sequence[Text]], width: int) -> list[int] | None:
    """Return the width of each column, or None where the table would have to break a word or be squeezed."""
    from rich.cells import cell_len

    columns = [[heading, *(row[n].plain for row in rows)] for n, heading in enumerate(headings)]
    natural = [max(cell_len(line) for cell in column for line in cell.split("\n")) for column in columns]
    available = width - GAP * (len(columns) - 1)
    if sum(natural) <= available:
        return natural
    widths = [max(cell_len(word) for cell in column for word in cell.split() or [""]) for column in columns]
    spare = available - sum(widths)
    if width < WIDE or spare < 0:
        return None
    for n in sorted(range(len(columns)), key=lambda n: natural[n] - widths[n]):  # what needs least gets it first
        more = min(spare, natural[n] - widths[n])
        widths[n], spare = widths[n] + more, spare - more
    return widths


def _aligned(headings: Sequence[str], rows: Sequence[Sequence[Text]], widths: Sequence[int]) -> Iterable[Text]:
    from rich.text import Text

    for row in [[Text(heading, "bold") for heading in headings], *rows]:
        wrapped = [_wrapped(cell, width) for cell, width in zip(row, widths, strict=True)]
        for number in range(max(map(len, wrapped))):
            line = Text()
            for lines, width in zip(wrapped, widths, strict=True):
                part = lines[number].copy() if number < len(lines) else Text()
                part.pad_right(width - part.cell_len + GAP)
                line.append_text(part)
            line.rstrip()
            yield line


def _records(headings: Sequence[str], rows: Sequence[Sequence[Text]], width: int) -> Iterable[Text]:
    """Yield each row as a paragraph: its first cell, then what there is under each other heading."""
    from rich.text import Text

    margin = max(map(len, headings[1:]), default=0) + 4
    for row in rows:
        yield Text.assemble((row[0].plain, "bold"))
        for heading, cell in zip(headings[1:], row[1:], strict=True):
            if not cell.plain:
                continue
            for number, line in enumerate(_wrapped(cell, max(width - margin, 1))):
                yield Text.assemble((f"  {'' if number else heading:<{margin - 2}}", "dim"), line)
        yield Text()


def _wrapped(cell: Text, width: int) -> list[Text]:
    """Return the lines of a cell, wrapped at spaces; a longer word stays whole."""
    from textwrap import TextWrapper

    from rich.text import Text

    if max(map(len, cell.plain.split("\n"))) <= width:
        return [*cell.split("\n", allow_blank=True)]
    wrapper = TextWrapper(width, break_long_words=False, break_on_hyphens=False)
    lines = [line for part in cell.plain.split("\n") for line in wrapper.wrap(part) or [""]]
    return [Text(line, cell.style) for line in lines]

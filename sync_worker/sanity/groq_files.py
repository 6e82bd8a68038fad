"""The text of the GROQ files: where each part of a query is, which types it names, and which filters scan."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sync_worker.errors import GroqInvalid

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHANGED, FILTER = "changed", "webhook_filter"
_INCLUDE = re.compile(r"^[ \t]*// include ([\w.-]+\.groq)[ \t]*$")
_COMMENT = re.compile(r"^[ \t]*//")
_TYPES = re.compile(r"\b_type\s*(?:==\s*(\"[^\"]*\"|'[^']*')|in\s*\[([^\]]*)\])")
_TEXT = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'")
_CALL = re.compile(r"(?<![\w:])((?:\w+::)?\w+)\s*\(")
_OPEN, _CLOSE = "([{", ")]}"
INDEXED = frozenset({"defined", "references", "path", "now"})
"""The functions in a filter that Sanity's index serves, or that compute over no attribute."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a query, and the file it is in."""

    text: str
    file: str
    number: int

    @property
    def place(self) -> str:
        """The file and the line, for people."""
        return f"{self.file}, line {self.number}"


def lines_of(folder: Path, name: str, inside: tuple[str, ...] = ()) -> tuple[Line, ...]:
    """Return the lines of a file and of those that it includes, without comments. `inside` are those that include it.

    Raises GroqInvalid that names a file that cannot be read.
    """
    if name in inside:
        raise GroqInvalid(f"{folder / name} includes itself")
    try:
        raw = (folder / name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise GroqInvalid(f"{folder / name} cannot be read: {reason}") from None
    return tuple(_lines(folder, name, raw, inside))


def _lines(folder: Path, name: str, raw: str, inside: tuple[str, ...]) -> Iterator[Line]:
    for number, text in enumerate(raw.splitlines(keepends=True), 1):
        if found := _INCLUDE.match(text.rstrip("\r\n")):
            yield from lines_of(folder, found[1], (*inside, name))
        elif not _COMMENT.match(text):
            yield Line(text if text.endswith("\n") else f"{text}\n", name, number)


def load_query(folder: Path, name: str) -> str:
    """Return the query of a file with all that it includes. Raises GroqInvalid."""
    return "".join(line.text for line in lines_of(folder, name)).strip()


def place_of(folder: Path, name: str, position: int) -> str:
    """Return the file and the line of the character at `position` of a query."""
    lines = lines_of(folder, name)
    text = "".join(line.text for line in lines)
    position += len(text) - len(text.lstrip())
    end = 0
    for line in lines:
        end += len(line.text)
        if position < end:
            return line.place
    return lines[-1].place if lines else name


def place_of_field(folder: Path, name: str, field: str) -> str:
    """Return where a query defines a field; the first line of the file if it does not."""
    defines = re.compile(rf'^\s*(?:"{re.escape(field)}"\s*:|{re.escape(field)}\s*(?:,|$))')
    return next((line.place for line in lines_of(folder, name) if defines.match(line.text)), f"{name}, line 1")


def types_in(query: str) -> dict[str, int]:
    """Return the types that a query compares `_type` with, each with its first position."""
    found: dict[str, int] = {}
    for match in _TYPES.finditer(query):
        for one in _TEXT.finditer(match[0]):
            found.setdefault(one[0][1:-1], match.start() + one.start())
    return found


def types_of(folder: Path, name: str) -> dict[str, str]:
    """Return the types that the query of a file compares `_type` with, each with its first place."""
    return {kind: place_of(folder, name, at) for kind, at in types_in(load_query(folder, name)).items()}


def unseen_types(folder: Path, names: tuple[str, ...]) -> Iterator[str]:
    """Yield a sentence for each type in a query whose changes another query does not report."""
    reporting = {name: types_of(folder, f"{name}.groq") for name in (CHANGED, FILTER)}
    reported: set[str] = set()
    for name in names:
        for kind, place in types_of(folder, f"{name}.groq").items():
            missing = [f"{other}.groq" for other, types in reporting.items() if types and kind not in types]
            if missing and kind not in reported:
                reported.add(kind)
                yield f'{place}: "{kind}" is not among the types of {" and ".join(missing)}, so changes are missed'


def scanning(folder: Path, name: str) -> Iterator[str]:
    """Yield a sentence for each filter of a query that reads every document: it computes over an attribute."""
    text = load_query(folder, name)
    for start, condition in _filters(text):
        blank = _TEXT.sub(lambda match: '"' + " " * (len(match[0]) - 2) + '"', condition)
        calls = [(one.start(), f"{one[1]}()") for one in _CALL.finditer(blank) if one[1] not in INDEXED]
        follows = [(at, "->") for at in [blank.find("->")] if at >= 0]
        for at, what in sorted(calls + follows)[:1]:
            yield f"{place_of(folder, name, start + at)}: {what} in a filter reads all documents for each webhook"


def _filters(text: str) -> Iterator[tuple[int, str]]:
    """Yield the condition of each filter over all documents, without the filters inside it, and where it starts."""
    for match in re.finditer(r"\*\s*\[", text):
        end = _end(text, match.end())
        condition = text[match.end() : end]
        for inner in reversed(list(re.finditer(r"\*\s*\[", condition))):
            stop = _end(condition, inner.end())
            condition = condition[: inner.end()] + " " * (stop - inner.end()) + condition[stop:]
        yield match.end(), condition


def _end(text: str, start: int) -> int:
    """Return where the bracket that was opened before `start` closes."""
    depth, at = 1, start
    while at < len(text):
        if quoted := _TEXT.match(text, at):
            at = quoted.end()
            continue
        depth += (text[at] in _OPEN) - (text[at] in _CLOSE)
        if depth == 0:
            return at
        at += 1
    return len(text)

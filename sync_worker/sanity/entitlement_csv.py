"""Turns a CSV file of people and their access into entitlement documents, for `sanity dataset import`.

A line becomes a document only if the worker would accept it: each is validated as a published row is. The documents
have the fields of the package's content model.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from sync_worker.domain.entitlements import Entitlement, Refusal
from sync_worker.domain.merge import merge
from sync_worker.errors import quoted
from sync_worker.formatting import parse_time
from sync_worker.sanity.rows import SubjectFields, read_row

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from sync_worker.domain.entitlements import Field
    from sync_worker.sanity.catalogue import Catalogue

T = TypeVar("T")

SUBJECT_COLUMNS = tuple(SubjectFields.model_fields)
GIVING_COLUMNS = ("plan", "role", "courses")
TIME_COLUMNS = ("startsAt", "endsAt")
COLUMNS = (*SUBJECT_COLUMNS, *GIVING_COLUMNS, *TIME_COLUMNS)
DELIMITERS = ",;\t"
"""What spreadsheets write between cells, depending on the language of the system."""


@dataclass(frozen=True, slots=True)
class LineError:
    """A line, the column in it and what is wrong."""

    line: int
    column: str
    reason: str

    def __str__(self) -> str:
        where = f"line {self.line}, {self.column}" if self.column else f"line {self.line}"
        return f"{where}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the file: its number, and its cells that are not empty, by column."""

    number: int
    cells: Mapping[str, str]

    @property
    def courses(self) -> tuple[str, ...]:
        """The slugs of the courses, sorted."""
        return tuple(sorted({slug.strip() for slug in self.cells.get("courses", "").split(";")} - {""}))


@dataclass(slots=True)
class Conversion:
    """The documents by id, the entitlements that they are, the errors, and how many lines repeat an earlier one."""

    documents: dict[str, dict[str, Any]] = field(default_factory=dict)
    entitlements: list[Entitlement] = field(default_factory=list)
    errors: list[LineError] = field(default_factory=list)
    repeated: int = 0


def read_lines(text: str, renamed: Mapping[str, str]) -> tuple[list[Line], list[LineError]]:
    """Return the lines of a CSV file with a header, and what is wrong with its form.

    `renamed` maps headers to columns, or to "" for a header to ignore. Commas, semicolons and tabs are recognized.
    """
    first = text.lstrip().splitlines()[0] if text.strip() else ""
    delimiter = max(DELIMITERS, key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    lines: list[Line] = []
    errors: list[LineError] = []
    columns: list[str] = []
    while True:
        number = reader.line_num + 1
        try:
            cells = [cell.strip() for cell in next(reader)]
        except StopIteration:
            break
        except csv.Error as error:
            return [], [LineError(number, "", f"is not valid CSV: {error}")]
        if not any(cells):
            continue
        if not columns:
            columns = [_column(header, renamed) for header in cells]
            errors = list(_header_errors(cells, columns, renamed, number))
            if errors:
                return [], errors
        elif len(cells) != len(columns):
            errors.append(LineError(number, "", f"has {len(cells)} cells, but the header has {len(columns)}"))
        else:
            lines.append(Line(number, {name: cell for name, cell in zip(columns, cells, strict=True) if name and cell}))
    if not lines and not errors:
        errors.append(LineError(1, "", "the file has no lines below a header"))
    return lines, errors


def convert(lines: Iterable[Line], catalogue: Catalogue, fields: Sequence[Field], now: datetime) -> Conversion:
    """Convert lines into documents. Errors come in the order of the lines, one per line."""
    conversion = Conversion()
    for line in lines:
        try:
            document, row = _document(line, catalogue)
        except _InvalidCellError as error:
            conversion.errors.append(LineError(line.number, error.column, error.reason))
            continue
        _, read = read_row(row, fields)
        refused = read if isinstance(read, Refusal) else next(iter(merge([read], fields, now).refusals), None)
        if refused is not None:
            column = "courses" if refused.field == "courseSlugs" else refused.field
            conversion.errors.append(LineError(line.number, column, refused.reason))
        elif document["_id"] in conversion.documents:
            conversion.repeated += 1
        elif isinstance(read, Entitlement):
            conversion.documents[document["_id"]] = document
            conversion.entitlements.append(read)
    return conversion


class _InvalidCellError(ValueError):
    def __init__(self, column: str, reason: str) -> None:
        super().__init__(column, reason)
        self.column, self.reason = column, reason


def _column(header: str, renamed: Mapping[str, str]) -> str:
    """Return the column that a header stands for; the header itself if it is unknown."""
    known = {name.lower(): name for name in COLUMNS}
    given = {name.lower(): column for name, column in renamed.items()}.get(header.lower(), header)
    return known.get(given.lower(), given)


def _header_errors(
    headers: Sequence[str], columns: Sequence[str], renamed: Mapping[str, str], number: int
) -> Iterable[LineError]:
    for index, (header, column) in enumerate(zip(headers, columns, strict=True)):
        if column and column not in COLUMNS:
            yield LineError(
                number,
                header,
                f'is not one of {", ".join(COLUMNS)}; map it with --columns "{header}=plan", for example, '
                f'or ignore it with --columns "{header}="',
            )
        elif column and column in columns[:index]:
            yield LineError(number, header, f"another header stands for {column} too; ignore one with --columns")
    present = {header.lower() for header in headers}
    for header in renamed:
        if header.lower() not in present:
            yield LineError(number, header, "there is no such header, but --columns names it")
    if not set(SUBJECT_COLUMNS) & set(columns):
        yield LineError(number, "", f"no column names a subject; one of {', '.join(SUBJECT_COLUMNS)} is needed")


def _document(line: Line, catalogue: Catalogue) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the document of a line, and the row that the projection will return for it."""
    for column, cell in line.cells.items():
        if not cell.isprintable():
            raise _InvalidCellError(column, "contains an invisible character; type the text again")
    if not set(GIVING_COLUMNS) & line.cells.keys():
        raise _InvalidCellError("plan", f"is empty; fill in one of {', '.join(GIVING_COLUMNS)}")
    named = {name: line.cells[name] for name in SUBJECT_COLUMNS if name in line.cells}
    if "userEmail" in named:
        named["userEmail"] = _lowercased(named["userEmail"])
    given = {name: line.cells[name] for name in ("plan", "role") if name in line.cells}
    window = _window(line)
    content = {**named, **given, **window, "courses": line.courses}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    identity = {"_id": f"import-{digest[:24]}", "_type": "entitlement"}
    document: dict[str, Any] = {**identity, **named, **given, **window}
    plan = _only("plan", given.get("plan", ""), catalogue.plans)
    if plan is not None:
        document["plan"] = {"_type": "reference", "_ref": plan.id}
    if line.courses:
        document["courses"] = [_course(slug, catalogue) for slug in line.courses]
    row = {**identity, **named, **given, **window, "courseSlugs": [*line.courses, *(plan.courses if plan else ())]}
    return document, row


def _lowercased(address: str) -> str:
    """Lowercase A to Z only, as in subjects: a letter that merely looks like another is another."""
    return "".join(letter.lower() if letter.isascii() else letter for letter in address)


def _course(slug: str, catalogue: Catalogue) -> dict[str, str]:
    id_ = _only("courses", slug, catalogue.courses)
    if id_ is None:
        raise _InvalidCellError("courses", f"no published course has the slug {quoted(slug)}")
    return {"_type": "reference", "_ref": id_, "_key": id_}


def _only(column: str, slug: str, found: Mapping[str, Sequence[T]]) -> T | None:
    documents = found.get(slug, ())
    if len(documents) > 1:
        raise _InvalidCellError(column, f"{len(documents)} documents have the slug {quoted(slug)}; change all but one")
    return documents[0] if documents else None


def _window(line: Line) -> dict[str, str]:
    times: dict[str, datetime] = {}
    for name in TIME_COLUMNS:
        if name in line.cells:
            try:
                times[name] = parse_time(line.cells[name])
            except ValueError as error:
                raise _InvalidCellError(name, str(error)) from None
    if len(times) == len(TIME_COLUMNS) and times["endsAt"] <= times["startsAt"]:
        raise _InvalidCellError("endsAt", "is not after startsAt")
    return {name: moment.isoformat().replace("+00:00", "Z") for name, moment in times.items()}

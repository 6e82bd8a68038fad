"""Checks the shape of the rows that the projection returns: the names of all fields, and their types.

A misspelt name is valid GROQ, but removes every plan or end date. A problem in every row is therefore reported as
a problem of the projection, before anything is written. A problem in single rows is refused by `rows`.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from sync_worker.domain.entitlements import UNRESOLVED_FIELD, Entitlement, MergeRule, Refusal
from sync_worker.domain.merge import disallowed_values
from sync_worker.domain.text import escaped
from sync_worker.errors import GroqInvalid, quoted
from sync_worker.sanity.rows import Row, SubjectFields, json_type, read_row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from sync_worker.domain.entitlements import Field

SUBJECT_FIELDS = tuple(SubjectFields.model_fields)
MIN_ROWS = 2
"""How many rows must have a problem before it counts as a problem of the projection."""
SHOWN = 3
"""How many values a warning shows."""
REQUIRED = ("_id", "_rev", "_updatedAt")
STRING_FIELDS = tuple(field.alias or name for name, field in Row.model_fields.items())


def shape_problems(rows: Sequence[Mapping[str, Any]], fields: Sequence[Field]) -> tuple[str, ...]:
    """Return one sentence for each problem that all `rows` share; none without rows.

    A field that the content model does not have must be returned as null, to tell it from a misspelt one. One document
    among others proves nothing, or a single editor could block everybody.
    """
    if not rows:
        return ()
    return (*missing_fields(rows, fields), *_without_subject(rows), *_mistyped(rows, fields))


def field_names(fields: Sequence[Field]) -> tuple[str, ...]:
    """Return the names of the fields that say what a row gives, and when."""
    named = (*REQUIRED, *SUBJECT_FIELDS)
    return (*(field.name for field in fields), *(name for name in STRING_FIELDS if name not in named))


def empty_fields(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> tuple[str, ...]:
    """Return those of `names` that no row sets."""
    return tuple(name for name in names if all(_is_empty(row.get(name)) for row in rows))


def _is_empty(value: object) -> bool:
    """Return whether a value gives nothing. A list of nulls is what a query makes of references without a slug."""
    return all(map(_is_empty, value)) if isinstance(value, list) else value is None or value == ""


def empty_warning(empty: Iterable[str], rows: int, query: str) -> str:
    """Return a warning about fields that none of so many rows sets, unless `query` returns them as a literal null.

    A field that has another name in the content model looks like this: the query is valid and grants nothing.
    """
    if rows < MIN_ROWS:
        return ""
    names = [name for name in empty if not re.search(rf'"{name}"\s*:\s*null\b', query)]
    if not names:
        return ""
    quoted_names = ", ".join(f'"{name}"' for name in names)
    verb = "is" if len(names) == 1 else "are"
    return f'{quoted_names} {verb} empty in all {rows} rows; write "{names[0]}": null if your model has no such field'


def refused_warnings(
    rows: Iterable[Mapping[str, Any]], fields: Sequence[Field], folder: object = "GROQ_DIR"
) -> tuple[tuple[str, str], ...]:
    """Return what is refused in single rows, each with what to do: wrong rows, and values that are on no list."""
    refused: list[Refusal] = []
    disallowed: Counter[tuple[str, str]] = Counter()
    number = 0
    for raw in rows:
        number += 1
        _, row = read_row(raw, fields)
        if isinstance(row, Entitlement):
            disallowed.update((one.field, quoted(row.values[one.field])) for one in disallowed_values(row, fields))
        else:
            refused.append(row)
    warnings = []
    if refused:
        text = f"{len(refused)} of {number} rows are refused; the first is {refused[0]}"
        documents = "Correct these documents and publish them. Until then they grant nothing."
        warnings.append((text, f"{documents} If they are right, correct entitlement.groq in {folder}."))
    for field in fields:
        values = [(value, count) for (name, value), count in disallowed.most_common() if name == field.name]
        if values:
            shown = ", ".join(f"{value} ({count} of {number} rows)" for value, count in values[:SHOWN])
            variable = f"{field.name.upper()}_ORDER"
            text = f'"{field.name}" is {shown}, which is not one of {variable}={",".join(field.order)}'
            warnings.append((text, f"Add it to {variable} or correct the documents. Until then they grant nothing."))
    return tuple(warnings)


def inactive_warning(rows: Sequence[Mapping[str, Any]], fields: Sequence[Field]) -> str:
    """Return a warning if not one of `rows` has a status that counts: most likely, active has another name there."""
    status = Counter(
        read.status for _, read in (read_row(raw, fields) for raw in rows) if isinstance(read, Entitlement)
    )
    if len(rows) < MIN_ROWS or not status or status.keys() & {None, "active"}:
        return ""
    shown = ", ".join(f"{escaped(str(value))} ({count} rows)" for value, count in status.most_common(SHOWN))
    return f'"status" is {shown}, and not "active" in any row, so none grants anything'


def refuse_wrong_shape(rows: Sequence[Mapping[str, Any]], fields: Sequence[Field]) -> None:
    """Raise GroqInvalid when all `rows` share a problem: writing from them would remove access."""
    if problems := shape_problems(rows, fields):
        raise GroqInvalid(f"entitlement.groq does not return the expected rows: {'; '.join(problems)}")


def missing_fields(rows: Sequence[Mapping[str, Any]], fields: Sequence[Field]) -> tuple[str, ...]:
    """Return one sentence for each field that no row has, not even as null."""
    nullable = dict.fromkeys(name for name in (*STRING_FIELDS, *(one.name for one in fields)) if name not in REQUIRED)
    return (
        *(f'"{name}" is missing' for name in REQUIRED if not any(row.get(name) for row in rows)),
        *(
            f'"{name}" is missing; add "{name}": null if your model has no such field'
            for name in nullable
            if not any(name in row for row in rows)
        ),
    )


def _without_subject(rows: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    if len(rows) >= MIN_ROWS and not any(row.get(name) for row in rows for name in SUBJECT_FIELDS):
        yield f"no row names a subject: {', '.join(SUBJECT_FIELDS)} are all empty"


def _mistyped(rows: Sequence[Mapping[str, Any]], fields: Sequence[Field]) -> Iterable[str]:
    expected: dict[str, tuple[Callable[[object], bool], str]] = {
        **dict.fromkeys(STRING_FIELDS, (_is_string, "a string")),
        **{
            f.name: (_is_list_of_strings, "a list of strings")
            if f.rule is MergeRule.UNION
            else (_is_scalar, "a single value")
            for f in fields
        },
        UNRESOLVED_FIELD: (_is_whole_number, "a whole number"),
    }
    for name, (is_valid, required) in expected.items():
        values = [row[name] for row in rows if row.get(name) not in (None, [])]
        if len(values) >= min(MIN_ROWS, len(rows)) and not any(is_valid(value) for value in values):
            yield f'"{name}" is {_described(values[0])}, but must be {required}{_hint(values[0])}'


def _is_string(value: object) -> bool:
    return isinstance(value, str)


def _is_whole_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_scalar(value: object) -> bool:
    return isinstance(value, str | int | float | bool)


def _is_list_of_strings(value: object) -> bool:
    return isinstance(value, list) and all(item is None or isinstance(item, str) for item in value)


def _described(value: object) -> str:
    inside = next((item for item in value if item is not None), None) if isinstance(value, list) else None
    return json_type(value) if inside is None else f"{json_type(value)} with {json_type(inside)} in it"


def _hint(value: object) -> str:
    """Return the usual fix: to follow a reference, or to take the text of a slug."""
    first = next(iter(value), None) if isinstance(value, list) else value
    if isinstance(first, dict) and "_ref" in first:
        return "; follow the reference with ->"
    if isinstance(first, dict) and first.get("_type") == "slug":
        return "; append .current to the slug"
    return ""

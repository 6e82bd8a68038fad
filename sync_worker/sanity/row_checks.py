"""Checks the shape of the rows that the projection returns: the names of all fields, and their types.

A misspelt name is valid GROQ, but removes every plan or end date. A problem in every row is therefore reported as
a problem of the projection, before anything is written. A problem in single rows is refused by `rows`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sync_worker.domain.entitlements import UNRESOLVED_FIELD, MergeRule
from sync_worker.errors import ConfigurationError
from sync_worker.sanity.rows import Row, SubjectFields, json_type

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from sync_worker.domain.entitlements import Field

SUBJECT_FIELDS = tuple(SubjectFields.model_fields)
MIN_ROWS = 2
"""How many rows must have a problem before it counts as a problem of the projection."""
REQUIRED = ("_id", "_rev", "_updatedAt")
STRING_FIELDS = tuple(field.alias or name for name, field in Row.model_fields.items())


def shape_problems(rows: Sequence[Mapping[str, Any]], fields: Sequence[Field]) -> tuple[str, ...]:
    """Return one sentence for each problem that all `rows` share; none without rows.

    A field that the content model does not have must be returned as null, to tell it from a misspelt one. One document
    among others proves nothing, or a single editor could block everybody.
    """
    if not rows:
        return ()
    return (*_missing(rows, fields), *_without_subject(rows), *_mistyped(rows, fields))


def refuse_wrong_shape(rows: Sequence[Mapping[str, Any]], fields: Sequence[Field]) -> None:
    """Raise ConfigurationError when all `rows` share a problem: writing from them would remove access."""
    if problems := shape_problems(rows, fields):
        raise ConfigurationError(f"entitlement.groq does not return the expected rows: {'; '.join(problems)}")


def _missing(rows: Sequence[Mapping[str, Any]], fields: Sequence[Field]) -> Iterable[str]:
    for name in REQUIRED:
        if not any(row.get(name) for row in rows):
            yield f'"{name}" is missing'
    for name in dict.fromkeys((*STRING_FIELDS, *(field.name for field in fields))):
        if name not in REQUIRED and not any(name in row for row in rows):
            yield f'"{name}" is missing; add "{name}": null if your model has no such field'


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

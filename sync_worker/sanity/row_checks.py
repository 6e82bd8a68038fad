"""Whether a projection yields rows of our shape: every name, and of each the type.

Why it exists: the mapping is the customer's GROQ, where a misspelt name is no error, but a plan that nobody gets or an
end that never comes. What is wrong in every row is the projection's fault and is named here, before anybody's access
depends on it. What is wrong in one row is an editor's slip, and is refused by `rows`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sync_worker.domain.entitlements import MergeRule
from sync_worker.errors import ConfigurationError
from sync_worker.sanity.rows import Row, SubjectFields, json_type

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from sync_worker.domain.entitlements import Field

WHOM = tuple(SubjectFields.model_fields)
ENOUGH = 2
"""How many documents must agree that something is wrong with more than themselves."""
ALWAYS = ("_id", "_rev", "_updatedAt")
TEXTS = tuple(field.alias or name for name, field in Row.model_fields.items())


def shape_problems(rows: Sequence[Mapping[str, Any]], fields: Sequence[Field]) -> tuple[str, ...]:
    """Return a sentence for each thing that is wrong in all of `rows`; nothing when there are no rows to judge by.

    A name that the content model has no counterpart for must be there too, as null: only so is it no slip. One document
    among others proves nothing, or its editor could hold up everybody.
    """
    if not rows:
        return ()
    return (*_missing(rows, fields), *_nameless(rows), *_mistyped(rows, fields))


def refuse_wrong_shape(rows: Sequence[Mapping[str, Any]], fields: Sequence[Field]) -> None:
    """Raise ConfigurationError when something is wrong in all of `rows`: written from them, it would be taken away."""
    if wrong := shape_problems(rows, fields):
        raise ConfigurationError(f"entitlement.groq does not yield the row that is needed: {'; '.join(wrong)}")


def _missing(rows: Sequence[Mapping[str, Any]], fields: Sequence[Field]) -> Iterable[str]:
    for name in ALWAYS:
        if not any(row.get(name) for row in rows):
            yield f'"{name}" is missing'
    for name in dict.fromkeys((*TEXTS, *(field.name for field in fields))):
        if name not in ALWAYS and not any(name in row for row in rows):
            yield f'"{name}" is missing; write "{name}": null if your model has no such thing'


def _nameless(rows: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    if len(rows) >= ENOUGH and not any(row.get(name) for row in rows for name in WHOM):
        yield f"no row names anybody: {', '.join(WHOM)} are all empty"


def _mistyped(rows: Sequence[Mapping[str, Any]], fields: Sequence[Field]) -> Iterable[str]:
    expected: dict[str, tuple[Callable[[object], bool], str]] = {
        **dict.fromkeys(TEXTS, (_is_text, "a text")),
        **{
            f.name: (_are_texts, "a list of texts") if f.rule is MergeRule.UNION else (_is_scalar, "one value")
            for f in fields
        },
    }
    for name, (fits, wanted) in expected.items():
        values = [row[name] for row in rows if row.get(name) not in (None, [])]
        if len(values) >= min(ENOUGH, len(rows)) and not any(fits(value) for value in values):
            yield f'"{name}" is {_seen(values[0])}, but must be {wanted}{_hint(values[0])}'


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_scalar(value: object) -> bool:
    return isinstance(value, str | int | float | bool)


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(item is None or isinstance(item, str) for item in value)


def _seen(value: object) -> str:
    inside = next((item for item in value if item is not None), None) if isinstance(value, list) else None
    return json_type(value) if inside is None else f"{json_type(value)} with {json_type(inside)} in it"


def _hint(value: object) -> str:
    """Return what is usually forgotten: to follow a reference, or to take a slug's text."""
    first = next(iter(value), None) if isinstance(value, list) else value
    if isinstance(first, dict) and "_ref" in first:
        return "; follow the reference with ->"
    if isinstance(first, dict) and first.get("_type") == "slug":
        return "; take its .current"
    return ""

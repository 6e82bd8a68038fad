"""Checks all GROQ files against the dataset, for `release` and `doctor`: each runs, and returns what the worker needs.

The webhook's two files cannot run as they are, because only Sanity has both sides of an event. They are evaluated on a
published entitlement, as if it had just been updated without a change.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from sync_worker.domain.subjects import Kind
from sync_worker.domain.text import escaped
from sync_worker.errors import ConfigurationError, UnreadableAnswer
from sync_worker.sanity.row_checks import (
    SUBJECT_FIELDS,
    empty_fields,
    empty_warning,
    field_names,
    refuse_wrong_shape,
    refused_warnings,
    shape_problems,
)
from sync_worker.sanity.rows import read_row

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator, Mapping, Sequence
    from pathlib import Path

    from sync_worker.domain.entitlements import Field
    from sync_worker.domain.subjects import Subject
    from sync_worker.sanity.client import Queries, Sanity
    from sync_worker.sanity.source import Source

T = TypeVar("T")
_SIDE = re.compile(r"\b(?:before|after)\(\)")
_OPERATION = re.compile(r"\bdelta::operation\(\)")
LAST_MOMENT = "9999-12-31T23:59:59Z"
LOST_FIX = "Make the filters of both queries match the same documents."
PROJECTION, FILTER = "webhook_projection.groq", "webhook_filter.groq"


@dataclass(frozen=True, slots=True)
class GroqProblem:
    """What is wrong with a file, and what to do."""

    text: str
    fix: str


@dataclass(frozen=True, slots=True)
class GroqReport:
    """The problems of the queries and of the webhook's files, and how many entitlements are visible.

    `warnings` are about rows: what may be meant, or costs only those that have it.
    """

    queries: tuple[GroqProblem, ...]
    webhook: tuple[GroqProblem, ...]
    warnings: tuple[GroqProblem, ...]
    visible: int

    def problems_with(self, events: str) -> tuple[GroqProblem, ...]:
        """Return the problems that matter: the files of the webhook are not used when EVENTS is `listen`."""
        return self.queries if events == "listen" else (*self.queries, *self.webhook)


async def refuse_wrong_queries(source: Sanity | Source, fields: Sequence[Field]) -> None:
    """Read a page of entitlements and one of them by its subject. Raises ConfigurationError, and what the reads raise.

    Where by_subject.groq finds less than everything.groq, its subjects would lose their access.
    """
    page = await source.everything("")
    refuse_wrong_shape(page.rows, fields)
    lost = await _lost(source, page.rows, fields)
    # Between the two reads, an editor may have moved or deleted it.
    if lost is not None and lost in (await source.everything("")).rows:
        raise ConfigurationError(f"{_lost_text(lost)}. {LOST_FIX}")


async def _lost(source: Sanity | Source, rows: Sequence[Mapping[str, Any]], fields: Sequence[Field]) -> Any:
    """Return the first row that names its subject by id, if by_subject.groq does not find it by that."""
    if (named := _first_named(rows, fields)) is None:
        return None
    row, subject = named
    found = await source.by_subject([subject], ())
    return None if row["_id"] in {one["_id"] for one in found.rows} else row


def _lost_text(row: Mapping[str, Any]) -> str:
    return f"everything.groq returns {row['_id']}, but by_subject.groq does not find it by its subject"


async def check_groq_files(
    source: Sanity, queries: Queries, folder: Path, fields: Sequence[Field], now: str
) -> GroqReport:
    """Run every file once and return what is wrong. `now` is RFC 3339. Raises what Sanity's answers raise."""
    empty = await _named("by_subject.groq", source.by_subject((), ()))
    page = await _named("everything.groq", source.everything(""))
    await _named("by_address.groq", source.by_address(()))
    await _named("affected.groq", source.affected((), "", ()))
    await _named("changed.groq", source.changed(now, "", now))
    problems: list[GroqProblem] = []
    webhook: tuple[GroqProblem, ...] = ()
    if empty.rows:
        problems.append(
            GroqProblem("by_subject.groq returns rows for an empty list of subjects", "Correct its filter.")
        )
    elif wrong := shape_problems(page.rows, fields):
        problems.append(GroqProblem("; ".join(wrong), f"Correct entitlement.groq in {folder}."))
    elif named := _first_named(page.rows, fields):
        row, _ = named
        if (lost := await _lost(source, page.rows, fields)) is not None:
            problems.append(GroqProblem(_lost_text(lost), LOST_FIX))
        problems += [GroqProblem(text, f"Correct it in {folder}.") for text in await _differing(source, row)]
        webhook = tuple(
            GroqProblem(text, f"Correct it in {folder}, then run `sync-worker webhook install`.")
            for text in await _webhook_problems(source, queries, folder, row)
        )
    return GroqReport(tuple(problems), webhook, tuple(_warnings(page.rows, queries, folder, fields)), empty.visible)


def _warnings(
    rows: Sequence[Mapping[str, Any]], queries: Queries, folder: Path, fields: Sequence[Field]
) -> Iterator[GroqProblem]:
    if not rows:
        text = "the queries run, but no entitlement is visible"
        fix = "Publish one, or check SANITY_DATASET, the token's role and the type name in the GROQ files."
        yield GroqProblem(text, fix)
    for text, fix in refused_warnings(rows, fields):
        yield GroqProblem(text, fix)
    if text := empty_warning(empty_fields(rows, field_names(fields)), len(rows), queries.everything):
        yield GroqProblem(text, f"Check entitlement.groq in {folder}.")


async def _differing(source: Sanity, row: Mapping[str, Any]) -> list[str]:
    """Return what affected.groq and changed.groq say otherwise of a row: whom it is for, and that it entitles."""
    document = str(row["_id"])
    affected = (await source.affected({document}, "", ())).rows
    changed = await source.changed(str(row["_updatedAt"]), "", LAST_MOMENT)
    found = []
    for file, others, expected in (
        ("affected.groq", affected, {}),
        ("changed.groq", changed, {"_type": "entitlement"}),
    ):
        other = next((one for one in others if one["_id"] == document), None)
        if other is None:
            found += [f"{file} does not find {document}"] if file == "affected.groq" else []  # others may fill the page
            continue
        expected |= {name: row[name] for name in SUBJECT_FIELDS if row.get(name)}
        found += [
            f'{file}: "{name}" of {document} is {_shown(other.get(name))}, expected {_shown(value)}'
            for name, value in expected.items()
            if other.get(name) != value
        ]
    return found


def _first_named(
    rows: Sequence[Mapping[str, Any]], fields: Sequence[Field]
) -> tuple[Mapping[str, Any], Subject] | None:
    """Return the first row that names its subject by id, written as it is stored."""
    for raw in rows:
        subject, _ = read_row(raw, fields)
        as_pasted = any(str(raw.get(name) or "") != str(raw.get(name) or "").strip() for name in SUBJECT_FIELDS)
        if subject is not None and subject.kind in (Kind.USER, Kind.ORGANIZATION, Kind.MEMBERSHIP) and not as_pasted:
            return raw, subject
    return None


async def _webhook_problems(source: Sanity, queries: Queries, folder: Path, row: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with an event about a row; nothing if only Sanity can evaluate the files."""
    projection, condition = _dry(queries.webhook_projection), _dry(queries.webhook_filter)
    parameters = {"id": str(row["_id"])}
    problems = []
    if "delta::" not in condition:
        query = f'{{"present": count(*[_id == $id]), "matches": count(*[_id == $id && ({condition})])}}'
        counts = await _named(FILTER, source.lookup(query, parameters))
        if counts.get("matches") != counts.get("present"):
            problems.append(f"{FILTER}, line 1: it does not let {row['_id']} through")
    if "delta::" not in projection:
        query = f'{{"document": *[_id == $id][0]{{_id, _rev, _updatedAt, "body": {projection}}}}}'
        document = (await _named(PROJECTION, source.lookup(query, parameters))).get("document")
        if isinstance(document, dict):  # else it has just been deleted
            problems += _body_problems(document, folder, row)
    return problems


def _dry(text: str) -> str:
    return _OPERATION.sub('"update"', _SIDE.sub("@", text))


def _body_problems(document: Mapping[str, Any], folder: Path, row: Mapping[str, Any]) -> Iterator[str]:
    body = document["body"] if isinstance(document["body"], dict) else {}
    expected = {
        "id": document["_id"],
        "type": "entitlement",
        "rev": document["_rev"],
        "updatedAt": document["_updatedAt"],
    }
    for name, value in expected.items():
        if body.get(name) != value:
            yield f'{_place(folder, name)}: "{name}" of {row["_id"]} is {_shown(body.get(name))}, expected {value}'
    for side in ("before", "after"):
        given = body.get(side)
        for name in SUBJECT_FIELDS:
            if row.get(name) and not (isinstance(given, dict) and given.get(name)):
                yield f'{_place(folder, side)}: "{side}" lacks {name}, which {row["_id"]} has'


def _place(folder: Path, field: str) -> str:
    """Return the file and the line where a field is defined; the first line if it is missing."""
    lines = (folder / PROJECTION).read_text(encoding="utf-8").splitlines()
    number = next((n for n, line in enumerate(lines, 1) if line.lstrip().startswith(f'"{field}"')), 1)
    return f"{PROJECTION}, line {number}"


def _shown(value: object) -> str:
    return "missing" if value is None else escaped(str(value))


async def _named(file: str, answer: Awaitable[T]) -> T:
    """Name the file in an error that comes from its text."""
    try:
        return await answer
    except (ConfigurationError, UnreadableAnswer) as error:
        raise type(error)(f"{file}: {error.detail}") from None

"""Checks all GROQ files against the dataset, for `release` and `doctor`: each runs, and returns what the worker needs.

The webhook's two files cannot run as they are, because only Sanity has both sides of an event. They are evaluated on a
published entitlement, as if it had just been updated without a change.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from sync_worker.domain.entitlements import UNRESOLVED_FIELD
from sync_worker.domain.text import escaped
from sync_worker.errors import GroqInvalid, WrongResult
from sync_worker.sanity.client import NAMES
from sync_worker.sanity.groq_files import place_of, place_of_field, scanning, types_of, unseen_types
from sync_worker.sanity.row_checks import (
    SUBJECT_FIELDS,
    empty_fields,
    empty_warning,
    field_names,
    inactive_warning,
    missing_fields,
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
    from sync_worker.sanity.source import Snapshot, Source

T = TypeVar("T")
SCANS = "by_address"
"""The one query whose filter may scan: it runs after a sign-up or a change of an address alone."""
_SIDE = re.compile(r"\b(?:before|after)\(\)")
_OPERATION = re.compile(r"\bdelta::operation\(\)")
CHANGED_PAGE = 500
SHOWN = 10
SCAN_FIX = (
    "Compare one field with a parameter. For a person behind a reference, find the person's ids in a filter inside."
)
LAST_MOMENT = "9999-12-31T23:59:59Z"
LOST_FIX = "Make the filters of both queries match the same documents, and include entitlement.groq in both."
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
    """Read a page of entitlements, and some of them by their subjects. Raises GroqInvalid, and what the reads raise.

    Where by_subject.groq finds less than everything.groq, its subjects would lose their access.
    """
    page = await source.everything("")
    refuse_wrong_shape(page.rows, fields)
    samples = _samples(page.rows, fields)
    lost = await _lost(source, samples, fields)
    # Between the two reads, an editor may have moved or deleted it.
    if lost and lost[0] in (await source.everything("")).rows:
        raise GroqInvalid(f"{lost[1]}. {LOST_FIX}")


async def _lost(
    source: Sanity | Source, samples: Mapping[Subject, Mapping[str, Any]], fields: Sequence[Field]
) -> tuple[Mapping[str, Any], str] | None:
    """Return the first row that by_subject.groq does not find by its subject, or finds with fewer fields, and why."""
    if not samples:
        return None
    found = {row["_id"]: row for row in (await source.by_subject([*samples], ())).rows}
    for subject, row in samples.items():
        if row["_id"] not in found:
            kind = subject.kind.value
            text = f"everything.groq returns {row['_id']}, but by_subject.groq does not find it by its subject ({kind})"
            return row, text
        if missing := missing_fields([found[row["_id"]]], fields):
            names = ", ".join(text.partition(" ")[0] for text in missing)
            return row, f"by_subject.groq returns {row['_id']} without {names}, which entitlement.groq would add"
    return None


def _samples(rows: Sequence[Mapping[str, Any]], fields: Sequence[Field]) -> dict[Subject, Mapping[str, Any]]:
    """Return the first row of each kind of subject, with the subject. Only rows that name it as it is stored."""
    found: dict[str, tuple[Subject, Mapping[str, Any]]] = {}
    for raw in rows:
        subject, _ = read_row(raw, fields)
        given = [str(raw.get(name) or "") for name in SUBJECT_FIELDS]
        if subject is None or any(text != text.strip() for text in given):
            continue
        if not subject.is_address or (subject.id in given and not raw.get("clerkOrganizationId")):
            found.setdefault(subject.kind.value, (subject, raw))
    return dict(found.values())


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
    webhook: list[GroqProblem] = []
    samples = _samples(page.rows, fields)
    if empty.rows:
        problems.append(
            GroqProblem("by_subject.groq returns rows for an empty list of subjects", "Correct its filter.")
        )
    elif wrong := shape_problems(page.rows, fields):
        problems.append(GroqProblem("; ".join(_placed(folder, wrong)), f"Correct entitlement.groq in {folder}."))
    elif samples:
        if (lost := await _lost(source, samples, fields)) is not None:
            problems.append(GroqProblem(lost[1], LOST_FIX))
        others = (*_miscounted(empty, samples), *await _differing(source, [*samples.values()]))
        problems += [GroqProblem(text, f"Correct it in {folder}.") for text in others]
        others = (*await _webhook_problems(source, queries, folder, next(iter(samples.values()))),)
        fix = f"Correct it in {folder}, then run `sync-worker webhook install`."
        webhook = [GroqProblem(text, fix) for text in others]
    warnings = [*await _text_warnings(source, folder, page.rows), *_warnings(page.rows, queries, folder, fields)]
    return GroqReport(tuple(problems), tuple(webhook), tuple(warnings), empty.visible)


def _placed(folder: Path, problems: Sequence[str]) -> Iterator[str]:
    """Name the line that defines the field of each problem, if one does."""
    for text in problems:
        field = text.partition('"')[2].partition('"')[0]
        place = place_of_field(folder, "entitlement.groq", field)
        yield f"{place}: {text}" if field and not place.endswith("line 1") else f"entitlement.groq: {text}"


def _miscounted(empty: Snapshot, samples: Mapping[Subject, Mapping[str, Any]]) -> Iterator[str]:
    """Yield what by_subject.groq does not count, though everything.groq returns it."""
    ids = {subject: row["_id"] for subject, row in samples.items()}
    if not empty.visible:
        yield f'by_subject.groq: "visible" is 0, but everything.groq returns {next(iter(ids.values()))}'
    for subject, id_ in ids.items():
        if subject.is_address and not empty.addressed:
            yield f'by_subject.groq: "addressed" is 0, but {id_} names somebody by {subject.kind.value}'


async def _text_warnings(source: Sanity, folder: Path, rows: Sequence[Mapping[str, Any]]) -> list[GroqProblem]:
    """Return what the text of the files shows: types whose changes are missed, and filters that read everything."""
    fix = f"Correct it in {folder}."
    found = [GroqProblem(text, fix) for text in unseen_types(folder, NAMES)]
    for name in NAMES[:-2]:
        if name != SCANS:
            found += [GroqProblem(text, SCAN_FIX) for text in scanning(folder, f"{name}.groq")]
    return found if rows else [*await _unknown_types(source, folder), *found]


async def _unknown_types(source: Sanity, folder: Path) -> list[GroqProblem]:
    """Return the types in everything.groq of which no document is published, with those of the dataset."""
    types = types_of(folder, "everything.groq")
    query = '{"present": array::unique(*[_type in $types][0...1000]._type), "types": array::unique(*[0...1000]._type)}'
    answer = await source.lookup(query, {"types": [*types]}) if types else {}
    present, seen = ([str(one) for one in answer.get(name) or ()] for name in ("present", "types"))
    published = ", ".join(sorted(one for one in seen if not one.startswith("system."))[:SHOWN]) or "nothing"
    return [
        GroqProblem(
            f'{place}: no document of type "{kind}" is published; the dataset has {published}',
            f"Correct the type in all files of {folder}, or check SANITY_DATASET and the token's role.",
        )
        for kind, place in types.items()
        if kind not in present
    ]


def _warnings(
    rows: Sequence[Mapping[str, Any]], queries: Queries, folder: Path, fields: Sequence[Field]
) -> Iterator[GroqProblem]:
    if not rows:
        text = "the queries run, but no entitlement is visible"
        fix = "Publish one, or check SANITY_DATASET, the token's role and the type name in the GROQ files."
        yield GroqProblem(text, fix)
    for text, fix in refused_warnings(rows, fields, folder):
        yield GroqProblem(text, fix)
    if rows and not any(UNRESOLVED_FIELD in row for row in rows):
        text = f'entitlement.groq returns no "{UNRESOLVED_FIELD}", so nobody sees a reference that leads nowhere'
        yield GroqProblem(text, f'Count such references in {folder}, or write "{UNRESOLVED_FIELD}": null.')
    if text := inactive_warning(rows, fields):
        yield GroqProblem(f"{_place(folder, 'status', 'entitlement.groq')}: {text}", f"Correct it in {folder}.")
    if text := empty_warning(empty_fields(rows, field_names(fields)), len(rows), queries.everything):
        yield GroqProblem(text, f"Check entitlement.groq in {folder}.")


async def _differing(source: Sanity, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what the other queries say otherwise of these rows: that they are there, whom they are for."""
    ids = {str(row["_id"]) for row in rows}
    by_id = {row["_id"] for row in (await source.by_subject((), ids)).rows}
    found = [f"by_subject.groq does not find {id_} by its _id, in $documents" for id_ in sorted(ids - by_id)[:1]]
    affected = (await source.affected(ids, "", ())).rows
    for row in rows:
        if different := await _different(source, row, affected):
            return found + different
    return found


async def _different(source: Sanity, row: Mapping[str, Any], affected: Sequence[Mapping[str, Any]]) -> list[str]:
    document = str(row["_id"])
    changed = await source.changed(str(row["_updatedAt"]), "", LAST_MOMENT)
    found = []
    for file, others, expected in (
        ("affected.groq", affected, {}),
        ("changed.groq", changed, {"_type": "entitlement"}),
    ):
        other = next((one for one in others if one["_id"] == document), None)
        if other is None:
            if others is not changed or len(others) < CHANGED_PAGE:  # else others may fill the page
                found.append(f"{file} does not find {document}")
            continue
        expected |= {name: row[name] for name in SUBJECT_FIELDS if row.get(name)}
        found += [
            f'{file}: "{name}" of {document} is {_shown(other.get(name))}, expected {_shown(value)}'
            for name, value in expected.items()
            if other.get(name) != value
        ]
    return found


async def _webhook_problems(source: Sanity, queries: Queries, folder: Path, row: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with an event about a row; nothing if only Sanity can evaluate the files."""
    projection, condition = _dry(queries.webhook_projection), _dry(queries.webhook_filter)
    parameters = {"id": str(row["_id"])}
    problems = []
    if "delta::" not in condition:
        query = f'{{"present": count(*[_id == $id]), "matches": count(*[_id == $id && ({condition})])}}'
        counts = await _in_file(folder, FILTER, condition, source.lookup(query, parameters), query)
        if counts.get("matches") != counts.get("present"):
            problems.append(f"{FILTER}, line 1: it does not let {row['_id']} through")
    if "delta::" not in projection:
        query = f'{{"document": *[_id == $id][0]{{_id, _rev, _updatedAt, "body": {projection}}}}}'
        document = (await _in_file(folder, PROJECTION, projection, source.lookup(query, parameters), query)).get(
            "document"
        )
        if isinstance(document, dict):  # else it has just been deleted
            problems += _body_problems(document, folder, row)
    return problems


async def _in_file(folder: Path, file: str, text: str, answer: Awaitable[T], query: str) -> T:
    """Return the answer to a query that has the text of a file in it. An error there names the file and the line."""
    try:
        return await answer
    except GroqInvalid as error:
        start = query.index(text)
        if error.position is None or not start < error.position <= start + len(text):
            raise GroqInvalid(f"{file}: {error.detail}") from None
        raise GroqInvalid(f"{file}: {error.detail}; see {place_of(folder, file, error.position - start)}") from None


def _dry(text: str) -> str:
    """Put what a query can evaluate for what only a webhook can, without moving anything else."""
    for pattern, instead in ((_SIDE, "@"), (_OPERATION, '"update"')):
        for found in reversed([*pattern.finditer(text)]):
            text = text[: found.start()] + instead.ljust(len(found[0])) + text[found.end() :]
    return text


def _body_problems(document: Mapping[str, Any], folder: Path, row: Mapping[str, Any]) -> Iterator[str]:
    body = document["body"] if isinstance(document["body"], dict) else {}
    expected = {
        "id": document["_id"],
        "type": "entitlement",
        "rev": document["_rev"],
        "updatedAt": document["_updatedAt"],
        "operation": "update",
    }
    for name in ("projectId", "dataset"):
        if not body.get(name):
            yield f'{_place(folder, name)}: "{name}" is missing'
    for name, value in expected.items():
        if body.get(name) != value:
            yield f'{_place(folder, name)}: "{name}" of {row["_id"]} is {_shown(body.get(name))}, expected {value}'
    for side in ("before", "after"):
        given = body.get(side)
        if isinstance(given, dict) and given.get("_type") not in (None, "entitlement"):
            kind = _shown(given["_type"])
            yield f'{_place(folder, side)}: "_type" of "{side}" of {row["_id"]} is {kind}, expected entitlement'
        for name in SUBJECT_FIELDS:
            if row.get(name) and not (isinstance(given, dict) and given.get(name)):
                yield f'{_place(folder, side)}: "{side}" lacks {name}, which {row["_id"]} has'


def _place(folder: Path, field: str, file: str = PROJECTION) -> str:
    """Return the file and the line where a field is defined; the first line if it is missing."""
    return place_of_field(folder, file, field)


def _shown(value: object) -> str:
    return "missing" if value is None else escaped(str(value))


async def _named(file: str, answer: Awaitable[T]) -> T:
    """Name the file in an error that comes from its text."""
    try:
        return await answer
    except WrongResult as error:
        raise GroqInvalid(f"{file}: {error.detail}") from None

"""`import`: turns a CSV file into entitlement documents for `sanity dataset import`."""

from __future__ import annotations

import asyncio
import csv
import json
import sys
from collections import Counter
from itertools import chain
from pathlib import Path  # noqa: TC003 - typer evaluates annotations
from typing import TYPE_CHECKING, Annotated

import typer

from sync_worker.cli.output import CommandFailed, echo
from sync_worker.cli.setup import begin
from sync_worker.formatting import describe, masked

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from sync_worker.domain.entitlements import Entitlement, Field
    from sync_worker.sanity.entitlement_csv import Conversion, Line
    from sync_worker.settings import Settings

SHOWN = 20
"""Subjects in the preview, and the most frequent plans, roles and courses."""
ERRORS_SHOWN = 100


def import_csv(
    file: Annotated[Path, typer.Argument(metavar="FILE.csv", help="The CSV file in UTF-8; - reads stdin.")],
    columns: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HEADER=COLUMN,…",
            help="What the headers of the file stand for; HEADER= ignores one. May be repeated.",
        ),
    ] = None,
) -> None:
    """Turn a CSV file into entitlements for `sanity dataset import`.

    Prints one JSON document per line, and previews on stderr what access they give. Writes nothing anywhere. The ids
    are made from the content, so that importing the same file again with --missing changes nothing. If any line is
    wrong, prints what is wrong with each and no document, and the exit code is 1.

    Columns: clerkUserId, userEmail, userExternalId, clerkOrganizationId, plan, role, courses (slugs separated by ;),
    startsAt, endsAt.

    Example: sync-worker import people.csv --columns "E-Mail=userEmail,Name=" > people.ndjson
    """
    from sync_worker.sanity.entitlement_csv import read_lines

    settings = begin()
    lines, errors = read_lines(_text(file), _renamed(columns or []))
    conversion = asyncio.run(_convert(settings, lines))
    wrong = sorted([*errors, *conversion.errors], key=lambda error: error.line)
    if wrong:
        for error in wrong[:ERRORS_SHOWN]:
            echo(str(error), err=True)
        if len(wrong) > ERRORS_SHOWN:
            echo(f"… and {len(wrong) - ERRORS_SHOWN} more", err=True)
        count = len({error.line for error in wrong})
        raise CommandFailed(f"{count} of the lines cannot be imported, so nothing was printed; correct them and retry.")
    _preview(conversion, settings)
    echo("\n".join(json.dumps(one, ensure_ascii=False) for one in conversion.documents.values()))


def _text(file: Path) -> str:
    try:
        raw = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise CommandFailed(f"{file} is not UTF-8; save it as CSV in UTF-8.") from None
    except OSError as error:
        raise CommandFailed(f"{file} cannot be read: {error.strerror}.") from None


def _renamed(options: Iterable[str]) -> dict[str, str]:
    from sync_worker.sanity.entitlement_csv import COLUMNS

    renamed = {}
    for part in chain.from_iterable(csv.reader(options)):
        header, equals, column = (text.strip() for text in part.rpartition("="))
        if not equals or not header or (column and column not in COLUMNS):
            raise CommandFailed(f"--columns takes HEADER=COLUMN; COLUMN is one of {', '.join(COLUMNS)}, or empty.")
        renamed[header] = column
    return renamed


async def _convert(settings: Settings, lines: Sequence[Line]) -> Conversion:
    from sync_worker.domain.clock import utc
    from sync_worker.runtime.wiring import Runtime, open_source
    from sync_worker.sanity.catalogue import read_catalogue
    from sync_worker.sanity.entitlement_csv import convert
    from sync_worker.sanity.groq_files import load_query

    runtime = Runtime.system()
    courses = {slug for line in lines for slug in line.courses}
    plans = {line.cells["plan"] for line in lines if "plan" in line.cells}
    async with open_source(settings, runtime) as source:
        catalogue = await read_catalogue(source, load_query(settings.groq_folder, "import.groq"), courses, plans)
    return convert(lines, catalogue, settings.layout.fields, utc(runtime.clock))


def _preview(conversion: Conversion, settings: Settings) -> None:
    """Show on stderr what access the documents give by themselves."""
    from sync_worker.domain.clock import utc
    from sync_worker.runtime.system_clock import SystemClock

    by_subject: dict[str, list[Entitlement]] = {}
    for one in conversion.entitlements:
        by_subject.setdefault(str(one.subject), []).append(one)
    repeated = f" ({conversion.repeated} lines repeat others)" if conversion.repeated else ""
    echo(f"{len(conversion.documents)} entitlements for {len(by_subject)} subjects{repeated}", err=True)
    counts = Counter(text for one in conversion.entitlements for text in _given(one))
    for text, number in counts.most_common(SHOWN):
        echo(f"  {text}: {number}", err=True)
    now = utc(SystemClock())
    for subject, rows in list(by_subject.items())[:SHOWN]:
        echo(masked(f"{subject}: {_access(rows, settings.layout.fields, now)}"), err=True)
    if len(by_subject) > SHOWN:
        echo(f"… and {len(by_subject) - SHOWN} more subjects", err=True)
    echo(
        f"To import them: npx sanity dataset import FILE.ndjson {settings.sanity_dataset} --missing. "
        "Then `sync-worker reconcile --dry-run` shows what changes in Clerk.",
        err=True,
    )


def _given(one: Entitlement) -> Iterable[str]:
    for name, value in one.values.items():
        yield from (describe({name: item}) for item in (value if isinstance(value, tuple) else (value,)))


def _access(rows: Sequence[Entitlement], fields: Sequence[Field], now: datetime) -> str:
    from sync_worker.domain.merge import merge

    access = merge(rows, fields, now)
    later = access.next_transition
    text = describe(access.values) if access.sources else "nothing now"
    return f"{text}, changes at {later:%Y-%m-%d %H:%M} UTC" if later else text

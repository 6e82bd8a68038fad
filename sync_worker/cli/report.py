"""`report`: who has what, by which documents and editors, since when and until when."""

from __future__ import annotations

import asyncio
import csv
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from sync_worker.cli.output import AsJson, CommandFailed, echo, moment_of, print_json
from sync_worker.cli.setup import begin
from sync_worker.cli.tables import print_table
from sync_worker.formatting import describe, printable, rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sync_worker.diagnostics.report import Holding, Wanted
    from sync_worker.settings import Settings

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", *"\uff1d\uff0b\uff0d\uff20")
"""What a formula begins with in some spreadsheet; the last four are full-width."""


def report(  # noqa: PLR0917 - typer reads options from parameters
    plan: Annotated[str, typer.Option(help="Only who has this plan.")] = "",
    role: Annotated[str, typer.Option(help="Only who has this role.")] = "",
    course: Annotated[str, typer.Option(help="Only who has the course with this slug.")] = "",
    at: Annotated[
        str, typer.Option(metavar="TIME", help="Who had it at this moment, by the ledger alone. Default: now.")
    ] = "",
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV on stdout.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show who has what, by which documents and editors, since when and until when.

    Reads everybody in Clerk, all entitlements in Sanity and the ledger; writes nothing. With --at, reads the ledger
    alone.

    Example: sync-worker report --course algebra --csv > algebra.csv
    """
    from sync_worker.diagnostics.report import Wanted, holding_json

    if as_csv and as_json:
        raise CommandFailed("--csv and --json exclude each other; choose one.")
    moment = moment_of(at)
    settings = begin()
    wanted = Wanted.of(plan=plan, role=role, course=course)
    found, names = asyncio.run(_read(settings, wanted, moment, with_names=not (as_json or as_csv)))
    if as_json:
        print_json([holding_json(one) for one in found])
    elif as_csv:
        _print_csv(found, [f.name for f in settings.layout.fields])
    else:
        rows = (
            (
                *(one.subject, names.get(one.subject), describe(one.values), ", ".join(one.documents)),
                *(", ".join(one.by), rfc3339(one.since) or "—", rfc3339(one.until) or "—"),
            )
            for one in found
        )
        empty = f"nobody has {describe(wanted.values)}" if wanted.values else "nobody has any access"
        print_table(("subject", "name", "access", "documents", "by", "since", "until"), rows, empty=empty)
        echo(f"{len(found)} subjects", err=True)


async def _read(
    settings: Settings, wanted: Wanted, moment: float | None, *, with_names: bool
) -> tuple[list[Holding], Mapping[str, str]]:
    from sync_worker.diagnostics.report import AccessReport
    from sync_worker.runtime.wiring import Runtime, open_services, open_store

    async with (
        open_store(settings, Runtime.system()) as store,
        open_services(settings, store, dry_run=True) as services,
    ):
        if moment is not None and moment > store.runtime.clock.now():
            raise CommandFailed("--at is in the future; a report covers the present and the past.")
        reads = AccessReport(
            store.ledger, store.access, services.source, services.target, settings.layout, store.runtime.clock
        )
        found = await (reads.now(wanted) if moment is None else reads.at(wanted, moment))
        return found, await services.names.of([one.subject for one in found]) if with_names else {}


def _print_csv(found: Iterable[Holding], fields: Sequence[str]) -> None:
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow(("subject", *fields, "documents", "by", "since", "until"))
    for one in found:
        cells = (one.subject, *(one.values.get(name) for name in fields), one.documents, one.by)
        out.writerow((*map(cell_of, cells), rfc3339(one.since), rfc3339(one.until)))


def cell_of(value: object) -> str:
    """Return a value as one cell; an apostrophe keeps a spreadsheet from running a part of it as a formula.

    Each member of a list gets its own: where semicolons separate cells, each of them is a cell.
    """
    members = value if isinstance(value, list | tuple) else () if value is None else (value,)
    texts = [printable(str(member)) for member in members]
    return ";".join(f"'{text}" if text.startswith(FORMULA) else text for text in texts)

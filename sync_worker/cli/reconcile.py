"""`reconcile`: compare every subject with what is published, and write the differences."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from sync_worker.cli.output import AsJson, CommandFailed, echo, moment_of, print_json
from sync_worker.cli.progress import Bars
from sync_worker.cli.setup import begin
from sync_worker.cli.tables import print_table
from sync_worker.domain.ownership import Adoption
from sync_worker.formatting import rfc3339

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sync_worker.domain.timings import Timings
    from sync_worker.runtime.wiring import Store
    from sync_worker.settings import Settings
    from sync_worker.worker.desired_state import Findings
    from sync_worker.worker.full_reconcile import Result

DRIFT, HELD = 2, 3
"""Exit codes: a dry run found differences; losses are held for approval."""
SHOWN = 50


def reconcile(  # noqa: PLR0917 - typer reads options from parameters
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only report. Exit code 2 when something differs.")
    ] = False,
    adopt: Annotated[bool, typer.Option("--adopt", help="Also manage existing values that carry no marker.")] = False,
    take_over: Annotated[
        str, typer.Option(help="Also manage the keys of another installation: PROJECT/DATASET.", metavar="SOURCE")
    ] = "",
    max_revocations: Annotated[
        str, typer.Option(help="A number or a percentage, for this run. Default: MAX_REVOCATIONS.")
    ] = "",
    accept_fewer: Annotated[
        bool,
        typer.Option("--accept-fewer", help="Continue although most entitlements are gone, or a key of everybody's."),
    ] = False,
    perspective: Annotated[
        str,
        typer.Option(
            metavar="drafts|RELEASE,…",
            help="With --dry-run: as if these drafts or releases were published.",
        ),
    ] = "",
    at: Annotated[
        str,
        typer.Option(
            metavar="TIME",
            help="With --dry-run: what differs at this moment. Default: when the release is to be published, or now.",
        ),
    ] = "",
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the changes as a Markdown table.")] = False,
    as_json: AsJson = False,
) -> None:
    """Sync all subjects and repair any drift.

    Compares everything in Clerk with everything published in Sanity, and writes the differences.

    Exit codes: 0 done or no drift, 1 error, 2 drift (with --dry-run), 3 losses held for approval.

    Example: sync-worker reconcile --dry-run
    """
    if (perspective or at) and not dry_run:
        raise CommandFailed("--perspective and --at show what would be: add --dry-run.")
    moment = moment_of(at)
    overrides = {"max_revocations": max_revocations} if max_revocations else {}
    settings = begin(**overrides)
    show = "json" if as_json else "markdown" if markdown else "table"
    adoption = Adoption(unmarked=adopt, source=take_over.strip())
    if perspective or at:
        preview = _preview(settings, show, adoption, perspective, moment, accept_fewer=accept_fewer)
        raise typer.Exit(asyncio.run(preview))
    raise typer.Exit(asyncio.run(_reconcile(settings, show, adoption, dry_run=dry_run, accept_fewer=accept_fewer)))


async def _preview(
    settings: Settings, show: str, adoption: Adoption, perspective: str, moment: float | None, *, accept_fewer: bool
) -> int:
    """Show what publishing drafts or releases would change. It takes no lock, because it cannot write to Clerk."""
    from sync_worker.cli.changes import as_json
    from sync_worker.domain.changeset import Drift, LossLimit, verdict
    from sync_worker.runtime.wiring import Runtime, open_preview, open_store
    from sync_worker.worker.full_reconcile import report

    calls: Counter[str] = Counter()
    runtime = Runtime.system()
    started = runtime.clock.monotonic()
    async with (
        open_store(settings, runtime) as store,
        open_preview(
            settings,
            store,
            calls,
            perspective=perspective,
            moment=moment,
            adoption=adoption,
            accept_fewer=accept_fewer,
        ) as parts,
    ):
        with Bars() as bars:
            findings = await replace(parts, progress=bars).find()
        findings.differences = [
            replace(one, drift=Drift.PREVIEWED) if one.drift is Drift.MISSED else one for one in findings.differences
        ]
        _announce(findings, settings, runtime.timings, await _names(findings, settings, store, show), show)
        judged_at = rfc3339(parts.clock.now())
    limit = LossLimit(settings.max_revocations)
    summary = report(findings, None, calls, runtime.clock.monotonic() - started, limit)
    if show == "json":
        said, _ = verdict(findings.losing, limit, findings.managed)
        changes = [as_json(one) for one in findings.differences]
        print_json({**summary, "at": judged_at, "verdict": said, "changes": changes})
    else:
        shown = {**summary, "at": judged_at}
        echo(" ".join(f"{name}={value}" for name, value in shown.items()), err=show == "markdown")
    return _exit_code(findings, None)


async def _reconcile(settings: Settings, show: str, adoption: Adoption, *, dry_run: bool, accept_fewer: bool) -> int:
    from sync_worker.domain.changeset import LossLimit
    from sync_worker.runtime.service import refuse_other_installation
    from sync_worker.runtime.wiring import Runtime, open_reconcile, open_store
    from sync_worker.sanity.groq_checks import refuse_wrong_queries
    from sync_worker.storage.reconcile_runs import exclusive_run, judged
    from sync_worker.worker.full_reconcile import report

    calls: Counter[str] = Counter()
    runtime = Runtime.system()
    started = runtime.clock.monotonic()
    async with (
        open_store(settings, runtime) as store,
        exclusive_run(store.runs, runtime.clock, runtime.timings),
        nullcontext() if dry_run else judged(store.runs),
        open_reconcile(settings, store, calls, dry_run=dry_run, adoption=adoption, accept_fewer=accept_fewer) as parts,
    ):
        await refuse_wrong_queries(parts.reconciler.source, settings.layout.fields)
        with Bars() as bars:
            findings = await replace(parts, progress=bars).find()
        _announce(findings, settings, runtime.timings, await _names(findings, settings, store, show), show)
        if findings.differences and not dry_run:
            await refuse_other_installation(settings, store)
        with Bars() as bars:
            result = None if dry_run else await replace(parts, progress=bars).apply(findings)
    limit = LossLimit(settings.max_revocations)
    summary = report(findings, result, calls, runtime.clock.monotonic() - started, limit)
    if show == "json":
        print_json(summary)
    else:
        echo(" ".join(f"{name}={value}" for name, value in summary.items()), err=show == "markdown")
    return _exit_code(findings, result)


def _exit_code(findings: Findings, result: Result | None) -> int:
    if result is None:
        return DRIFT if findings.differences else 0
    if result.failed or result.left_over:
        for subject, error in list(result.failed.items())[:SHOWN]:
            echo(f"error: {subject}: {error}", err=True)
        missing = len(result.failed) + result.left_over
        echo(f"{missing} subjects could not be synced; the run counts as failed.", err=True)
        return 1
    if result.held:
        for id_, number in result.held.items():
            echo(f"{number} losses are held. Run `sync-worker approve {id_}` to apply them.", err=True)
        return HELD
    return 0


async def _names(findings: Findings, settings: Settings, store: Store, show: str) -> Mapping[str, str]:
    """Return the names of the subjects that the table shows."""
    from sync_worker.cli.people import names_of

    shown = findings.differences[:SHOWN] if show == "table" else []
    return await names_of(settings, store, [str(one.change.subject) for one in shown]) if shown else {}


def _announce(findings: Findings, settings: Settings, timings: Timings, names: Mapping[str, str], show: str) -> None:
    """Show the changes and their cost before they are written."""
    from sync_worker.cli.changes import HEADER, as_markdown, as_rows
    from sync_worker.domain.changeset import LossLimit, forecast, verdict
    from sync_worker.sanity.client import Queries
    from sync_worker.sanity.row_checks import empty_warning

    window = timings.budget_window
    cost = forecast(len(findings.differences), settings.budget, window)
    echo(
        f"{len(findings.differences)} of {findings.checked} subjects differ: "
        f"{cost.calls} calls to Clerk, about {cost.seconds:.0f} s at {settings.budget} calls per {window:.0f} s",
        err=True,
    )
    said, _ = verdict(findings.losing, LossLimit(settings.max_revocations), findings.managed)
    if findings.differences:
        echo(said, err=True)
    if findings.taken_over:
        echo(f"{findings.taken_over} of them have values of the app that become managed", err=True)
    if suspicious := empty_warning(findings.empty, findings.rows, Queries.load(settings.groq_folder).everything):
        echo(f"warning: {suspicious}", err=True)
    # A row by an address that several users have is refused once for each of them.
    for refusal in list(dict.fromkeys(findings.refused))[:SHOWN]:
        echo(f"refused: {refusal}", err=True)
    for unresolved in sorted(set(findings.unresolved))[:SHOWN]:
        echo(f"incomplete: {unresolved}", err=True)
    for reason in sorted(findings.pending.values())[:SHOWN]:
        echo(f"pending: {reason}", err=True)
    if show == "markdown":
        echo(f"**{len(findings.differences)} of {findings.checked} subjects differ.** {said}\n")
        echo(as_markdown(findings.differences))
    elif show == "table":
        subject, *others = HEADER
        rows = ((key, names.get(key), *rest) for key, *rest in as_rows(findings.differences[:SHOWN]))
        print_table((subject, "name", *others), rows, empty="nothing differs")
        if len(findings.differences) > SHOWN:
            echo(f"… and {len(findings.differences) - SHOWN} more (--markdown prints all)")

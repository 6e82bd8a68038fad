"""`doctor`: check everything an installation needs, with a fix for each problem."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from sync_worker.cli.output import AsJson, ManageToken, print_json
from sync_worker.cli.tables import print_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sync_worker.doctor.runner import Finding

COLOURS = {"ok": "green", "warning": "yellow", "problem": "bold red", "skipped": "dim"}


def doctor(
    url: Annotated[
        str, typer.Option(help="The URL that Sanity should post to. Default: the URL of the best matching webhook.")
    ] = "",
    manage_token: ManageToken = "",
    as_json: AsJson = False,
) -> None:
    """Check the installation and suggest fixes.

    Covers the settings, Sanity, Clerk, the webhooks, the clock and the database. Changes nothing.

    Exit codes: 0 no problem found, 1 at least one problem.

    Example: sync-worker doctor --url https://sync.example.com/webhooks/sanity
    """
    findings = asyncio.run(_examine(url, manage_token.strip()))
    healthy = all(finding.status != "problem" for finding in findings.values())
    if as_json:
        checks = [{"check": n, "status": f.status, "result": f.result, "fix": f.fix} for n, f in findings.items()]
        print_json({"ok": healthy, "checks": checks})
    else:
        _show(findings)
    raise typer.Exit(0 if healthy else 1)


def _show(findings: Mapping[str, Finding]) -> None:
    from rich.text import Text

    def row(name: str, finding: Finding) -> tuple[object, ...]:
        advice = f"\n→ {finding.fix}" if finding.fix else ""
        return name, Text(finding.status, COLOURS[finding.status]), finding.result + advice

    rows = (row(*item) for item in findings.items())
    print_table(("check", "status", "result and fix"), rows, empty="nothing to check")


async def _examine(url: str, manage_token: str) -> dict[str, Finding]:
    from sync_worker.doctor.checks import CHECKS
    from sync_worker.doctor.runner import examine, open_installation
    from sync_worker.logs import configure_logs
    from sync_worker.runtime.environment import load_valid_settings, unknown_settings
    from sync_worker.runtime.wiring import Runtime

    settings, invalid = load_valid_settings()
    configure_logs(settings.log_format, settings.secrets)
    async with open_installation(
        settings, invalid, Runtime.system(), url=url, manage_token=manage_token, unknown=unknown_settings()
    ) as installation:
        return await examine(installation, CHECKS)

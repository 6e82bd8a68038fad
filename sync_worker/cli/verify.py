"""`verify`: read Sanity and Clerk in full and compare them."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

import typer

from sync_worker.cli.output import AsJson, echo, print_json
from sync_worker.cli.setup import begin
from sync_worker.cli.tables import print_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sync_worker.settings import Settings
    from sync_worker.worker.desired_state import Findings


def verify(as_json: AsJson = False) -> None:
    """Verify that Clerk is in sync with Sanity.

    Compares the number of subjects on each plan and a hash over them. Changes nothing.

    Exit codes: 0 in sync, 1 error, 2 out of sync.

    Example: sync-worker verify
    """
    from sync_worker.domain.changeset import compared

    settings = begin()
    findings, names = asyncio.run(_read(settings, with_names=not as_json))
    sides = compared(findings.published, findings.held_in_clerk)
    differing = [str(d.change.subject) for d in findings.differences]
    equal = not differing and all(side["sanity"] == side["clerk"] for side in sides)
    if as_json:
        print_json({"equal": equal, "checked": findings.checked, "plans": sides, "differing": differing})
    else:
        rows = [(side["plan"], *side["sanity"].values(), *side["clerk"].values()) for side in sides]
        print_table(("plan", "Sanity", "hash", "Clerk", "hash"), rows, empty="nobody has a plan, in Sanity or in Clerk")
        for subject in differing:
            name = names.get(subject)
            echo(f"out of sync: {subject}{f' ({name})' if name else ''}")
        echo("in sync" if equal else f"{len(differing)} out of sync; run `sync-worker reconcile` to fix this")
    raise typer.Exit(0 if equal else 2)


async def _read(settings: Settings, *, with_names: bool) -> tuple[Findings, Mapping[str, str]]:
    from sync_worker.cli.people import names_of
    from sync_worker.runtime.wiring import Runtime, open_reconcile, open_store

    async with (
        open_store(settings, Runtime.system()) as store,
        open_reconcile(settings, store, Counter(), dry_run=True, accept_fewer=True) as run,
    ):
        findings = await run.find()
        differing = [str(one.change.subject) for one in findings.differences]
        return findings, await names_of(settings, store, differing) if with_names and differing else {}

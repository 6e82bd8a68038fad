"""`claims install`: create or repair a JWT template in Clerk, or print the claims of the session token."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated

import typer

from sync_worker.clerk.recipes import Recipe
from sync_worker.cli.output import AsJson, echo, print_json
from sync_worker.cli.setup import begin
from sync_worker.cli.tables import print_table
from sync_worker.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sync_worker.clerk.recipes import ClaimDifference
    from sync_worker.clerk.tokens import JwtTemplate
    from sync_worker.settings import Settings

DRIFT = 2
"""Exit code of a dry run that found differences."""


def install(
    template: Annotated[
        str, typer.Option(help="The JWT template. Without it: the session token.", metavar="NAME")
    ] = "",
    recipe: Annotated[
        Recipe | None, typer.Option(help="What the service wants. Default: the recipe named NAME, else plain.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only report. Exit code 2 when something differs.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Create or repair a JWT template in Clerk, after showing the difference.

    Claims that the recipe does not name stay. No secret key can change the session token: without --template, this
    prints what to enter in Clerk.

    Exit codes: 0 done or nothing to do, 1 error, 2 something differs (with --dry-run).

    Example: sync-worker claims install --template convex
    """
    settings = begin()
    if not template:
        _print_session_token(settings, as_json=as_json)
        return
    chosen = recipe or Recipe.named(template)
    raise typer.Exit(asyncio.run(_install(settings, template, chosen, yes=yes, dry_run=dry_run, as_json=as_json)))


def _print_session_token(settings: Settings, *, as_json: bool) -> None:
    from sync_worker.clerk.claims import default_template

    claims = dict(default_template(settings.layout).claims)
    if as_json:
        print_json(claims)
        return
    echo("Enter these claims in Clerk's dashboard, under Sessions, Customize session token:\n")
    print_json(claims)
    patch = json.dumps({"session": {"claims": claims}}, separators=(",", ":"))
    echo(f"\nOr with Clerk's command line, which asks you to sign in:\n\nclerk config patch --json '{patch}'")


async def _install(settings: Settings, name: str, recipe: Recipe, *, yes: bool, dry_run: bool, as_json: bool) -> int:
    from sync_worker.clerk.recipes import differences, merged, recipe_claims
    from sync_worker.clerk.tokens import JwtTemplate
    from sync_worker.runtime.wiring import Runtime, open_services, open_store

    wanted = recipe_claims(recipe, settings.layout)
    runtime = Runtime.system()
    once = replace(runtime, timings=replace(runtime.timings, transport_attempts=1))  # a repeated POST is refused
    async with open_store(settings, once) as store, open_services(settings, store, dry_run=dry_run) as services:
        present = next((one for one in await services.tokens.templates() if one.name == name), None)
        found = differences(present.claims if present else {}, wanted)
        if not as_json:
            _announce(name, present, found)
        applied = bool(found) and not dry_run
        saved = present
        if applied:
            _confirm(present, yes=yes)
            base = present or JwtTemplate("", name, {}, lifetime=60, allowed_clock_skew=5)
            saved = await services.tokens.save(replace(base, claims=merged(base.claims, wanted)))
    if as_json:
        print_json(
            {
                "action": "none" if not found else "change" if present else "create",
                "applied": applied,
                "id": saved.id if saved else None,
                "template": name,
                "differences": [asdict(difference) for difference in found],
            }
        )
    elif applied and saved is not None:
        echo(f"{'Repaired' if present else 'Created'} JWT template {name} ({saved.id}).")
    return DRIFT if found and dry_run else 0


def _announce(name: str, present: JwtTemplate | None, found: Sequence[ClaimDifference]) -> None:
    if not found:
        echo(f"JWT template {name} is up to date.")
        return
    echo(f"JWT template {name} differs:" if present else f"There is no JWT template {name}:")
    rows = ((one.claim, _shown(one.current), _shown(one.expected)) for one in found)
    print_table(("claim", "current", "expected"), rows, empty="nothing differs")


def _shown(value: object) -> str:
    return "none" if value is None else json.dumps(value, ensure_ascii=False)


def _confirm(present: JwtTemplate | None, *, yes: bool) -> None:
    """Return if the change is confirmed, else abort the command."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigurationError("There is no terminal to confirm on. Pass --yes, or --dry-run to only see the change.")
    typer.confirm("Repair it?" if present else "Create it?", abort=True, err=True)

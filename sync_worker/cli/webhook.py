"""`webhook show` and `webhook install`: print the webhook in Sanity, or create and repair it."""

from __future__ import annotations

import asyncio
import re
import sys
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated

import typer

from sync_worker.cli.output import AsJson, ManageToken, echo, print_json
from sync_worker.cli.setup import begin
from sync_worker.cli.tables import print_table
from sync_worker.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sync_worker.sanity.webhook_config import Hook, Hooks, Repair
    from sync_worker.settings import Settings

app = typer.Typer(help="Show, create or repair the webhook in Sanity.", no_args_is_help=True)
DRIFT = 2
"""Exit code of a dry run that found differences."""


@app.command()
def show(
    url: Annotated[str, typer.Option(help="The URL of this installation.")] = "https://YOUR-HOST/webhooks/sanity",
    as_json: AsJson = False,
) -> None:
    """Print the webhook to create in Sanity.

    Example: sync-worker webhook show --url https://sync.example.com/webhooks/sanity
    """
    from sync_worker.sanity.webhook_config import creation

    settings = begin()
    hook = _expected(settings, url)
    body = {**creation(hook), "secret": "the value of SANITY_WEBHOOK_SECRET"}
    if as_json:
        print_json(body)
        return
    project = settings.sanity_project_id
    echo(f"Create a webhook under https://www.sanity.io/manage/project/{project}/api with these values:\n")
    echo(f"URL         {url}\nDataset     {hook.dataset}\nTrigger on  create, update, delete")
    echo("Drafts      off\nVersions    off\nMethod      POST\nSecret      the value of SANITY_WEBHOOK_SECRET\n")
    echo(f"Filter\n\n{hook.rule.filter}\n\nProjection\n\n{hook.rule.projection}\n")
    echo(f"Or POST this to {settings.sanity_url}/v{settings.sanity_api_version}/hooks/projects/{project}:\n")
    print_json(body)


@app.command()
def install(
    url: Annotated[str, typer.Option(help="The URL of this installation: https://your-host/webhooks/sanity.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only report. Exit code 2 when something differs.")
    ] = False,
    manage_token: ManageToken = "",
    as_json: AsJson = False,
) -> None:
    """Create or repair the webhook in Sanity.

    Exit codes: 0 done or nothing to do, 1 error, 2 something differs (with --dry-run).

    Example: sync-worker webhook install --url https://sync.example.com/webhooks/sanity
    """
    settings = begin()
    if not settings.sanity_webhook_secret:
        raise ConfigurationError("SANITY_WEBHOOK_SECRET is not set. Generate one with `openssl rand -hex 32`.")
    raise typer.Exit(
        asyncio.run(_install(settings, _checked(url), manage_token, yes=yes, dry_run=dry_run, as_json=as_json))
    )


def _checked(url: str) -> str:
    from sync_worker.sanity.webhook_config import PATH

    if not re.fullmatch(rf"https?://[^/\s]+(/\S*)?{PATH}", url):
        raise ConfigurationError(f"--url must be a URL of this program: https://your-host{PATH}")
    return url


async def _install(settings: Settings, url: str, manage_token: str, *, yes: bool, dry_run: bool, as_json: bool) -> int:
    from sync_worker.sanity.webhook_config import needed

    expected = _expected(settings, url)
    async with _opened(settings, manage_token, dry_run=dry_run) as hooks:
        repair = needed(await hooks.all(), expected)
        hook = repair.present
        if not as_json:
            _announce(repair)
        applied = bool(repair.differences) and not dry_run
        if applied:
            _confirm(repair.action, yes=yes)
            hook = await hooks.apply(repair, expected)
    if as_json:
        print_json(_report(repair, url, hook, applied=applied))
    elif applied and hook is not None:
        echo(f"{'Repaired' if repair.present else 'Created'} webhook {hook.id}.")
    for other in repair.others:
        echo(f"warning: webhook {other.id} also posts to {other.url}; delete it if it is not needed", err=True)
    return DRIFT if repair.differences and dry_run else 0


def _announce(repair: Repair) -> None:
    if not repair.differences:
        echo(f"Webhook {repair.present.id if repair.present else ''} is up to date.")
        return
    echo(f"Webhook {repair.present.id} differs:" if repair.present else "There is no webhook for this URL:")
    rows = ((d.field, d.now, d.wanted) for d in repair.differences)
    print_table(("field", "current", "expected"), rows, empty="nothing differs")


def _report(repair: Repair, url: str, hook: Hook | None, *, applied: bool) -> dict[str, object]:
    return {
        "action": repair.action,
        "applied": applied,
        "id": hook.id if hook else None,
        "url": url,
        "differences": [asdict(difference) for difference in repair.differences],
        "others": [{"id": other.id, "url": other.url, "dataset": other.dataset} for other in repair.others],
    }


def _confirm(action: str, *, yes: bool) -> None:
    """Return if the change is confirmed, else abort the command."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigurationError("There is no terminal to confirm on. Pass --yes, or --dry-run to only see the change.")
    typer.confirm("Create it?" if action == "create" else "Repair it?", abort=True, err=True)


def _expected(settings: Settings, url: str) -> Hook:
    from sync_worker.sanity.client import Queries
    from sync_worker.sanity.webhook_config import wanted_hook

    return wanted_hook(
        Queries.load(settings.groq_folder),
        url=url,
        dataset=settings.sanity_dataset,
        secret=next(iter(settings.sanity_webhook_secret), None),
    )


@asynccontextmanager
async def _opened(settings: Settings, manage_token: str, *, dry_run: bool) -> AsyncIterator[Hooks]:
    from sync_worker.runtime.wiring import Runtime
    from sync_worker.sanity.webhook_config import error_from_response, open_hooks
    from sync_worker.transport import ServiceTransport, inner_transport

    token = manage_token.strip() or settings.sanity_read_token.get_secret_value()
    runtime = Runtime.system()
    once = replace(runtime.timings, transport_attempts=1)  # repeating a request could create a second webhook
    transport = ServiceTransport(
        "Sanity",
        inner_transport(),
        {"Authorization": f"Bearer {token}"},
        error_from_response,
        runtime.clock,
        once,
        dry_run=dry_run,
    )
    hooks, client = open_hooks(
        transport, url=settings.sanity_url, version=settings.sanity_api_version, project=settings.sanity_project_id
    )
    async with client:
        yield hooks

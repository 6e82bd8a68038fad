"""`init`: sets up a directory with the GROQ files and a `.env`, after it has tried both keys."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sync_worker import DOCUMENTATION
from sync_worker.cli.env_file import refuse_existing, write_env_file
from sync_worker.cli.output import CommandFailed, echo

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sync_worker.doctor.runner import Finding
    from sync_worker.settings import Settings

ENV_FILE, GROQ_FOLDER = Path(".env"), Path("groq")
TRIED = ("Clerk", "Sanity", "read-only token")
"""The checks of `doctor` that try the keys."""
KEPT = ("SANITY_API_URL", "CLERK_API_URL", "DATABASE_URL")
"""Written to the file too, if the environment sets them."""


def init(
    project_id: Annotated[str, typer.Option(help="The Sanity project.", show_default=False)] = "",
    dataset: Annotated[str, typer.Option(help="The dataset with the entitlements.")] = "production",
    read_token: Annotated[
        str,
        typer.Option(
            envvar="SANITY_READ_TOKEN",
            show_default=False,
            help="A Sanity token with the Viewer role. Prefer the environment variable: other users can see arguments.",
        ),
    ] = "",
    clerk_key: Annotated[
        str, typer.Option(envvar="CLERK_SECRET_KEY", show_default=False, help="The secret key of Clerk, likewise.")
    ] = "",
    plan_order: Annotated[
        str | None, typer.Option(help="The plans, lowest first, separated by commas. Empty: any plan is granted.")
    ] = None,
    *,
    groq_only: Annotated[
        bool, typer.Option("--groq-only", help="Copy the GROQ files alone, for settings that exist already.")
    ] = False,
) -> None:
    """Set up this directory: GROQ files and settings.

    Asks for what is not given, tries both keys, copies the GROQ files to ./groq and writes .env. An existing file is
    never overwritten.

    Example: sync-worker init
    """
    if groq_only:
        _copy_groq_alone()
        return
    refuse_existing(ENV_FILE, "To copy the GROQ files alone, run `sync-worker init --groq-only`")
    needed = {
        "Pass --project-id": project_id,
        "set SANITY_READ_TOKEN": read_token,
        "set CLERK_SECRET_KEY": clerk_key,
    }
    _refuse_silence(needed)
    project_id = project_id or typer.prompt("Sanity project id (see https://www.sanity.io/manage)")
    read_token = read_token or typer.prompt(
        "Sanity token (npx sanity tokens create sync-worker --role=viewer)", hide_input=True
    )
    clerk_key = clerk_key or typer.prompt("Clerk secret key (dashboard, API keys)", hide_input=True)
    if plan_order is None:
        plan_order = _asked("Plans, lowest first, separated by commas (empty: any)") if sys.stdin.isatty() else ""
    values = {
        "SANITY_PROJECT_ID": project_id.strip(),
        "SANITY_DATASET": dataset.strip(),
        "SANITY_READ_TOKEN": read_token.strip(),
        "SANITY_WEBHOOK_SECRET": secrets.token_hex(32),
        "CLERK_SECRET_KEY": clerk_key.strip(),
        "PLAN_ORDER": plan_order.strip(),
        "ADMIN_TOKEN": secrets.token_hex(32),
        "GROQ_DIR": str(GROQ_FOLDER),
    }
    _try_keys(values)
    for name in _copy_groq(GROQ_FOLDER):
        echo(f"kept {name}, which exists already")
    write_env_file(ENV_FILE, {**values, **{name: os.environ[name] for name in KEPT if os.environ.get(name)}})
    _say_what_is_next()


def _refuse_silence(required: Mapping[str, str]) -> None:
    """Raise CommandFailed if something is missing and there is no terminal to enter it."""
    missing = [option for option, value in required.items() if not value]
    if missing and not sys.stdin.isatty():
        raise CommandFailed(f"There is no terminal to ask on. {' and '.join(missing)}.")


def _asked(text: str) -> str:
    return str(typer.prompt(text, default="", show_default=False))


def _try_keys(values: Mapping[str, str]) -> None:
    """Try both keys. Raises ConfigurationError for an invalid value, CommandFailed if a service refuses a key."""
    from sync_worker.logs import configure_logs
    from sync_worker.runtime.environment import load_settings

    given = {name.lower(): value for name, value in values.items() if value and name != "GROQ_DIR"}
    settings = load_settings(_env_file=None, **given)
    configure_logs(settings.log_format, settings.secrets)
    problems = []
    for name, finding in asyncio.run(_examine(settings)).items():
        echo(f"{finding.status:<8} {name}: {finding.result}")
        if finding.status == "problem":
            problems.append(f"{name}: {finding.result}. {finding.fix}")
    if problems:
        raise CommandFailed(f"Nothing was written. {' '.join(problems)}")


async def _examine(settings: Settings) -> dict[str, Finding]:
    from sync_worker.doctor.checks import CHECKS
    from sync_worker.doctor.runner import examine, open_installation
    from sync_worker.runtime.wiring import Runtime

    async with open_installation(settings, {}, Runtime.system()) as installation:
        return await examine(installation, [check for check in CHECKS if check.name in TRIED])


def _copy_groq(folder: Path) -> list[str]:
    """Copy the GROQ files, and return those that were there before: they may be edited."""
    from sync_worker.settings import packaged_groq

    kept = []
    try:
        folder.mkdir(exist_ok=True)
        for source in sorted(packaged_groq().glob("*.groq")):
            target = folder / source.name
            if target.exists():
                kept.append(str(target))
            else:
                shutil.copyfile(source, target)
    except OSError as error:
        raise CommandFailed(f"{folder} cannot be written: {error.strerror}. Check the directory.") from None
    return kept


def _copy_groq_alone() -> None:
    for name in _copy_groq(GROQ_FOLDER):
        echo(f"kept {name}, which exists already")
    echo(f"The GROQ files are in {GROQ_FOLDER}. To use them, set GROQ_DIR={GROQ_FOLDER} in {ENV_FILE}.")


def _say_what_is_next() -> None:
    echo(f"\nWrote {ENV_FILE} (readable for you alone: keep it out of version control) and {GROQ_FOLDER}/*.groq. Next:")
    echo(
        f"  edit {GROQ_FOLDER}/entitlement.groq if your content model has other names: {DOCUMENTATION}/content-model.md"
    )
    echo("  sync-worker reconcile --dry-run        shows what would change")
    echo("  sync-worker serve                      receives webhooks and runs the worker")
    echo("  sync-worker webhook install --url …    creates the webhook in Sanity; needs SANITY_MANAGE_TOKEN")
    echo("  sync-worker doctor                     checks the rest")

"""`sandbox`: runs a local Content Lake and a local Clerk, to try queries and settings without accounts."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path  # noqa: TC003 - typer evaluates the annotation
from typing import Annotated

import typer

from sync_worker import REPOSITORY
from sync_worker.cli.env_file import refuse_existing, write_env_file
from sync_worker.cli.output import CommandFailed, echo


def sandbox(
    sanity_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of the Content Lake; 0 for a free one.")
    ] = 3333,
    clerk_port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the Clerk API; 0 for a free one.")] = 3334,
    worker_url: Annotated[str, typer.Option(help="Address of the worker, for webhooks.")] = "http://127.0.0.1:8000",
    env_file: Annotated[
        Path | None, typer.Option(help="Write the settings to this file instead of stdout. It must not exist yet.")
    ] = None,
) -> None:
    """Run a local Content Lake and a local Clerk with sample content, and print the settings for the worker.

    Example: sync-worker sandbox --env-file .env   (then `sync-worker serve` in another terminal)
    """
    from sync_worker.sandbox.node import SandboxUnavailable

    if env_file is not None:
        refuse_existing(env_file)
    try:
        asyncio.run(_run(sanity_port, clerk_port, worker_url, env_file))
    except SandboxUnavailable as error:
        raise CommandFailed(str(error)) from error


async def _run(sanity_port: int, clerk_port: int, worker_url: str, env_file: Path | None) -> None:
    from sync_worker.cli.processes import install_hook, settings_for
    from sync_worker.sandbox.sample import load_sample
    from sync_worker.sandbox.server import Sandbox

    async with Sandbox(sanity_port=sanity_port, clerk_port=clerk_port) as box:
        stopped = asyncio.Event()
        for name in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(name, stopped.set)
        await load_sample(box)
        install_hook(box, worker_url)
        settings = settings_for(box, "sqlite:///sandbox.db")
        if env_file is None:
            for variable, value in settings.items():
                echo(f"{variable}={value}")
        else:
            write_env_file(env_file, settings)
            echo(f"Wrote {env_file}.", err=True)
        echo(f"To check the setup, run: SANITY_MANAGE_TOKEN={box.lake.token} sync-worker doctor", err=True)
        echo(f"The sandbox runs until Ctrl-C. Requests to try: {REPOSITORY}#quick-start", err=True)
        await stopped.wait()

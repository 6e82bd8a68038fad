"""`sandbox`: a local Content Lake and a local Clerk, to try queries and settings before touching production."""

from __future__ import annotations

import asyncio
import signal
from typing import Annotated

import typer


def sandbox(
    sanity_port: Annotated[int, typer.Option(help="Port of the Content Lake; 0 for a free one.")] = 3333,
    clerk_port: Annotated[int, typer.Option(help="Port of the Clerk API; 0 for a free one.")] = 3334,
    webhook_url: Annotated[str, typer.Option(help="Where webhooks go.")] = "http://127.0.0.1:8000/webhooks/sanity",
    webhook_secret: Annotated[str, typer.Option(help="What signs them.")] = "sandbox-webhook-secret",
) -> None:
    """Start both stand-ins with sample content, and print the settings that point the worker at them.

    Example: sync-worker sandbox > .env && sync-worker serve
    """
    asyncio.run(_run(sanity_port, clerk_port, webhook_url, webhook_secret))


async def _run(sanity_port: int, clerk_port: int, webhook_url: str, webhook_secret: str) -> None:
    from sync_worker.sandbox.sample import load_sample
    from sync_worker.sandbox.server import Sandbox
    from sync_worker.sanity import Queries
    from sync_worker.settings import packaged_groq

    stopped = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stopped.set)
    async with Sandbox(sanity_port=sanity_port, clerk_port=clerk_port) as box:
        await load_sample(box)
        queries = Queries.load(packaged_groq())
        box.lake.add_hook(
            url=webhook_url,
            secret=webhook_secret,
            filter=queries.webhook_filter,
            projection=queries.webhook_projection,
        )
        settings = {
            "SANITY_PROJECT_ID": box.lake.project_id,
            "SANITY_DATASET": box.lake.dataset,
            "SANITY_READ_TOKEN": box.lake.token,
            "SANITY_WEBHOOK_SECRET": webhook_secret,
            "SANITY_API_URL": box.sanity_url,
            "CLERK_SECRET_KEY": box.clerk.secret_key,
            "CLERK_API_URL": box.clerk_url,
        }
        typer.echo("\n".join(f"{name}={value}" for name, value in settings.items()))
        typer.echo("The sandbox runs until Ctrl-C. README.md has requests to try.", err=True)
        await stopped.wait()

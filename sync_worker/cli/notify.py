"""`notify test`: sends a test notice to NOTIFY_URL."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import typer

from sync_worker.cli.output import CommandFailed, echo
from sync_worker.cli.setup import begin

if TYPE_CHECKING:
    from sync_worker.settings import Settings

app = typer.Typer(no_args_is_help=True, help="Notices to NOTIFY_URL.", rich_markup_mode=None)


@app.command()
def test() -> None:
    """Send a test notice to NOTIFY_URL, and report whether it was accepted.

    It has a link to the status page once somebody has signed in there.

    Example: sync-worker notify test
    """
    settings = begin()
    if settings.notify_url is None:
        raise CommandFailed("NOTIFY_URL is not set, so nobody is notified; set it to the address of your receiver.")
    problem = asyncio.run(_send(settings))
    if problem:
        raise CommandFailed(f"The notice was not accepted: {problem}. Check NOTIFY_URL and the receiver.")
    echo("the test notice was accepted")


async def _send(settings: Settings) -> str:
    from sync_worker.diagnostics.situations import linked
    from sync_worker.runtime.notifier import open_notifier
    from sync_worker.runtime.wiring import Runtime, open_store
    from sync_worker.storage.notices import Notice, Situation
    from sync_worker.storage.state import PAGES_URL

    runtime = Runtime.system()
    source = settings.layout.source
    async with open_store(settings, runtime) as store:
        base = await store.queue.recall(PAGES_URL)
    text = f"Sync of {source}: this is a test. Notices arrive here."
    one = Situation("test", "test", text, 1, {"installation": source})
    notice = Notice.of(linked(one, base[0]) if base else one, runtime.clock.now())
    async with open_notifier(settings, runtime.clock, runtime.timings) as notifier:
        return await notifier.send(notice)

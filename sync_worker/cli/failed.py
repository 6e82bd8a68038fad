"""`failed`: all that needs somebody, with the reason and the next step; `failed retry` sets it going again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sync_worker.cli.output import AsJson, print_json, print_table
from sync_worker.cli.setup import begin

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sync_worker.diagnostics.issues import Trouble
    from sync_worker.runtime.wiring import Store

app = typer.Typer(invoke_without_command=True)


@app.callback()
def failed(
    ctx: typer.Context,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many to list at most.")] = 200,
    as_json: AsJson = False,
) -> None:
    """List what failed, is tried again, is refused or held, or waits for a sign-up, with reason and next step.

    Example: sync-worker failed
    """
    if ctx.invoked_subcommand is not None:
        return
    from sync_worker.diagnostics.issues import as_json as trouble_json

    troubles = asyncio.run(_read(limit))
    if as_json:
        print_json([trouble_json(one) for one in troubles])
    else:
        _show(troubles, limit)


@app.command()
def retry(
    keys: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SUBJECT]...", help="Whom to try again, or document:ID; default: all that failed."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Set failed subjects going again; a running worker tries them at once.

    Example: sync-worker failed retry user:user_2abc
    """
    told = asyncio.run(_retry(keys or []))
    if as_json:
        print_json(told)
    else:
        typer.echo(f"{told['retried']} set going again")
        for key in told["notFailed"]:
            typer.echo(f"not failed: {key}")


async def _read(limit: int) -> list[Trouble]:
    from sync_worker.diagnostics.issues import gathered
    from sync_worker.runtime.wiring import Runtime, open_store

    async with open_store(begin(), Runtime.system()) as store:
        rows = [*await store.queue.failed(limit), *await store.queue.noted(limit)]
        return gathered(rows, await store.runs.held())[:limit]


def _show(troubles: Sequence[Trouble], limit: int) -> None:
    """Print one line each, and each next step once."""
    from sync_worker.diagnostics.issues import next_step
    from sync_worker.formatting import rfc3339

    if not troubles:
        typer.echo("nothing failed, is refused, held or waits")
        return
    rows = (
        (one.sort, one.key, rfc3339(one.since) or "", one.attempts or "", f"{one.reason}{_again(one)}")
        for one in troubles
    )
    print_table(("state", "what", "since", "attempts", "reason"), rows)
    if len(troubles) == limit:
        typer.echo(f"… only the first {limit}; --limit lists more")
    typer.echo("\nWhat to do")
    for code in dict.fromkeys(one.code for one in troubles):
        typer.echo(f"  {code}: {next_step(code)}")


def _again(one: Trouble) -> str:
    from sync_worker.formatting import rfc3339

    return f" (again at {rfc3339(one.again)})" if one.attempts and one.again is not None else ""


async def _retry(texts: Sequence[str]) -> dict[str, Any]:
    from sync_worker.cli.targets import keys_of
    from sync_worker.runtime.wiring import Runtime, open_store

    settings = begin()
    async with open_store(settings, Runtime.system()) as store:
        if not texts:
            return {"retried": await store.queue.revive(), "notFailed": []}
        keys = await keys_of(settings, store, texts)
        alive = [key for key in keys if not await _failed(store, key)]
        return {"retried": await store.queue.revive(set(keys) - set(alive)), "notFailed": alive}


async def _failed(store: Store, key: str) -> bool:
    row = await store.queue.get(key)
    return row is not None and row.dead

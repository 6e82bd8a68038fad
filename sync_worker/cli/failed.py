"""`failed`: what needs attention, with the reason and the next step; `failed retry` retries it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sync_worker.cli.output import AsJson, echo, print_json
from sync_worker.cli.setup import begin
from sync_worker.cli.tables import print_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sync_worker.diagnostics.issues import Issue
    from sync_worker.runtime.wiring import Store

app = typer.Typer(invoke_without_command=True)


@app.callback()
def failed(
    ctx: typer.Context,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Maximum number of items.")] = 200,
    as_json: AsJson = False,
) -> None:
    """List what needs attention, with the next step.

    That is everything that failed, is being retried, was refused, is held or waits for a sign-up.

    Example: sync-worker failed
    """
    if ctx.invoked_subcommand is not None:
        return
    from sync_worker.diagnostics.issues import issue_json

    issues, names = asyncio.run(_read(limit, with_names=not as_json))
    if as_json:
        print_json([issue_json(one) for one in issues])
    else:
        _show(issues, names, limit)


@app.command()
def retry(
    keys: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SUBJECT]...", help="Subjects to retry, or document:ID. Default: everything that failed."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Retry what failed. A running worker picks it up at once.

    Example: sync-worker failed retry user:user_2abc
    """
    result = asyncio.run(_retry(keys or []))
    if as_json:
        print_json(result)
    else:
        echo(f"{result['retried']} queued for retry")
        for key in result["notFailed"]:
            echo(f"not failed: {key}")


async def _read(limit: int, *, with_names: bool) -> tuple[list[Issue], Mapping[str, str]]:
    from sync_worker.cli.people import names_of
    from sync_worker.diagnostics.issues import collect_issues
    from sync_worker.runtime.wiring import Runtime, open_store

    settings = begin()
    async with open_store(settings, Runtime.system()) as store:
        rows = [*await store.queue.failed(limit), *await store.queue.noted(limit)]
        issues = collect_issues(rows, await store.approvals.changesets())[:limit]
        return issues, await names_of(settings, store, [one.key for one in issues]) if with_names else {}


def _show(issues: Sequence[Issue], names: Mapping[str, str], limit: int) -> None:
    """Print one line per issue, then each next step once."""
    from sync_worker.diagnostics.issues import next_step
    from sync_worker.formatting import rfc3339

    rows = (
        (
            one.key,
            names.get(one.key),
            one.kind,
            rfc3339(one.since),
            one.attempts or "",
            f"{one.where}{_retry_time(one)}",
        )
        for one in issues
    )
    empty = "nothing failed, refused, held or waiting"
    print_table(("key", "name", "state", "since", "attempts", "reason"), rows, empty=empty)
    if not issues:
        return
    if len(issues) == limit:
        echo(f"… only the first {limit}; use --limit for more")
    echo("\nWhat to do")
    for code in dict.fromkeys(one.code for one in issues):
        echo(f"  {code}: {next_step(code)}")


def _retry_time(one: Issue) -> str:
    from sync_worker.formatting import rfc3339

    return f" (next attempt at {rfc3339(one.retry_at)})" if one.attempts and one.retry_at is not None else ""


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

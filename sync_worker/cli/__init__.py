"""The command line: one file a verb.

Why it exists: operators and platforms start everything here. stdout is data, stderr is logs, errors say what to do.
Exit codes: 0 done, 1 error, 2 drift in a dry run, 3 held by the brake.
"""

from __future__ import annotations

import sys

import typer

from sync_worker.cli import (
    approve,
    demo,
    doctor,
    explain,
    failed,
    history,
    reconcile,
    sandbox,
    serve,
    sync,
    verify,
    webhook,
)
from sync_worker.errors import SyncWorkerError

app = typer.Typer(
    name="sync-worker",
    help="Keeps access in Clerk equal to the entitlements published in Sanity.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(serve.serve)
app.command()(serve.web)
app.command()(serve.worker)
app.command()(serve.release)
app.command()(reconcile.reconcile)
app.command()(approve.approve)
app.command()(verify.verify)
app.command()(sync.sync)
app.command()(explain.explain)
app.add_typer(failed.app, name="failed")
app.command()(history.history)
app.command()(doctor.doctor)
app.add_typer(webhook.app, name="webhook")
app.command()(sandbox.sandbox)
app.command()(demo.demo)


def main() -> None:
    """Run the command line; an error of ours is two lines on stderr and exit code 1."""
    try:
        app()
    except SyncWorkerError as error:
        print(f"error: {error}\n{error.next_step()}", file=sys.stderr)  # noqa: T201 - this is the command line
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told without what it may hold
        from sync_worker.logs import log_crash

        log_crash(error)
        sys.exit(1)

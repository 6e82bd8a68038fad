"""The command line: one file per command. stdout is data, stderr is logs, and an error says what to do.

Exit codes: 0 done, 1 error, 2 drift in a dry run or findings, 3 losses held for approval, 130 interrupted.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from sync_worker import __version__
from sync_worker.cli import (
    approve,
    claims,
    demo,
    doctor,
    explain,
    failed,
    history,
    import_csv,
    init,
    notify,
    reconcile,
    report,
    sandbox,
    serve,
    sync,
    verify,
    webhook,
)
from sync_worker.cli.output import CommandFailed, echo
from sync_worker.errors import SyncWorkerError

INTERRUPTED = 130
"""What typer exits with after Ctrl-C."""

app = typer.Typer(
    name="sync-worker",
    help="Keeps access in Clerk equal to the entitlements published in Sanity.",
    epilog="Begin with `sync-worker demo`, which needs no account. `sync-worker --install-completion` completes "
    "commands and options with Tab.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(init.init)
app.command()(serve.serve)
app.command()(serve.web)
app.command()(serve.worker)
app.command()(serve.release)
app.command()(reconcile.reconcile)
app.command()(approve.approve)
app.command()(verify.verify)
app.command()(sync.sync)
app.command()(explain.explain)
app.add_typer(claims.app, name="claims")
app.add_typer(failed.app, name="failed")
app.command()(history.history)
app.command()(report.report)
app.command("import")(import_csv.import_csv)
app.command()(doctor.doctor)
app.add_typer(webhook.app, name="webhook")
app.add_typer(notify.app, name="notify")
app.command()(sandbox.sandbox)
app.command()(demo.demo)


def _print_version(wanted: bool) -> None:
    if wanted:
        echo(f"sync-worker {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    _: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version, and end.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line. An error is one or two lines on stderr, and exit code 1. Raises KeyboardInterrupt."""
    try:
        app(prog_name="sync-worker")
    except SystemExit as ended:
        if ended.code == INTERRUPTED:  # typer turns Ctrl-C into this
            raise KeyboardInterrupt from None
        raise
    except SyncWorkerError as error:
        echo(f"error: {error}\n{error.next_step()}", err=True)
        sys.exit(1)
    except CommandFailed as error:
        echo(f"error: {error}", err=True)
        sys.exit(1)
    except Exception as error:  # noqa: BLE001 - a library's text may quote secrets, so it is logged cleaned
        from sync_worker.logs import log_crash

        log_crash(error)
        sys.exit(1)

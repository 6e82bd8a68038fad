"""`serve`, `web` and `worker`: the long-running processes. `release`: the step before a deploy."""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
from typing import TYPE_CHECKING, Annotated

import typer

from sync_worker.cli.output import CommandFailed, echo
from sync_worker.cli.setup import begin
from sync_worker.errors import GroqInvalid, RetryableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import FrameType

    from sync_worker.runtime.wiring import Runtime
    from sync_worker.settings import Settings
    from sync_worker.storage.installation import InstallationRecord

Host = Annotated[str, typer.Option(help="Address to listen on; use 0.0.0.0 in a container.")]
Port = Annotated[int | None, typer.Option(min=0, max=65535, help="Port to listen on. Default: PORT, or 8000.")]

LOOPBACK = ("127.0.0.1", "::1")
BACKLOG = 2048
"""The maximum of connections that wait to be accepted."""


def serve(host: Host = "127.0.0.1", port: Port = None) -> None:
    """Receive webhooks and run the worker, in one process. The usual choice on one machine.

    Example: sync-worker serve --port 8000
    """
    _listen(host, port, with_worker=True)


def web(host: Host = "127.0.0.1", port: Port = None) -> None:
    """Receive webhooks only; a `worker` process on the same database does the work.

    Example: sync-worker web --host 0.0.0.0
    """
    _listen(host, port, with_worker=False)


def worker() -> None:
    """Run a worker only. Any number of workers can share one PostgreSQL database.

    Example: sync-worker worker
    """
    asyncio.run(_work(begin()))


def release() -> None:
    """Migrate the database, record the settings in it, and check the GROQ files.

    Run it before each deploy, with the settings that all processes have: a process with others refuses to write. It
    reads one page of entitlements, and writes only the tables.

    Example: sync-worker release
    """
    from sync_worker.runtime.wiring import Runtime

    settings, runtime = begin(), Runtime.system()
    asyncio.run(_release(settings, runtime))
    echo("database, settings and GROQ files are ready")


async def _prepare(
    settings: Settings, runtime: Runtime, admit: Callable[[InstallationRecord], Awaitable[None]]
) -> None:
    """Raise what would prevent the process from starting, before it opens its port.

    `admit` records the settings, or raises if others are recorded.
    """
    from sync_worker.runtime.wiring import installation_of, open_store
    from sync_worker.sanity.client import Queries

    Queries.load(settings.groq_folder)
    async with open_store(settings, runtime) as store:
        await admit(installation_of(settings, store))


async def _release(settings: Settings, runtime: Runtime) -> None:
    from sync_worker.formatting import rfc3339
    from sync_worker.runtime.wiring import installation_of, open_services, open_store
    from sync_worker.sanity.client import Queries
    from sync_worker.sanity.groq_checks import check_groq_files

    folder, now = settings.groq_folder, rfc3339(runtime.clock.now()) or ""

    async with open_store(settings, runtime) as store, open_services(settings, store, dry_run=True) as services:
        known = {}
        try:
            report = await check_groq_files(services.source, Queries.load(folder), folder, settings.layout.fields, now)
            if problems := report.problems_with(settings.events):
                raise GroqInvalid("; ".join(f"{one.text} ({one.fix})" for one in problems))
            for one in report.warnings:
                echo(f"warning: {one.text} ({one.fix})", err=True)
            known["CLERK_SECRET_KEY"] = await services.target.instance()
        except RetryableError as error:  # a service that is briefly down must not stop a deploy
            echo(f"warning: not everything was checked: {error}", err=True)
        await installation_of(settings, store).record(**known)


def _listen(host: str, port: int | None, *, with_worker: bool) -> None:
    import structlog
    import uvicorn

    from sync_worker.runtime.wiring import Runtime
    from sync_worker.storage.installation import InstallationRecord
    from sync_worker.web.app import create_app
    from sync_worker.web.protocol import bounded

    settings, runtime = begin(), Runtime.system()
    # The start of `serve` on SQLite is a release, because it has its database to itself.
    is_release = with_worker and settings.is_sqlite
    asyncio.run(_prepare(settings, runtime, InstallationRecord.record if is_release else InstallationRecord.ensure))
    chosen = settings.port if port is None else port
    app = create_app(settings, runtime, with_worker=with_worker)

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            """Stop the worker at once, not after the last request. A requested stop exits with 0."""
            del frame
            app.state.stop()
            self.force_exit = app.state.forced = self.should_exit and sig == signal.SIGINT
            self.should_exit = True

    config = uvicorn.Config(
        app,
        http=bounded(runtime.timings),
        log_config=None,
        access_log=False,
        server_header=False,
        forwarded_allow_ips=list(settings.trusted_proxies or LOOPBACK),
        timeout_graceful_shutdown=int(runtime.timings.request_drain),
    )
    server = Server(config)
    listeners = _open_port(host, chosen)
    log = structlog.get_logger("cli")
    log.info(
        "listening",
        url=_url(host, listeners[0]),
        worker=with_worker,
        project=settings.sanity_project_id,
        dataset=settings.sanity_dataset,
    )
    try:
        server.run(listeners)
    except SystemExit:  # uvicorn exits like this when it cannot start
        raise typer.Exit(1) from None
    if app.state.broken or not server.started:
        raise typer.Exit(1)


def _open_port(host: str, port: int) -> list[socket.socket]:
    """Open the listening sockets. Raises CommandFailed."""
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        return [socket.create_server(address, family=family, backlog=BACKLOG) for family, *_, address in found]
    except (OSError, ValueError) as error:
        if getattr(error, "errno", None) == errno.EADDRINUSE:
            raise CommandFailed(
                f"port {port} is taken: stop the program that listens on {host}:{port}, or choose another one with "
                "--port or PORT"
            ) from error
        reason = str(getattr(error, "strerror", None) or error).partition(" (")[0]
        raise CommandFailed(f"cannot listen on {host}:{port}: {reason}; choose another --host or --port") from error


def _url(host: str, listener: socket.socket) -> str:
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{listener.getsockname()[1]}"


async def _work(settings: Settings) -> None:
    from sync_worker.runtime.service import running_worker
    from sync_worker.runtime.wiring import Runtime, open_store

    stopped = asyncio.Event()
    failed = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stopped.set)
    async with (
        open_store(settings, Runtime.system(), watch=True) as store,
        running_worker(settings, store, failed.set, nightly=settings.reconcile_at.replace("off", "")),
    ):
        await stopped.wait()
    if failed.is_set():
        raise typer.Exit(1)

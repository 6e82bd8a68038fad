"""Runs both services on 127.0.0.1, inside the running event loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from random import Random
from typing import TYPE_CHECKING, Any, Self

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from sync_worker.sandbox import (
    clerk_http,
    clerk_routes,
    control,
    control_changes,
    history_routes,
    hooks_api,
    lake_routes,
    listen_routes,
)
from sync_worker.sandbox.clerk import ClerkApi
from sync_worker.sandbox.content_lake import ContentLake
from sync_worker.sandbox.faults import FaultyService
from sync_worker.sandbox.node import SandboxUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from starlette.types import ASGIApp

    from sync_worker.sandbox.limits import Limits

HOST = "127.0.0.1"
BACKLOG = 2048


class Protocol(HttpToolsProtocol):
    """uvicorn's protocol that also puts the connection into the scope, so that a fault can break it."""

    def connection_made(self, transport: Any) -> None:
        """Put the connection into the scope of its requests."""
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}


class Server(uvicorn.Server):
    """uvicorn's server on a socket that is bound already, without signal handlers, and quick to stop."""

    def __init__(self, app: ASGIApp, port: int) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=Protocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=1,
            )
        )
        # asyncio sets TCP_NODELAY only if the protocol is given; without it, each body is delayed by 40 ms.
        self._listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._listener.bind((HOST, port))
        except (OSError, OverflowError) as error:
            self.close()
            raise SandboxUnavailable(
                f"port {port} cannot be used ({getattr(error, 'strerror', error)}): stop the program that uses it, or "
                "choose another one with --sanity-port and --clerk-port"
            ) from error
        self._listener.listen(BACKLOG)
        self._stopping = asyncio.Event()
        self.url = f"http://{HOST}:{self._listener.getsockname()[1]}"

    async def run_until_stopped(self) -> None:
        """Serve until `stop`."""
        await self.serve(sockets=[self._listener])

    def close(self) -> None:
        """Release the port of a server that never ran."""
        self._listener.close()

    def stop(self) -> None:
        """Start to shut down."""
        self.should_exit = True
        self._stopping.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the owner of the event loop."""
        yield

    async def main_loop(self) -> None:
        """Refresh the Date header every second until `stop`."""
        while not self._stopping.is_set():
            await self.on_tick(0)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), 1)


class Sandbox:
    """A Content Lake and a Clerk instance. Use it as an async context manager.

    `lake` and `clerk` are the services; `sanity_url` and `clerk_url` are their addresses. Without `clerk_limits` there
    are no rate limits; `Limits.of_key(key)` are the real ones. Port 0 picks a free port. Entering it raises
    SandboxUnavailable if it cannot start.
    """

    def __init__(
        self,
        project_id: str = "sandbox",
        dataset: str = "production",
        sanity_token: str = "sk-sandbox",  # noqa: S107  a key of the sandbox, not a secret
        clerk_secret_key: str = "sk_test_sandbox",  # noqa: S107  as above
        clerk_limits: Limits | None = None,
        *,
        sanity_port: int = 0,
        clerk_port: int = 0,
        public: bool = False,
        seed: int = 0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._seed = seed
        self._random = random = Random(seed)
        self.lake = ContentLake(project_id, dataset, sanity_token, public=public, clock=clock, random=random)
        self.clerk = ClerkApi(clerk_secret_key, limits=clerk_limits, clock=clock, random=random)
        self.sanity_url = ""
        self.clerk_url = ""
        self._ports = sanity_port, clerk_port
        self._servers: tuple[Server, ...] = ()
        self._running: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        sanity_port, clerk_port = self._ports
        with contextlib.ExitStack() as opened:
            sanity = opened.enter_context(contextlib.closing(Server(self._sanity_app(), sanity_port)))
            clerk = opened.enter_context(contextlib.closing(Server(self._clerk_app(), clerk_port)))
            await self.lake.__aenter__()
            opened.pop_all()
        self._servers = sanity, clerk
        self.sanity_url, self.clerk_url = sanity.url, clerk.url
        self._running = [asyncio.create_task(server.run_until_stopped()) for server in self._servers]
        return self

    async def __aexit__(self, *_: object) -> None:
        # Release held requests first, or the servers would wait for them.
        self.lake.faults.clear()
        self.clerk.faults.clear()
        self.lake.listeners.reset()
        for server in self._servers:
            server.stop()
        await asyncio.gather(*self._running)
        await self.clerk.webhooks.close()
        await self.lake.__aexit__()

    async def reset(self) -> None:
        """Restore the initial state of both services: empty, without faults, with their first settings."""
        self._random.seed(self._seed)
        self.clerk.faults.clear()  # held requests must apply to the old state
        await self.lake.reset()
        await self.clerk.reset()

    def _sanity_app(self) -> ASGIApp:
        modules = (lake_routes, listen_routes, history_routes, hooks_api, control_changes)
        routes = [route for module in modules for route in module.routes(self.lake)] + control.lake_routes(self.lake)
        app = Starlette(routes=routes, exception_handlers=lake_routes.ERROR_HANDLERS)
        return FaultyService(app, self.lake.faults, self.lake.requests)

    def _clerk_app(self) -> ASGIApp:
        routes = [*clerk_routes.routes(self.clerk), *control.clerk_routes(self.clerk)]
        app = Starlette(routes=routes, exception_handlers=clerk_http.ERROR_HANDLERS)
        return FaultyService(app, self.clerk.faults, self.clerk.requests)

"""The world of one seed: both services, the network, the database, and the processes of the worker in between.

Why it exists: one random seed decides everything that happens, so that whatever goes wrong can be seen again. It knows
the parts and the time; what happens is `steps`, what must hold is `watch`, what must be true in the end is `rest`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

from sync_worker.sandbox import clerk_errors
from sync_worker.sandbox.limits import Limits
from tests.sim.clerk import Instance, key_of
from tests.sim.clock import Clock
from tests.sim.disk import Disk
from tests.sim.hooks import Hooks
from tests.sim.lake import Lake
from tests.sim.machine import Process, Server
from tests.sim.network import Reply, Weather
from tests.sim.truth import MARKER, History
from tests.sim.watch import Watch

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    import httpx


@dataclass(frozen=True)
class Config:
    """What a seed chooses once: sizes, and which kinds of trouble there are at all."""

    seed: int
    budget: int = 90
    poll_seconds: int = 0
    max_revocations: str = "1000"
    real_clients: bool = False
    servers: int = 2
    jumps: bool = False
    short_pages: float = 0.0
    webhooks: dict[str, float] = field(default_factory=dict)
    without: frozenset[str] = frozenset()


class World:
    """Make it inside the virtual loop."""

    def __init__(self, config: Config, loop: asyncio.AbstractEventLoop) -> None:
        self.config = config
        self.loop = loop
        self.random = Random(config.seed)
        self.clock = Clock(loop)
        self.disk = Disk(self.clock.wall, self.random)
        self.lake = Lake(self.clock.now, self.random, config.short_pages)
        self.clerk = Instance(self.clock.now, self.random, Limits(instance=100, subject=10))
        self.history = History(self.lake)
        self.weather = Weather()
        self.watch = Watch(self)
        self.hooks = Hooks(self)
        self.servers: list[Server] = []
        self.errands: dict[Process, asyncio.Task[Any]] = {}
        self.foreign: dict[str, dict[str, dict[str, Any]]] = {}
        self.touched: set[str] = set()
        self.trace: list[str] = []
        self._names = 0
        self.lake.told.append(self.hooks.publish)

    @property
    def polls(self) -> bool:
        """Whether the poll makes up for lost webhooks: it goes by a clock that must not jump."""
        return bool(self.config.poll_seconds) and not self.config.jumps

    def note(self, text: str) -> None:
        """Write a line of the trace."""
        self.trace.append(f"{self.loop.time():9.2f}  {text}")

    def serve(self, service: str, request: httpx.Request, *, heard: bool) -> Reply:
        """Let a service answer a request of the worker."""
        if service == "sanity":
            return self.lake.serve(request)
        reply = self.clerk.serve(request)
        if request.method == "PATCH" and reply.status == 200:
            self.watch.applied(key_of(request.url.path), heard=heard)
        return reply

    def busy(self, service: str) -> Reply:
        """Return an answer that asks to come again."""
        error = clerk_errors.too_many_requests(self.random.choice((1, 3, 8)))
        if service == "clerk" and self.random.random() < 0.5:
            error = clerk_errors.locked()
        return Reply.json(error.status, error.body(), retry_after=error.retry_after)

    async def start_server(self, *, takes_webhooks: bool = True) -> Server:
        """Start another process."""
        server = Server(self, self._name("server"), takes_webhooks=takes_webhooks)
        self.servers.append(server)
        await server.start()
        return server

    async def kill_server(self, server: Server) -> None:
        self.servers.remove(server)
        await server.kill()

    async def run_errand(self, name: str, work: Callable[[Process], Awaitable[Any]]) -> Process:
        """Start a process that does one thing beside the servers, as a command line does."""
        process = Process(self, self._name(name))
        await process.start()

        async def run() -> None:
            await work(process)
            await process.session.close()

        task = process.spawn(run())
        self.errands[process] = task
        task.add_done_callback(lambda _: self.errands.pop(process, None))
        return process

    def adopt(self, key: str) -> None:
        """Take note of a subject that is new in Clerk, with whatever metadata it has."""
        record = self.clerk.record(key)
        assert record is not None
        self.foreign[key] = {"public": {}, "private": {}}
        assert MARKER not in record["private_metadata"]

    def _name(self, kind: str) -> str:
        self._names += 1
        return f"{kind}-{self._names}"

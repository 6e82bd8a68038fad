"""The world of one seed: both services, the network, the database and the worker's processes.

One random seed decides everything that happens, so that whatever goes wrong can be seen again. It knows
the parts and the time; what happens is `steps`, what must hold is `watch`, what must be true in the end is `rest`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

from sync_worker.sandbox import clerk_errors
from sync_worker.sandbox.limits import Limits
from tests.sim.clerk import Instance, key_of
from tests.sim.clock import Clock
from tests.sim.disk import Disk
from tests.sim.hooks import ClerkHooks, Hooks
from tests.sim.lake import Lake
from tests.sim.machine import Process, Server
from tests.sim.network import Reply, Weather
from tests.sim.ownership import Ownership
from tests.sim.stream import Stream
from tests.sim.truth import History, keys_of, names_of
from tests.sim.watch import Watch

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Iterable

    import httpx

    from tests.sim.truth import Directory


DAY = 86_400.0


@dataclass(frozen=True)
class Config:
    """What a seed chooses once: sizes, and which kinds of trouble there are at all."""

    seed: int
    budget: int = 90
    poll_seconds: int = 0
    events: str = "webhook"
    log_kept: float = 3 * DAY
    full_check: float = 120.0
    max_revocations: str = "1000"
    real_clients: bool = False
    servers: int = 2
    jumps: bool = False
    one_machine: bool = True
    clerk_reports: bool = True
    short_pages: float = 0.0
    webhooks: dict[str, float] = field(default_factory=dict)
    without: frozenset[str] = frozenset()

    @property
    def awaits_poll(self) -> bool:
        """Whether each quiet while is long enough for the poll, which then has to have found whatever was lost."""
        return self.events != "webhook" or self.log_kept < DAY


class World:
    """Make it inside the virtual loop."""

    def __init__(self, config: Config, loop: asyncio.AbstractEventLoop) -> None:
        self.config = config
        self.loop = loop
        self.random = Random(config.seed)
        self.clock = Clock(loop)
        self.disk = Disk(self.clock.now, self.random)
        self.lake = Lake(self.clock.true_time, self.random, config.short_pages, config.log_kept)
        self.clerk = Instance(self.clock.true_time, self.random, Limits(instance=100, subject=10))
        self.history = History(self.lake)
        self.weather = Weather()
        self.watch = Watch(self)
        self.hooks = Hooks(self)
        self.stream = Stream(self)
        self.servers: list[Server] = []
        self.commands: dict[Process, asyncio.Task[Any]] = {}
        self.ownership = Ownership(self)
        self.unmanaged: dict[str, dict[str, dict[str, Any]]] = {}
        self.namespace: str | None = None
        self.released = 0
        self.directory: Directory = {}
        self.is_harmless = False
        self.trace: list[str] = []
        self.dead: set[str] = set()
        self._names = 0
        self.lake.reported.append(self.hooks.publish)
        if config.events != "webhook":
            self.lake.reported.append(self.stream.publish)

    @property
    def polls(self) -> bool:
        """Whether the poll makes up for lost webhooks: it goes by a clock that must not jump."""
        return bool(self.config.poll_seconds) and not self.config.jumps

    def note(self, text: str) -> None:
        """Write a line of the trace."""
        self.trace.append(f"{self.loop.time():9.2f}  {text}")

    def serve(self, service: str, request: httpx.Request) -> Reply:
        """Let a service answer a request of the worker."""
        if service == "sanity":
            return self.lake.serve(request)
        self.is_harmless = request.method == "PATCH"
        reply = self.clerk.serve(request)
        if self.is_harmless and reply.status == 200:
            key = key_of(request.url.path)
            self.ownership.applied(key, json.loads(request.content))
            self.watch.reasons.losses.applied(key)
            self.watch.applied(key)
        self.is_harmless = False
        return reply

    def names_of(self, key: str) -> set[str]:
        """Return the names by which rows count for a subject now."""
        return names_of(key, self.directory)

    def keys_of(self, names: Iterable[str]) -> frozenset[str]:
        """Return whom these names mean now."""
        return frozenset(key for name in names for key in keys_of(name, self.directory))

    def moved_in_clerk(self) -> frozenset[str]:
        """Take note of who has which address now; return whose access may be another one for it."""
        before, self.directory = self.directory, self.clerk.directory()
        changed = {a for a in before.keys() | self.directory.keys() if before.get(a) != self.directory.get(a)}
        if not changed:
            return frozenset()
        self.watch.addresses_moved(self.directory)
        users = {user for address in changed for side in (before, self.directory) for user in side.get(address, ())}
        return frozenset(key for key in self.clerk.records() if key.partition(":")[2].rpartition("/")[2] in users)

    def busy(self, service: str) -> Reply:
        """Return an answer that asks to come again."""
        error = clerk_errors.too_many_requests(self.random.choice((1, 3, 8)))
        if service == "clerk" and self.random.random() < 0.5:
            error = clerk_errors.locked()
        return Reply.json(error.status, error.body(), retry_after=error.retry_after)

    def open_clerk(self) -> None:
        """Let Clerk report its changes from now on."""
        self.clerk.report_to(ClerkHooks(self))
        self.moved_in_clerk()

    async def start_server(self, *, takes_webhooks: bool = True) -> Server:
        """Start another process."""
        server = Server(self, self._name("server"), takes_webhooks=takes_webhooks)
        self.servers.append(server)
        await server.start()
        return server

    async def replace_servers(self) -> None:
        """Stop the servers that still run under settings that were replaced, as the end of a deployment does."""
        for server in [one for one in self.servers if one.namespace != self.namespace]:
            self.servers.remove(server)
            await server.stop()

    async def kill_server(self, server: Server) -> None:
        self.servers.remove(server)
        await server.kill()

    async def run_command(self, name: str, work: Callable[[Process], Awaitable[Any]]) -> Process:
        """Start a process that does one thing beside the servers, as a command line does."""
        process = Process(self, self._name(name))
        await process.start()

        async def run() -> None:
            await work(process)
            await process.session.close()

        task = process.spawn(run())
        self.commands[process] = task
        task.add_done_callback(lambda _: self.commands.pop(process, None))
        return process

    def is_gone(self, name: str) -> bool:
        """Return whether a process is known to live no more: nobody knows that of another machine's."""
        return self.config.one_machine and name in self.dead

    def _name(self, kind: str) -> str:
        self._names += 1
        return f"{kind}-{self._names}"

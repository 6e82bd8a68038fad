"""One process of the worker: the real parts, wired as in production, on the simulated clock, disk and network.

A process can be killed at any moment. A kill stops all its tasks at once without cleanup: whatever they still try does
not reach the database or the network.
"""

from __future__ import annotations

import asyncio
import contextvars
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Any, cast

from sync_worker.clerk import client as clerk
from sync_worker.domain.changeset import LossLimit
from sync_worker.domain.entitlements import CORE_FIELDS, Field, Layout
from sync_worker.runtime.periodic import every
from sync_worker.sanity import client as sanity
from sync_worker.sanity.row_checks import refuse_wrong_shape
from sync_worker.storage.access_index import AccessIndex
from sync_worker.storage.approvals import Approvals
from sync_worker.storage.installation import InstallationRecord
from sync_worker.storage.ledger import Ledger
from sync_worker.storage.liveness import Liveness
from sync_worker.storage.queue import WorkQueue
from sync_worker.storage.rate_limit import Budget
from sync_worker.storage.reconcile_runs import ReconcileRuns
from sync_worker.sync.guard import Guard
from sync_worker.sync.reconciler import Reconciler
from sync_worker.transport import ServiceTransport
from sync_worker.triggers.listen import Listener
from sync_worker.triggers.poll import Poll
from sync_worker.webhooks.receiver import Receiver
from sync_worker.worker.empty_dataset import RecordingSource, requeue_after_empty_read
from sync_worker.worker.full_reconcile import FullReconcile
from sync_worker.worker.jobs import Jobs
from sync_worker.worker.loop import Worker
from tests.clock import TIMINGS
from tests.sim.clerk import KEY
from tests.sim.disk import Session
from tests.sim.lake import QUERIES, TOKEN
from tests.sim.network import SimTransport
from tests.sim.quick import QuickClerk, client_of
from tests.sim.stream import Connection
from tests.sim.truth import ORDERS, SOURCE

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from sync_worker.sanity.listen import Listen
    from sync_worker.storage.work_items import Claim, WorkItem
    from tests.sim.lake import Read
    from tests.sim.world import World

SECRET = "sandbox-webhook-secret"
CLERK_SECRET = "whsec_c2FuZGJveC1zYW5kYm94LXNhbmRib3g="
VERSION = "2025-02-19"
CLERK_URL, SANITY_URL = "https://clerk.test", "https://sandbox.sanity.test"
FIELDS = tuple(Field(f.name, f.rule, order=ORDERS.get(f.name, ())) for f in CORE_FIELDS)

running: contextvars.ContextVar[Process | None] = contextvars.ContextVar("running", default=None)


def owned_task(loop: asyncio.AbstractEventLoop, coroutine: Any, **given: Any) -> asyncio.Task[Any]:
    """Make a task that belongs to the process that runs now: the task factory of the loop."""
    task = asyncio.Task(coroutine, loop=loop, **given)
    context = given.get("context")
    process = context.get(running) if context is not None else running.get()
    if process is not None:
        process.tasks[task] = None
        task.add_done_callback(process.forget)
    return task


class Process:
    """One process of `sync-worker`, with the settings of the last release. While an operator has it apply what is
    approved, it `may_take` as much as there is.
    """

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.alive = True
        self.namespace = world.namespace
        self.layout = Layout(FIELDS, self.namespace, source=SOURCE)
        self.may_take = False
        self.tasks: dict[asyncio.Task[Any], None] = {}
        self.reads: list[tuple[int, Read]] = []
        self.session = Session(world.disk, self)
        self.queue = WatchedWorkQueue(self)
        self.installation = InstallationRecord(self.session, {"METADATA_NAMESPACE": self.namespace or ""})
        self.ledger = Ledger(self.session)
        self.runs = ReconcileRuns(self.session, TIMINGS)
        self.approvals = Approvals(self.session, TIMINGS)
        self.access = AccessIndex(self.session)
        limit = LossLimit(world.config.max_revocations)
        self.guard = Guard(self.approvals, self.runs, limit, FIELDS, world.clock)
        self.budget = Budget(self.session, "clerk", world.config.budget, world.clock, TIMINGS)
        self.source, self.target = self._services()
        self.receiver = Receiver(
            self.queue,
            self.layout,
            "sandbox",
            "production",
            Liveness(self.queue, world.clock, TIMINGS),
            world.clock,
            TIMINGS,
            [SECRET],
            [CLERK_SECRET],
        )

    def _services(self) -> tuple[sanity.Sanity, clerk.Clerk]:
        """Open both services as `open_services` does; most seeds without what httpx and the SDK cost."""
        to_sanity = ServiceTransport(
            "Sanity",
            SimTransport(self, "sanity"),
            {"Authorization": f"Bearer {TOKEN}"},
            sanity.error_from_response,
            self.world.clock,
            TIMINGS,
            is_read=sanity.reads_only,
        )
        to_clerk = ServiceTransport(
            "Clerk",
            SimTransport(self, "clerk"),
            {"Authorization": f"Bearer {KEY}", "Clerk-API-Version": clerk.API_VERSION},
            clerk.error_from_response,
            self.world.clock,
            TIMINGS,
            budget=self.budget,
        )
        if self.world.config.real_clients:
            source, _ = sanity.open_sanity(to_sanity, QUERIES, url=SANITY_URL, version=VERSION, dataset="production")
            return source, clerk.open_clerk(to_clerk, url=CLERK_URL)[0]
        return (
            sanity.Sanity(client_of(to_sanity), QUERIES, base=f"{SANITY_URL}/v{VERSION}", dataset="production"),
            QuickClerk(client_of(to_clerk), f"{CLERK_URL}/v1"),
        )

    def must_live(self) -> None:
        """Let a dead process go no further."""
        if not self.alive:
            raise asyncio.CancelledError

    def forget(self, task: asyncio.Task[Any]) -> None:
        del self.tasks[task]

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run something in this process."""
        context = contextvars.copy_context()
        context.run(running.set, self)
        return self.world.loop.create_task(work, context=context)

    async def start(self) -> None:
        await self.session.start()

    async def kill(self) -> None:
        """End as by SIGKILL: nothing is completed, nothing is released."""
        self.alive = False
        self.world.dead.add(self.name)
        await self.session.close()
        while self.tasks:
            for task in list(self.tasks):
                task.cancel()
            await asyncio.sleep(0)

    def reconciler(self) -> Reconciler:
        source = RecordingSource(self.source, self.queue, TIMINGS)
        clock = self.world.clock
        return Reconciler(
            source,
            self.target,
            self.ledger,
            self.queue,
            self.access,
            self.installation,
            self.guard,
            self.layout,
            clock,
            TIMINGS,
        )

    async def check_projection(self) -> None:
        """Do what the worker does before it claims anything."""
        await self.installation.ensure()
        page = await self.source.everything("")
        refuse_wrong_shape(page.rows, self.layout.fields)

    def reconciliation(self, **given: Any) -> FullReconcile:
        """Return a reconcile, as `open_reconcile` makes it."""
        return FullReconcile(
            self.reconciler(),
            self.queue,
            self.runs,
            self.world.clock,
            TIMINGS,
            random=Random(0),
            **given,
        )


class Server(Process):
    """A process that works: `serve`, or `worker` when `takes_webhooks` is off."""

    def __init__(self, world: World, name: str, *, takes_webhooks: bool) -> None:
        super().__init__(world, name)
        self.takes_webhooks = takes_webhooks
        jobs = Jobs(
            self.queue,
            self.reconciler(),
            world.clock,
            TIMINGS,
            Random(world.random.random()),
        )
        self.worker = Worker(
            self.session,
            self.queue,
            jobs,
            self.budget,
            self.check_projection,
            world.clock,
            TIMINGS,
            name=name,
        )
        self._timers: list[asyncio.Task[Any]] = []
        self._work: asyncio.Task[Any] | None = None

    async def start(self) -> None:
        await super().start()
        self._work = self.spawn(self.worker.run())
        self._timers = [
            self.spawn(every(self.world.config.poll_seconds, "poll", self._poll, self.world.clock)),
            self.spawn(every(TIMINGS.empty_dataset_interval, "emptiness", self._look_again, self.world.clock)),
        ]
        if self.world.config.events != "webhook":
            self._timers.append(self.spawn(self._listen()))

    async def stop(self) -> None:
        """End as by SIGTERM."""
        self.takes_webhooks = False
        for timer in self._timers:
            timer.cancel()
        self.worker.stop()
        if self._work is not None:
            await asyncio.wait({self._work})
        await self.kill()

    async def _poll(self) -> None:
        await self._new_poll().run()

    async def _listen(self) -> None:
        listen, catch_up = cast("Listen", Connection(self)), self._new_poll().catch_up
        random = Random(f"{self.world.config.seed} {self.name} listens")
        await Listener(listen, self.session, self.queue, catch_up, self.world.clock, TIMINGS, random).run()

    def _new_poll(self) -> Poll:
        config, timings = self.world.config, replace(TIMINGS, log_retention=self.world.config.log_kept)
        return Poll(
            self.source, self.queue, self.access, self.layout.fields, self.world.clock, timings, config.full_check
        )

    async def _look_again(self) -> None:
        await requeue_after_empty_read(self.source, self.queue)


class WatchedWorkQueue(WorkQueue):
    """The work queue, which reports to the watch what was claimed."""

    def __init__(self, process: Process) -> None:
        super().__init__(process.session, TIMINGS)
        self._process = process

    async def claim(self, lane: int, limit: int, lease: float) -> list[Claim]:
        return self._tell(self._begin(), await super().claim(lane, limit, lease))

    async def claim_lookups(self, lane: int, limit: int, lease: float) -> list[Claim]:
        return self._tell(self._begin(), await super().claim_lookups(lane, limit, lease))

    async def enqueue_and_claim(self, items: Sequence[WorkItem], lease: float) -> list[Claim]:
        return self._tell(self._begin(), await super().enqueue_and_claim(items, lease))

    def _begin(self) -> int:
        """Return the moment before a claim: others may run between its transaction and its end."""
        watch = self._process.world.watch
        watch.order += 1
        return watch.order

    def _tell(self, begun: int, claims: list[Claim]) -> list[Claim]:
        if claims:
            self._process.world.watch.claimed(self._process, claims, begun)
        return claims

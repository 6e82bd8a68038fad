"""Sanity's webhooks on their way: signed, delayed, out of order, twice, again after a failure, or never.

Why it exists: a webhook is the only way in which the worker hears of a change soon. What was delivered, and what was
lost for good, is told to the watch: the one must have its effect, the other excuses a difference.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.requests import Request

from sync_worker.sandbox.webhooks import sign
from tests.sim import groq
from tests.sim.machine import SECRET, Server
from tests.sim.truth import subject_of

if TYPE_CHECKING:
    from sync_worker.sandbox.documents import Change, Transaction
    from tests.sim.world import World

PATIENCE = 1800.0
"""Seconds for which Sanity repeats a delivery."""
TIMEOUT = 30.0


@dataclass(frozen=True)
class Delivery:
    """One webhook about one document in one transaction, which made `state`.

    It names `subjects`, and `concerned` may differ after it; of those nobody ever tells of `unheard` when it is lost.
    """

    document: str
    state: int
    subjects: frozenset[str]
    concerned: frozenset[str]
    unheard: frozenset[str]
    body: bytes


class Hooks:
    """Sends the webhooks."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._calm = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def publish(self, transaction: Transaction, state: int) -> None:
        """Send what the hook sends of a transaction."""
        for change in transaction.changes:
            delivery = self._delivery(change, state)
            if delivery is None:
                continue
            if self._happens("lost"):
                self._world.watch.lost(delivery)
                continue
            for _ in range(2 if self._happens("twice") else 1):
                task = self._world.loop.create_task(self._deliver(delivery))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def all_delivered(self) -> None:
        """Deliver at once what waits."""
        self._calm.set()
        while self._tasks:
            await asyncio.wait(self._tasks)
        self._calm.clear()

    def _delivery(self, change: Change, state: int) -> Delivery | None:
        body = groq.webhook(change.before, change.after)
        if body is None:
            return None
        before, after = (subject_of(body[side] or {}) for side in ("before", "after"))
        named = frozenset(key for key in (before, after) if key)
        concerned = named if body["type"] == "entitlement" else frozenset(self._world.history.changed_by(state))
        unheard = concerned
        if self._world.polls and body["operation"] != "delete":
            # The poll finds what a document says now; whom it named before, only its webhook tells.
            unheard = named - {after or ""}
        return Delivery(body["id"], state, named, concerned, unheard, json.dumps(body).encode())

    async def _deliver(self, delivery: Delivery) -> None:
        world, started, wait = self._world, self._world.loop.time(), 1.0
        delay = world.random.uniform(2.0, 60.0) if self._happens("late") else world.random.uniform(0.02, 0.3)
        await self._pause(delay)
        while world.loop.time() - started < PATIENCE:
            status = await self._attempt(delivery)
            if 200 <= status < 300:
                return
            if 400 <= status < 500:
                world.watch.fail("good webhooks are taken", f"{status} to a webhook about {delivery.document}")
                return
            await self._pause(wait)
            wait = min(wait * 2, 256.0)
        world.watch.lost(delivery)

    async def _attempt(self, delivery: Delivery) -> int:
        """Deliver once; return the status, or 0 when no answer came."""
        world = self._world
        servers = [one for one in world.servers if one.takes_webhooks and one.alive]
        if not servers or self._happens("unreachable"):
            return 0
        cut = self._happens("cut")
        header = sign(delivery.body, SECRET, int(world.clock.now() * 1000))
        status = await receive(world.random.choice(servers), delivery.body, header, cut=cut)
        if status == 202:
            world.watch.accepted(delivery)
        return 0 if cut or self._happens("unanswered") else status

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._calm.wait(), seconds)

    def _happens(self, what: str) -> bool:
        return self._world.random.random() < self._world.config.webhooks.get(what, 0.0) and not self._calm.is_set()


async def receive(server: Server, body: bytes, header: str, *, cut: bool = False) -> int:
    """Hand a webhook to a server; return the status of the answer, 0 when it died meanwhile."""
    messages: list[dict[str, Any]] = [{"type": "http.request", "body": body, "more_body": False}]
    if cut:
        half = {"type": "http.request", "body": body[: len(body) // 2], "more_body": True}
        messages = [half, {"type": "http.disconnect"}]
    turn = iter(messages)

    async def next_message() -> dict[str, Any]:
        return next(turn)

    headers = [(b"content-type", b"application/json"), (b"sanity-webhook-signature", header.encode())]
    request = Request({"type": "http", "method": "POST", "path": "/webhooks/sanity", "headers": headers}, next_message)
    task = server.spawn(server.receiver.sanity(request))
    await asyncio.wait({task}, timeout=TIMEOUT)
    return task.result().status_code if task.done() and not task.cancelled() else 0

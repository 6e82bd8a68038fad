"""The delivery of the webhooks of both services: signed, delayed, reordered, repeated, retried or lost.

The watch is notified of delivered and lost webhooks: the former must have an effect, the latter excuse a difference.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from standardwebhooks.webhooks import Webhook
from starlette.requests import Request

from sync_worker.sandbox.webhooks import sign
from tests.sim import groq
from tests.sim.machine import CLERK_SECRET, SECRET, Server
from tests.sim.truth import ADDRESSES, name_of

if TYPE_CHECKING:
    from sync_worker.sandbox.documents import Change, Transaction
    from tests.sim.world import World

PATIENCE = 1800.0
"""Seconds for which a delivery is repeated."""
TIMEOUT = 30.0


@dataclass(frozen=True)
class Delivery:
    """One webhook: about one document in the transaction that made `state`, or about somebody in Clerk.

    It names the `subjects`, and `concerned` may differ after it. If it is lost, no other event ever reports `unheard`.
    """

    route: str
    about: str
    body: bytes
    concerned: frozenset[str]
    unheard: frozenset[str]
    subjects: frozenset[str] = frozenset()
    state: int = 0

    def headers(self, world: World) -> dict[str, str]:
        """Sign it, for one attempt."""
        if self.route == "sanity":
            return {"sanity-webhook-signature": sign(self.body, SECRET, int(world.clock.true_time() * 1000))}
        at = datetime.now(UTC)  # Svix's package goes by the real clock, whatever the world's may show
        signature = Webhook(CLERK_SECRET).sign("msg_1", at, self.body.decode())
        return {"svix-id": "msg_1", "svix-timestamp": str(int(at.timestamp())), "svix-signature": signature}


class Hooks:
    """Sends the webhooks. While `is_silent`, none arrives, nor does any event of the stream."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.is_silent = False
        self._calm = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def publish(self, transaction: Transaction, state: int) -> None:
        """Send what Sanity's hook sends of a transaction."""
        for change in transaction.changes if self._world.config.events != "listen" else ():
            delivery = self.of_document(change, state)
            if delivery is not None:
                self.send(delivery)

    def send(self, delivery: Delivery) -> None:
        """Send one webhook, or two, or none."""
        if self.is_silent or self._happens("lost"):
            self._world.watch.lost(delivery)
            return
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
        if self._world.config.events != "webhook":
            await self._world.stream.all_taken()

    def of_document(self, change: Change, state: int) -> Delivery | None:
        """Return the webhook of one change, None where the filter does not match."""
        world, body = self._world, groq.webhook(change.before, change.after)
        if body is None:
            return None
        before, after = (name_of(body[side] or {}) for side in ("before", "after"))
        names = {name for name in (before, after) if name}
        concerned = world.keys_of(names if body["type"] == "entitlement" else world.history.changed_by(state))
        unheard = frozenset[str]() if world.polls else concerned
        named = frozenset(name for name in names if name.partition(":")[0] not in ADDRESSES)
        return Delivery("sanity", body["id"], json.dumps(body).encode(), concerned, unheard, named, state)

    async def _deliver(self, delivery: Delivery) -> None:
        world, started, wait = self._world, self._world.loop.time(), 1.0
        delay = world.random.uniform(2.0, 60.0) if self._happens("late") else world.random.uniform(0.02, 0.3)
        await self._pause(delay)
        while world.loop.time() - started < PATIENCE:
            status = await self._attempt(delivery)
            if 200 <= status < 300:
                return
            if 400 <= status < 500:
                world.watch.fail("good webhooks are taken", f"{status} to a webhook about {delivery.about}")
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
        status = await receive(
            world.random.choice(servers), delivery.route, delivery.body, delivery.headers(world), cut=cut
        )
        if status == 202:
            world.watch.accepted(delivery)
        return 0 if cut or self._happens("unanswered") else status

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._calm.wait(), seconds)

    def _happens(self, what: str) -> bool:
        return self._world.random.random() < self._world.config.webhooks.get(what, 0.0) and not self._calm.is_set()


class ClerkHooks:
    """What the sandbox's Clerk reports its changes to, in place of its own webhooks."""

    endpoints = ("everywhere",)

    def __init__(self, world: World) -> None:
        self._world = world

    def publish(self, event: str, data: dict[str, Any]) -> None:
        """Send one event. It alone reports whom it concerns, unless nothing of ours was changed."""
        world = self._world
        concerned = world.moved_in_clerk() | {_key_of(event, data)}
        if world.is_harmless:
            concerned = frozenset[str]()
        body = json.dumps({"type": event, "data": data, "object": "event", "instance_id": "ins_sandbox"}).encode()
        delivery = Delivery("clerk", _key_of(event, data), body, concerned, concerned)
        if world.config.clerk_reports:
            world.hooks.send(delivery)
        elif concerned:
            world.watch.excuse(concerned, "no webhook of Clerk came")


def _key_of(event: str, data: dict[str, Any]) -> str:
    if event.startswith("organizationMembership"):
        return f"membership:{data['organization']['id']}/{data['public_user_data']['user_id']}"
    return f"{'org' if event.startswith('organization') else 'user'}:{data['id']}"


async def receive(server: Server, route: str, body: bytes, headers: dict[str, str], *, cut: bool = False) -> int:
    """Hand a webhook to a server; return the status of the answer, 0 when it died meanwhile."""
    messages: list[dict[str, Any]] = [{"type": "http.request", "body": body, "more_body": False}]
    if cut:
        half = {"type": "http.request", "body": body[: len(body) // 2], "more_body": True}
        messages = [half, {"type": "http.disconnect"}]
    turn = iter(messages)

    async def next_message() -> dict[str, Any]:
        return next(turn)

    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    request = Request({"type": "http", "method": "POST", "path": f"/webhooks/{route}", "headers": raw}, next_message)
    take = server.receiver.sanity if route == "sanity" else server.receiver.clerk
    task = server.spawn(take(request))
    await asyncio.wait({task}, timeout=TIMEOUT)
    return task.result().status_code if task.done() and not task.cancelled() else 0

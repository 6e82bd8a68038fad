"""Delivers webhook messages: order, retries, and what can go wrong on the way.

Sanity and Clerk differ in their `Policy`; both send one request per hook at a time here. `faults` drops, duplicates and
delays messages, as real networks do. `webhooks` and `clerk_webhooks` decide which changes become messages.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import httpx

from sync_worker.sandbox.clock import rfc3339

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Coroutine, Sequence
    from random import Random

KEPT = 2_000


@dataclass(frozen=True, slots=True)
class Policy:
    """When to retry.

    `retry_delays` are the seconds before each retry; `is_final` returns whether a status ends the delivery; `timeout`
    is in seconds.
    """

    retry_delays: Sequence[float]
    is_final: Callable[[int], bool]
    timeout: float


@dataclass
class DeliveryFaults:
    """What goes wrong, as fractions of the messages, drawn from the seeded random generator. Delays are in seconds.

    `at_once` is how many requests of a hook run concurrently; it applies to hooks that have not sent a message yet.
    """

    drop: float = 0.0
    duplicate: float = 0.0
    delay: float = 0.0
    delay_seconds: tuple[float, float] = (0.0, 0.2)
    at_once: int = 1


@dataclass(eq=False)
class Message:
    """One message. `headers` are made for each attempt. `status` is queued, sending, success or failure."""

    id: str
    hook_id: str
    method: str
    url: str
    headers: Callable[[], dict[str, str]]
    body: bytes
    created_at: str
    status: str = "queued"
    failures: int = 0
    result_code: int | None = None


@dataclass(eq=False)
class _Lane:
    """The deliveries of one hook; `turn` limits how many requests run concurrently."""

    turn: asyncio.Semaphore
    tasks: set[asyncio.Task[None]] = field(default_factory=set)


class Deliveries:
    """Sends messages. `messages` and `attempts` keep the latest, oldest first."""

    def __init__(self, policy: Policy, clock: Callable[[], float], random: Random) -> None:
        self.policy = self._first_policy = policy
        self.faults = DeliveryFaults()
        self.messages: deque[Message] = deque(maxlen=KEPT)
        self.attempts: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._clock = clock
        self._random = random
        self._lanes: dict[str, _Lane] = {}
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._client: httpx.AsyncClient | None = None

    def send(self, message: Message) -> None:
        """Start the delivery of a message, or drop, duplicate or delay it."""
        self.messages.append(message)
        if self._random.random() < self.faults.drop:
            message.status = "failure"
            return
        copies = 2 if self._random.random() < self.faults.duplicate else 1
        for _ in range(copies):
            is_late = self._random.random() < self.faults.delay
            delay = self._random.uniform(*self.faults.delay_seconds) if is_late else 0.0
            self._start(message.hook_id, self._deliver(message, delay))

    @property
    def is_paused(self) -> bool:
        """Whether deliveries are held back."""
        return not self._flowing.is_set()

    def pause(self) -> None:
        """Hold all deliveries back, except requests in flight."""
        self._flowing.clear()

    def resume(self) -> None:
        """Resume deliveries."""
        self._flowing.set()

    async def idle(self) -> None:
        """Wait until no delivery is in progress or waits for a retry."""
        while tasks := [task for lane in self._lanes.values() for task in lane.tasks]:
            await asyncio.wait(tasks)

    async def cancel(self, hook_id: str) -> None:
        """Cancel every delivery of a hook, as disabling or deleting it does."""
        lane = self._lanes.pop(hook_id, None)
        tasks = tuple(lane.tasks) if lane else ()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def reset(self) -> None:
        """Cancel and forget all deliveries, and clear the faults."""
        for hook_id in tuple(self._lanes):
            await self.cancel(hook_id)
        self.policy = self._first_policy
        self.faults = DeliveryFaults()
        self.resume()
        self.messages.clear()
        self.attempts.clear()

    async def close(self) -> None:
        """Cancel all deliveries and close the connections."""
        await self.reset()
        if self._client is not None:
            await self._client.aclose()

    def _start(self, hook_id: str, delivery: Coroutine[Any, Any, None]) -> None:
        tasks = self._lanes.setdefault(hook_id, _Lane(asyncio.Semaphore(self.faults.at_once))).tasks
        task = asyncio.create_task(delivery)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def _deliver(self, message: Message, delay: float) -> None:
        turn = self._lanes[message.hook_id].turn
        try:
            await asyncio.sleep(delay)  # and below, by the event loop: a network knows no clock of ours
            for wait in (*self.policy.retry_delays, None):
                await self._flowing.wait()
                async with turn:
                    message.status = "sending"
                    is_final = await self._attempt(message)
                if is_final:
                    return
                if wait is not None:
                    message.status = "queued"
                    await asyncio.sleep(wait)
        finally:
            if message.status != "success":
                message.status = "failure"

    async def _attempt(self, message: Message) -> bool:
        """Send once. Return whether the delivery is over."""
        started = self._clock()
        code, body, reason = None, "", None
        try:
            response = await self._http().request(
                message.method, message.url, headers=message.headers(), content=message.body
            )
            code, body = response.status_code, response.text
            reason = None if response.is_success else "http"
        except httpx.TimeoutException:
            reason = "timeout"
        except httpx.HTTPError:
            reason = "network"
        message.result_code = code
        message.failures += reason is not None
        if reason is None:
            message.status = "success"
        self._record(message, started, code, body, reason)
        return code is not None and self.policy.is_final(code)

    def _http(self) -> httpx.AsyncClient:
        """Return the client, which is created on first use: most sandboxes never send."""
        if self._client is None:
            self._client = httpx.AsyncClient(verify=_authorities(), timeout=self.policy.timeout, trust_env=False)
            # Neither service sends an Accept header.
            del self._client.headers["accept"]
        return self._client

    def _record(self, message: Message, started: float, code: int | None, body: str, reason: str | None) -> None:
        ended = self._clock()
        self.attempts.append(
            {
                "id": f"{message.id}-{len(self.attempts)}",
                "hookId": message.hook_id,
                "messageId": message.id,
                "createdAt": rfc3339(started),
                "updatedAt": rfc3339(ended),
                "duration": round((ended - started) * 1000),
                "inProgress": False,
                "isFailure": reason is not None,
                "failureReason": reason,
                "resultCode": code,
                "resultBody": body,
            }
        )


@cache
def _authorities() -> ssl.SSLContext:
    """Return whom a delivery trusts. To load them takes 50 ms."""
    return httpx.create_ssl_context()

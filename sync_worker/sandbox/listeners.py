"""Listeners: open connections that receive an event for each change of the documents that their query selects.

An event is sent at commit or, for a listener that prefers it, once queries see the change. A listener that reconnects
can resume within a window; it then receives the transaction that it saw last again. `mutation_events` makes the events
and `listen_routes` serves them.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sync_worker.sandbox.documents import Transaction
from sync_worker.sandbox.mutation_events import events_of, failure, frame

if TYPE_CHECKING:
    from asyncio import Transport
    from collections.abc import AsyncIterator, Callable
    from random import Random

    from sync_worker.sandbox.groq import Groq
    from sync_worker.sandbox.mutation_events import Subscription
    from sync_worker.sandbox.transaction_log import TransactionLog

KEEP_ALIVE = b":\n\n"
CUT_SHORT = b'60\r\nevent: mutation\nid: cut#short\ndata: {"documentId":"cu'
"""The beginning of a chunk that never ends."""


@dataclass(frozen=True, slots=True)
class ListenSettings:
    """Seconds: how long a connection lives, between keep-alive comments, and how far back a listener can resume.

    With `is_resumable` off, a listener that reconnects is welcomed like a new one.
    """

    lifetime: float = 1_800.0
    keep_alive: float = 15.0
    resume_window: float = 300.0
    is_resumable: bool = True


@dataclass(frozen=True, slots=True)
class ListenFaults:
    """What goes wrong with events, as fractions of them; delays, in seconds, also change their order.

    While `silent`, connections stay open and nothing is sent: no events and no keep-alive comments.
    """

    drop: float = 0.0
    duplicate: float = 0.0
    delay: float = 0.0
    delay_seconds: tuple[float, float] = (0.0, 0.2)
    silent: bool = False


@dataclass
class Listeners:
    """All listeners of one dataset. `settings` and `faults` may be replaced at any time.

    `opened`, `sent` and `dropped` count connections and events since the last reset; an event that is late, or that a
    silent connection swallows, counts as sent.
    """

    groq: Groq
    log: TransactionLog
    new_id: Callable[[], str]
    random: Random
    settings: ListenSettings = field(default_factory=ListenSettings)
    faults: ListenFaults = field(default_factory=ListenFaults)
    opened: int = 0
    sent: int = 0
    dropped: int = 0
    _open: set[Listener] = field(default_factory=set)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def connected(self) -> int:
        """How many connections are open."""
        return len(self._open)

    async def wait_connected(self, count: int = 1) -> None:
        """Wait until exactly so many connections are open."""
        while self.connected != count:
            self._changed.clear()
            await self._changed.wait()

    async def check(self, subscription: Subscription, now: str) -> None:
        """Raise GroqError for a query that no listener can have."""
        await self.groq.matches(subscription.query, subscription.params, [], now)

    def publish(self, transaction: Transaction, visibility: str) -> None:
        """Pass a transaction on to the listeners of this visibility."""
        for listener in self._open:
            if listener.subscription.visibility == visibility:
                listener.inbox.put_nowait(transaction)

    def end(self) -> None:
        """End all connections as their lifetime does: clients should reconnect at once."""
        for listener in self._open:
            listener.inbox.put_nowait(None)

    def cut(self) -> None:
        """Break all connections in the middle of an event."""
        for listener in self._open:
            listener.transport.write(CUT_SHORT)
            listener.transport.close()

    def send_reset(self) -> None:
        """Tell all clients to forget their state and read it again."""
        self._send(frame("reset", {}))

    def fail(self, description: str) -> None:
        """Send `channelError` and `disconnect` to all, and end the connections: clients should not come back."""
        self._send(failure({"description": description}))
        self.end()

    def disconnect(self, reason: str) -> None:
        """Send `disconnect` alone to all, and end the connections: clients should not come back."""
        self._send(frame("disconnect", {"reason": reason}))
        self.end()

    def reset(self) -> None:
        """End all connections, clear faults and counts, and restore the first settings."""
        self.end()
        self._open.clear()
        self.settings, self.faults = ListenSettings(), ListenFaults()
        self.opened = self.sent = self.dropped = 0
        self._changed.set()

    def _send(self, event: bytes) -> None:
        for listener in self._open:
            listener.inbox.put_nowait(event)

    def enter(self, listener: Listener) -> None:
        """Count a connection as open; its events are collected from now on."""
        self._open.add(listener)
        self.opened += 1
        self._changed.set()

    def leave(self, listener: Listener) -> None:
        """Count a connection as closed."""
        self._open.discard(listener)
        self._changed.set()


@dataclass(eq=False)
class Listener:
    """One connection. `inbox` has transactions to match, events that are ready, and None for the end."""

    subscription: Subscription
    listeners: Listeners
    transport: Transport
    inbox: asyncio.Queue[Transaction | bytes | None] = field(default_factory=asyncio.Queue)

    async def stream(self) -> AsyncIterator[bytes]:
        """Yield the body of the response until the connection ends."""
        settings = self.listeners.settings
        ends_at = asyncio.get_running_loop().time() + settings.lifetime
        ready: list[bytes] | None = [self._open()]
        try:
            while ready is not None:
                for part in ready:
                    if not self.listeners.faults.silent:
                        yield part
                ready = await self._next(ends_at, settings.keep_alive)
        finally:
            self.listeners.leave(self)

    def _open(self) -> bytes:
        """Start to collect transactions, after those that the client missed. Return the greeting."""
        name = {"listenerName": self.listeners.new_id()}
        settings, last = self.listeners.settings, self.subscription.resume_from
        self.listeners.enter(self)
        if not last or not settings.is_resumable:
            return frame("welcome", name)
        missed = self.listeners.log.since(last.partition("#")[0], settings.resume_window)
        if missed is None:
            return frame("reset", {})
        for transaction in missed:
            self.inbox.put_nowait(transaction)
        return frame("welcomeback", name)

    async def _next(self, ends_at: float, keep_alive: float) -> list[bytes] | None:
        """Return what to send next, or None at the end."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(min(ends_at - loop.time(), keep_alive)):
                item = await self.inbox.get()
        except TimeoutError:
            return [KEEP_ALIVE] if loop.time() < ends_at else None
        if isinstance(item, Transaction):
            return await self._events(item)
        return None if item is None else [item]

    async def _events(self, transaction: Transaction) -> list[bytes]:
        """Return the events of a transaction that are to be sent now, after faults."""
        faults, random = self.listeners.faults, self.listeners.random
        now = []
        for event in await events_of(self.listeners.groq, self.subscription, transaction):
            if random.random() < faults.drop:
                self.listeners.dropped += 1
                continue
            copies = [event] * (2 if random.random() < faults.duplicate else 1)
            self.listeners.sent += 1
            if random.random() < faults.delay:
                loop = asyncio.get_running_loop()
                loop.call_later(random.uniform(*faults.delay_seconds), self.inbox.put_nowait, b"".join(copies))
            else:
                now += copies
        return now

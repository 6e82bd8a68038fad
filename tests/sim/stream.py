"""The listen endpoint of Sanity: it repeats and drops events, is cut, and cannot always go on where it ended.

Every event is reported to the watch when it was taken, or as lost when no listener will get it: the poll must find it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sync_worker.errors import CredentialsRefused, ServiceUnavailable
from sync_worker.sanity.listen import ListenEvent, Signal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sync_worker.sandbox.documents import Change, Transaction
    from tests.sim.hooks import Delivery
    from tests.sim.machine import Process
    from tests.sim.world import World

DROPPED, REPEATED, NOT_RESUMED = 0.15, 0.1, 0.2
"""How often an event never comes, or comes twice, and how often a stream cannot go on."""
WINDOW = 60.0
"""Seconds for which a stream can go on."""
PATIENCE = 1000.0
"""Seconds after which a listener must be there again: it stays away for five minutes after a refusal."""


@dataclass(eq=False)
class StreamEvent:
    """One event of the stream, and the webhook that would have reported the same."""

    id: str
    data: dict[str, Any]
    delivery: Delivery
    at: float
    is_over: bool = False
    is_lost: bool = False


class Stream:
    """All events, oldest first."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._published: list[StreamEvent] = []
        self._cuts = 0
        self._news = asyncio.Event()

    def publish(self, transaction: Transaction, state: int) -> None:
        """Add the events of a transaction."""
        for change in transaction.changes:
            delivery = self._world.hooks.of_document(change, state)
            if delivery is not None:
                reported = StreamEvent(f"t{state}#{delivery.about}", _data(change), delivery, self._world.loop.time())
                self._published.append(reported)
                if self._world.hooks.is_silent:
                    self._lose(reported)
        self._wake()

    def cut(self) -> None:
        """End all connections."""
        self._cuts += 1
        self._wake()

    async def all_taken(self) -> None:
        """Wait until no event is on its way."""
        deadline = self._world.loop.time() + PATIENCE
        while not all(reported.is_over for reported in self._published):
            if self._world.loop.time() > deadline:
                self._world.watch.fail("everything comes to an end", "nobody listens any more")
                return
            await asyncio.sleep(0.5)

    async def events(self, last_id: str) -> AsyncIterator[ListenEvent]:
        """Yield events as `sanity.listen.Listen` does."""
        world, cuts = self._world, self._cuts
        await asyncio.sleep(world.random.uniform(0.01, 0.2))
        if not world.lake.key_works:
            raise CredentialsRefused("the token is refused")
        place = self._place(last_id)
        for reported in self._published[: place or 0]:
            self._take(reported)  # resuming behind an event proves that it was taken
        yield ListenEvent(Signal.RESET if last_id else Signal.WELCOME) if place is None else ListenEvent(Signal.RESUMED)
        position = place if place is not None else self._give_up()
        while True:
            while position < len(self._published):
                reported = self._published[position]
                await asyncio.sleep(max(0.0, reported.at + world.random.uniform(0.01, 0.3) - world.loop.time()))
                if cuts != self._cuts:
                    raise ServiceUnavailable("the connection was cut")
                position += 1
                if reported.is_lost:
                    continue
                if world.random.random() < DROPPED or world.lake.dataset_empty:
                    self._lose(reported)
                    continue
                for _ in range(2 if world.random.random() < REPEATED else 1):
                    yield ListenEvent(Signal.MUTATION, reported.id, reported.data)
                    self._take(reported)
            if cuts != self._cuts:
                return
            await self._news.wait()

    def _place(self, last_id: str) -> int | None:
        """Return where the stream goes on after an event, None where it cannot."""
        found = next((index for index, reported in enumerate(self._published) if reported.id == last_id), None)
        if found is None or self._world.random.random() < NOT_RESUMED:
            return None
        after = found + self._world.random.choice((0, 1))  # the last one may come once more
        return after if self._published[found].at > self._world.loop.time() - WINDOW else None

    def _give_up(self) -> int:
        for reported in self._published:
            self._lose(reported)
        return len(self._published)

    def _take(self, reported: StreamEvent) -> None:
        if not reported.is_over:
            reported.is_over = True
            self._world.watch.accepted(reported.delivery)

    def _lose(self, reported: StreamEvent) -> None:
        if not reported.is_over:
            reported.is_over = reported.is_lost = True
            self._world.watch.lost(reported.delivery)

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


@dataclass(frozen=True)
class Connection:
    """What a process listens by, in place of `sanity.listen.Listen`."""

    process: Process

    async def events(self, last_id: str) -> AsyncIterator[ListenEvent]:
        async for event in self.process.world.stream.events(last_id):
            self.process.must_live()
            yield event


def _data(change: Change) -> dict[str, Any]:
    transition = "disappear" if change.after is None else "appear" if change.before is None else "update"
    return {"documentId": change.id, "transition": transition, "previous": change.before, "result": change.after}

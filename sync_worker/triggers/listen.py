"""Listens to Sanity, so that no public URL is needed: one process for each database keeps the stream open.

Each event is a poke like a webhook's. The stream may drop events, and cannot always go on where it ended, so it is
never the only source: whenever it begins anew, the poll catches up.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass, field, replace
from random import Random
from typing import TYPE_CHECKING

import structlog
from pydantic import ValidationError

from sync_worker.domain.backoff import backoff
from sync_worker.domain.work import Cause, CauseKind, editor
from sync_worker.errors import ConfigurationError, CredentialsRefused, DatabaseUnavailable, SyncWorkerError
from sync_worker.sanity.listen import Signal
from sync_worker.storage.leadership import Leadership
from sync_worker.storage.state import CONNECTED, FAILURE, LAST_EVENT
from sync_worker.sync.document_events import DocumentEvent, items_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sync_worker.domain.clock import Clock
    from sync_worker.domain.timings import Timings
    from sync_worker.sanity.listen import Listen, ListenEvent
    from sync_worker.storage.database import Database
    from sync_worker.storage.queue import WorkQueue

LEADER = "listen:leader"
REMEMBERED = 1000
"""Events remembered, because the stream repeats some when it goes on."""

log = structlog.get_logger("listen")


@dataclass(slots=True)
class Listener:
    """Keeps the stream open while this process has the lease. `catch_up` polls."""

    listen: Listen
    database: Database
    queue: WorkQueue
    catch_up: Callable[[], Awaitable[None]]
    clock: Clock
    timings: Timings
    random: Random = field(default_factory=Random)
    _failures: int = 0
    """Connections that ended since the last one that succeeded."""
    _seen: OrderedDict[str, None] = field(default_factory=OrderedDict)

    async def run(self) -> None:
        """Listen until the task is cancelled."""
        lease = Leadership(self.database, LEADER, secrets.token_hex(8), self.timings.listen_lease)
        try:
            while True:
                await self.clock.sleep(await self._lead_once(lease))
        finally:
            with suppress(DatabaseUnavailable):
                await asyncio.shield(lease.release())

    async def _lead_once(self, lease: Leadership) -> float:
        """Listen, if this process may. Return the seconds until the next try; a bug must not end them for ever."""
        try:
            if await lease.acquire():
                return await self._lead(lease)
        except DatabaseUnavailable as error:
            log.warning("listener_paused", code=error.code, detail=error.detail)
        except Exception:
            log.exception("listener_crashed")
            return self.timings.listen_refused_wait
        return self.timings.listen_lease / 2

    async def _lead(self, lease: Leadership) -> float:
        """Listen on one connection while the lease is renewed. Return the seconds until the next one.

        It is replaced before Sanity ends it, which would cut an event in two.
        """
        renewing = asyncio.create_task(self._renew(lease))
        listening = asyncio.create_task(self._follow())
        try:
            ended, _ = await asyncio.wait(
                {renewing, listening}, timeout=self.timings.listen_lifetime, return_when=asyncio.FIRST_COMPLETED
            )
            if renewing in ended:
                renewing.result()
            return listening.result() if listening in ended else 0.0
        finally:
            renewing.cancel()
            listening.cancel()
            await asyncio.wait({renewing, listening})  # awaiting them would swallow that we are cancelled ourselves

    async def _renew(self, lease: Leadership) -> None:
        held = True
        while held:
            await self.clock.sleep(self.timings.listen_lease / 3)
            with suppress(DatabaseUnavailable):
                held = await lease.acquire()

    async def _follow(self) -> float:
        """Take the events of one connection."""
        known = await self.queue.recall(LAST_EVENT)
        try:
            async for event in self.listen.events(known[0] if known else ""):
                if event.failure:
                    return await self._failed(event.failure)
                await self._take(event)
        except (CredentialsRefused, ConfigurationError) as error:
            return await self._failed(error.detail)
        except DatabaseUnavailable as error:
            log.warning("listener_paused", code=error.code, detail=error.detail)
            return self.timings.database_retry
        except SyncWorkerError as error:
            log.info("listener_reconnects", code=error.code, detail=error.detail)
        self._failures += 1
        timings, jitter = self.timings, self.random.random()
        return backoff(self._failures - 1, timings.listen_reconnect, timings.listen_max_reconnect, jitter)

    async def _take(self, event: ListenEvent) -> None:
        match event.signal:
            case Signal.WELCOME | Signal.RESET | Signal.RESUMED:
                self._failures, resumed = 0, event.signal is Signal.RESUMED
                log.info("listener_connected", resumed=resumed)
                await self.queue.remember(CONNECTED, event.signal)
                if not resumed:
                    await self.catch_up()
            case Signal.MUTATION if event.id not in self._seen:
                await self._enqueue(event)

    async def _enqueue(self, event: ListenEvent) -> None:
        """Enqueue whom a mutation concerns, and then remember it: after a crash it comes once more."""
        document = document_event(event)
        if document is not None:
            now, cause = self.clock.now(), Cause(CauseKind.LISTEN, document.id, editor(document.by))
            items = items_of(document, event.id, now, self.timings.published_in_the_past)
            await self.queue.enqueue([replace(item, cause=cause) for item in items])
            log.info("mutation_accepted", document=document.id, operation=document.operation, revision=document.rev)
        self._seen[event.id] = None
        while len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        if event.id:
            await self.queue.remember(LAST_EVENT, event.id)

    async def _failed(self, reason: str) -> float:
        """Record that Sanity refuses to be listened to; `doctor` shows it. The poll goes on."""
        log.error("listener_refused", detail=reason, next_step="run `sync-worker doctor`; the poll goes on meanwhile")
        await self.queue.remember(FAILURE, reason)
        return self.timings.listen_refused_wait


def document_event(event: ListenEvent) -> DocumentEvent | None:
    """Return a mutation as the webhook would have sent it; None for a draft, or for what a webhook would not send."""
    before, after = event.before, event.after
    document = after or before
    id_ = str(event.data.get("documentId") or (document or {}).get("_id") or "")
    if document is None or not id_ or id_.startswith(("drafts.", "versions.")):
        return None
    sent = {
        "operation": "delete" if after is None else "create" if before is None else "update",
        "projectId": "",
        "dataset": "",
        "id": id_,
        "type": str(document.get("_type")),
        "rev": document.get("_rev"),
        "updatedAt": document.get("_updatedAt"),
        "by": event.data.get("identity"),
        "before": before,
        "after": after,
    }
    try:
        return DocumentEvent.model_validate(sent)
    except ValidationError:
        log.warning("mutation_ignored", event_id=event.id)
        return None

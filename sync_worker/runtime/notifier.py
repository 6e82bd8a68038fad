"""Sends notices to NOTIFY_URL: a JSON POST that Slack accepts, signed as in Standard Webhooks.

It runs beside the work and never delays it. Redirects are not followed, and of an answer only the status is read.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import httpx
import structlog

from sync_worker import __version__
from sync_worker.formatting import rfc3339
from sync_worker.transport import inner_transport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sync_worker.diagnostics.situations import SituationReader
    from sync_worker.domain.clock import Clock
    from sync_worker.domain.timings import Timings
    from sync_worker.settings import Settings
    from sync_worker.storage.notices import Notice, Notices

PER_LOOK = 10
"""Notices sent after one look at the database; the others follow after the next."""
log = structlog.get_logger("notices")


@dataclass(frozen=True, slots=True)
class Notifier:
    """Sends single notices."""

    client: httpx.AsyncClient
    url: str = field(repr=False)
    secret: str = field(repr=False)
    clock: Clock
    timings: Timings

    async def send(self, notice: Notice) -> str:
        """Send a notice. Return why it was not accepted, in a word or two; empty when it was."""
        body = json.dumps({**notice.body, "at": rfc3339(notice.at)}, ensure_ascii=False)
        try:
            headers = self._headers(notice, body)
            async with (
                asyncio.timeout(self.timings.notify_timeout),
                self.client.stream("POST", self.url, content=body.encode(), headers=headers) as response,
            ):
                return "" if response.is_success else f"status {response.status_code}"
        except TimeoutError:
            return "timeout"
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return type(error).__name__  # its text may hold the URL, which is often a secret

    def _headers(self, notice: Notice, body: str) -> dict[str, str]:
        """Return the headers; a repeated notice keeps its id, so that the receiver can drop it."""
        id_ = hashlib.sha256(f"{notice.event} {notice.cause} {notice.at}".encode()).hexdigest()[:24]
        now = datetime.fromtimestamp(int(self.clock.now()), UTC)
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"sync-worker/{__version__}",
            "webhook-id": f"msg_{id_}",
            "webhook-timestamp": str(int(now.timestamp())),
        }
        if self.secret:
            from svix.webhooks import Webhook  # noqa: PLC0415 - 0.5 s to import

            headers["webhook-signature"] = Webhook(self.secret).sign(headers["webhook-id"], now, body)
        return headers


@asynccontextmanager
async def open_notifier(settings: Settings, clock: Clock, timings: Timings) -> AsyncIterator[Notifier]:
    """Open the client of NOTIFY_URL, which must be set."""
    url = settings.notify_url.get_secret_value() if settings.notify_url else ""
    secret = settings.notify_secret.get_secret_value() if settings.notify_secret else ""
    async with httpx.AsyncClient(transport=inner_transport(1), timeout=timings.notify_timeout) as client:
        yield Notifier(client, url, secret, clock, timings)


async def notify(reader: SituationReader, notices: Notices, notifier: Notifier) -> None:
    """Record what there is to know, and send what is due. A notice that nobody accepts is dropped after an hour."""
    await notices.record(await reader.read())
    for notice in await notices.take(PER_LOOK):
        problem = await notifier.send(notice)
        if not problem:
            await notices.done(notice)
            log.info("notice_sent", notice=notice.event, cause=notice.cause)
        elif notifier.clock.now() - notice.at > notifier.timings.notify_patience:
            await notices.done(notice)
            log.error("notice_dropped", notice=notice.event, cause=notice.cause, problem=problem)
        else:
            log.warning("notice_not_accepted", notice=notice.event, cause=notice.cause, problem=problem)

"""The routes that take webhooks: check the size and the signature, enqueue, answer.

The answer is 2xx only once the items are durable, and 4xx only where repeating could never help, because Sanity never
repeats a delivery that was answered 4xx. Trouble on our side is always 503. Nothing is read from Sanity or Clerk here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from secrets import token_hex
from typing import TYPE_CHECKING

import structlog
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse

from sync_worker.errors import DatabaseUnavailable
from sync_worker.redaction import redact
from sync_worker.storage.database import patience
from sync_worker.storage.liveness import ANOTHER_INSTANCE
from sync_worker.sync.document_events import DocumentEvent, items_of, parse
from sync_worker.webhooks.clerk_events import INSTANCE, parse_event
from sync_worker.webhooks.clerk_events import items_of as items_of_event
from sync_worker.webhooks.signatures import SVIX_ID, verify_sanity, verify_svix

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from starlette.requests import Request

    from sync_worker.domain.clock import Clock
    from sync_worker.domain.entitlements import Layout
    from sync_worker.domain.timings import Timings
    from sync_worker.storage.liveness import Liveness
    from sync_worker.storage.queue import WorkQueue

BODY_LIMIT = 256 * 1024
RETRY_AFTER = "5"
ACCEPTED, IGNORED = "accepted", "ignored"
UNAVAILABLE = 503
REFUSALS = {
    "bad_signature": 401,
    "bad_body": 400,
    "incomplete": 400,
    "body_too_large": 413,
    "not_configured": UNAVAILABLE,
    "unavailable": UNAVAILABLE,
}
"""The status of each refusal. Sanity never repeats what was answered 4xx, so trouble on our side is 503."""
SANITY_ID = "idempotency-key"
_DELIVERY_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
log = structlog.get_logger("receiver")


@dataclass(slots=True)
class Receiver:
    """Takes Sanity's webhooks for one project and dataset, and Clerk's for one instance.

    `count` is called with each delivery: its sender, and the answer.
    """

    queue: WorkQueue
    layout: Layout
    project_id: str
    dataset: str
    liveness: Liveness
    clock: Clock
    timings: Timings
    sanity_secrets: Sequence[str]
    clerk_secrets: Sequence[str] = ()
    count: Callable[[str, str], None] = lambda _source, _answer: None
    _instance: str = ""

    async def sanity(self, request: Request) -> JSONResponse:
        """Answer POST /webhooks/sanity."""
        accept = self._accept_sanity
        return await self._take(request, "sanity", self.sanity_secrets, verify_sanity, accept, id_header=SANITY_ID)

    async def clerk(self, request: Request) -> JSONResponse:
        """Answer POST /webhooks/clerk."""
        accept = self._accept_clerk
        return await self._take(request, "clerk", self.clerk_secrets, verify_svix, accept, id_header=SVIX_ID)

    async def _take(
        self,
        request: Request,
        source: str,
        secrets: Sequence[str],
        verify: Callable[[Mapping[str, str], bytes, Sequence[str]], bool],
        accept: Callable[[bytes, str], Awaitable[str]],
        *,
        id_header: str,
    ) -> JSONResponse:
        """Answer one delivery from either sender."""
        delivery = delivery_id(request.headers.get(id_header, ""))
        which = {"source": source, "delivery": delivery}
        try:
            body = await read_body(request)
            if body is None:
                answer = "body_too_large"
            elif not secrets:
                answer = "not_configured"
                log.error("webhook_secret_missing", **which, next_step=f"set {source.upper()}_WEBHOOK_SECRET")
            else:
                answer = "bad_signature"
                if verify(request.headers, body, secrets):
                    async with patience(self.timings.database_patience):
                        answer = await accept(body, delivery)
                        if answer == ACCEPTED:
                            await self.liveness.now(source)
        except ClientDisconnect:
            answer = "incomplete"
        except DatabaseUnavailable as error:
            answer = "unavailable"
            log.error("webhook_not_accepted", **which, code=error.code, detail=error.detail)  # noqa: TRY400 - the cause is the server
        self.count(source, answer)
        if answer in (ACCEPTED, IGNORED):
            return JSONResponse({"ok": True}, 202)
        status = REFUSALS[answer]
        if status != UNAVAILABLE:
            log.warning("webhook_refused", **which, code=answer, status=status)
            return JSONResponse({"error": answer}, status)
        return JSONResponse({"error": answer}, status, headers={"Retry-After": RETRY_AFTER})

    async def _accept_sanity(self, body: bytes, delivery: str) -> str:
        event = parse(body)
        if event is None:
            return "bad_body"
        facts = {"source": "sanity", "delivery": delivery, "document": event.id}
        if not self._is_ours(event):
            expected = f"{self.project_id}/{self.dataset}"
            given = f"{event.project_id}/{event.dataset}"
            reason = f"it is from {given}, not {expected}" if given != expected else "it is about a draft or a version"
            log.info("webhook_ignored", **facts, reason=reason)
            return IGNORED
        await self.queue.enqueue(items_of(event, delivery, self.clock.now(), self.timings.published_in_the_past))
        log.info("webhook_accepted", **facts, revision=event.rev, operation=event.operation)
        return ACCEPTED

    async def _accept_clerk(self, body: bytes, delivery: str) -> str:
        event = parse_event(body)
        if event is None:
            return "bad_body"
        facts = {"source": "clerk", "delivery": delivery, "event_type": event.type}
        items = items_of_event(event, self.layout, self.clock.now(), self.timings, delivery)
        if not items:
            log.info("webhook_ignored", **facts, reason="this type of event changes no access")
            return IGNORED
        if not await self._is_our_instance(event.instance_id):
            reason = f"it is from the instance {event.instance_id}, and CLERK_SECRET_KEY is of {self._instance}"
            log.warning("webhook_ignored", **facts, reason=reason)
            await self.liveness.now(ANOTHER_INSTANCE)
            return IGNORED
        await self.queue.enqueue(items)
        log.info("webhook_accepted", **facts, subject=items[0].key)
        return ACCEPTED

    def _is_ours(self, event: DocumentEvent) -> bool:
        return (
            event.project_id == self.project_id
            and event.dataset == self.dataset
            and not event.id.startswith(("drafts.", "versions."))
        )

    async def _is_our_instance(self, instance: str) -> bool:
        """Return whether an event is from the instance of our key; True while that is unknown."""
        if instance == self._instance:
            return True
        known = await self.queue.recall(INSTANCE)
        self._instance = known[0] if known else ""
        return not self._instance or not instance or instance == self._instance


async def read_body(request: Request) -> bytes | None:
    """Read the body as it streams in; None as soon as it is longer than the limit."""
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > BODY_LIMIT:
            return None
        chunks.append(chunk)
    return b"".join(chunks)


def delivery_id(hint: str) -> str:
    """Return the sender's id of a delivery, or one of our own where that is not fit for a log.

    It only names the delivery: Sanity does not sign it, so it may be anything.
    """
    name = hint.strip('"')
    return name if _DELIVERY_ID.fullmatch(name) and redact(name) == name else token_hex(8)

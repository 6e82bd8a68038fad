"""Sanity's GROQ-powered webhooks: which changes match a hook, and the messages they become.

One message per document and transaction, with Sanity's body, headers and signature; drafts and versions only for hooks
that include them. A message is signed once, at its first attempt: whether Sanity signs each attempt anew is unknown,
and this is the stricter reading. `delivery` sends the messages; `hooks_api` is the management API.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from sync_worker.sandbox.clock import milliseconds, rfc3339
from sync_worker.sandbox.delivery import Deliveries, Message, Policy
from sync_worker.sandbox.groq import GroqError

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from sync_worker.sandbox.documents import Change, Transaction
    from sync_worker.sandbox.groq import Groq

OPERATIONS = ("create", "update", "delete")
TOO_MANY_REQUESTS = 429
SERVER_ERROR = 500

POLICY = Policy(
    # Half an hour in all; the real schedule is not documented.
    retry_delays=(1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 777.0),
    is_final=lambda status: status < SERVER_ERROR and status != TOO_MANY_REQUESTS,
    timeout=30.0,
)
"""429, 5xx and network errors are retried; any other 4xx is final."""


def sign(body: bytes, secret: str, at: int) -> str:
    """Return the value of `sanity-webhook-signature`; `at` is in Unix milliseconds."""
    digest = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).digest()
    return f"t={at},v1={base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


@dataclass(frozen=True, slots=True)
class Hook:
    """The configuration of one webhook. `filter` is the inside of `*[…]`; without a projection, the document is sent.

    Users cannot enable a hook that the platform disabled.
    """

    id: str
    url: str
    name: str = "sandbox"
    description: str = ""
    dataset: str = "*"
    on: tuple[str, ...] = OPERATIONS
    filter: str = ""
    projection: str = ""
    secret: str = ""
    http_method: str = "POST"
    api_version: str = "v2021-03-25"
    headers: dict[str, str] = field(default_factory=dict)
    include_drafts: bool = False
    include_all_versions: bool = False
    is_disabled_by_user: bool = False
    is_disabled_by_platform: bool = False
    created_at: str = ""
    updated_at: str = ""

    @property
    def is_disabled(self) -> bool:
        """Whether the user or the platform disabled it."""
        return self.is_disabled_by_user or self.is_disabled_by_platform

    def covers(self, change: Change, dataset: str) -> bool:
        """Whether the trigger covers the change; the filter is not evaluated yet."""
        if self.is_disabled or change.operation not in self.on or self.dataset not in {"*", dataset}:
            return False
        if change.id.startswith("drafts."):
            return self.include_drafts
        return self.include_all_versions or not change.id.startswith("versions.")


class Webhooks:
    """All hooks of one dataset. Transactions are matched one after another, in order."""

    def __init__(self, groq: Groq, project_id: str, dataset: str, clock: Callable[[], float], random: Random) -> None:
        self.hooks: dict[str, Hook] = {}
        self.deliveries = Deliveries(POLICY, clock, random)
        self._groq = groq
        self._project_id = project_id
        self._dataset = dataset
        self._clock = clock
        self._random = random
        self._transactions: asyncio.Queue[Transaction] = asyncio.Queue()
        self._matcher = asyncio.create_task(self._match_all())
        self._error: GroqError | None = None

    def new_id(self) -> str:
        """Return a fresh opaque id."""
        return f"{self._random.getrandbits(96):024x}"

    def add(self, **settings: Any) -> Hook:
        """Create a hook; `settings` are the fields of Hook without id and dates."""
        now = rfc3339(self._clock())
        hook = Hook(id=self.new_id()[:16], created_at=now, updated_at=now, **settings)
        self.hooks[hook.id] = hook
        return hook

    async def change(self, hook_id: str, **settings: Any) -> Hook:
        """Change fields of a hook. Disabling it cancels its deliveries."""
        hook = replace(self.hooks[hook_id], updated_at=rfc3339(self._clock()), **settings)
        self.hooks[hook_id] = hook
        if hook.is_disabled:
            await self.deliveries.cancel(hook_id)
        return hook

    async def remove(self, hook_id: str) -> None:
        """Delete a hook and cancel its deliveries."""
        del self.hooks[hook_id]
        await self.deliveries.cancel(hook_id)

    async def check(self, filter_: str, projection: str) -> None:
        """Raise GroqError if the filter or the projection cannot be evaluated."""
        document = {"_id": "example", "_type": "example", "_rev": "example"}
        for text in (filter_ or "true", projection or "after()"):
            await self._groq.delta("true", text, document, document, rfc3339(self._clock()))

    def publish(self, transaction: Transaction) -> None:
        """Match a transaction against the hooks in the background. Raises RuntimeError if the evaluator stopped."""
        if self._matcher.done():
            self._matcher.result()
        if self.hooks:
            self._transactions.put_nowait(transaction)

    async def matched(self) -> None:
        """Wait until every transaction published so far has been matched."""
        await self._transactions.join()

    async def idle(self) -> None:
        """Wait until every message so far is delivered or given up. Raises the GroqError of a broken hook."""
        await self.matched()
        await self.deliveries.idle()
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    async def reset(self) -> None:
        """Remove all hooks and delivery faults."""
        self.hooks.clear()
        await self.deliveries.reset()

    async def close(self) -> None:
        """Stop matching and delivering."""
        self._matcher.cancel()
        await asyncio.wait({self._matcher})
        await self.deliveries.close()

    async def _match_all(self) -> None:
        while True:
            transaction = await self._transactions.get()
            try:
                for change in transaction.changes:
                    for hook in tuple(self.hooks.values()):
                        if hook.covers(change, self._dataset):
                            await self._match(hook, change, transaction)
            finally:
                self._transactions.task_done()

    async def _match(self, hook: Hook, change: Change, transaction: Transaction) -> None:
        projection = hook.projection or "after()"
        try:
            is_match, payload = await self._groq.delta(
                hook.filter or "true",
                projection,
                change.before,
                change.after,
                transaction.time,
                identity=transaction.author,
            )
        except GroqError as error:
            self._error = error
            return
        if is_match and hook.id in self.hooks:
            self.deliveries.send(self._message(hook, change, transaction, payload))

    def _message(self, hook: Hook, change: Change, transaction: Transaction, payload: Any) -> Message:
        body = json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()
        message_id = self.new_id()
        headers = {
            "content-type": "application/json",
            "connection": "close",
            "accept-encoding": "gzip",
            "user-agent": "Sanity.io webhook delivery",
            "idempotency-key": message_id,
            "sanity-transaction-id": transaction.id,
            "sanity-transaction-time": transaction.time,
            "sanity-dataset": self._dataset,
            "sanity-document-id": change.id,
            "sanity-project-id": self._project_id,
            "sanity-webhook-id": hook.id,
            "sanity-operation": change.operation,
            **hook.headers,
        }
        now = self._clock()
        if hook.secret:
            headers["sanity-webhook-signature"] = sign(body, hook.secret, milliseconds(now))
        return Message(message_id, hook.id, hook.http_method, hook.url, lambda: headers, body, rfc3339(now))

"""A local Content Lake: one dataset, with its document store, a query index that may lag, webhooks and listeners.

As in the service, a transaction is in the document store and in the transaction log at once, webhooks and listeners
receive it then, and queries see it `lag` seconds later. `lake_routes` serves it over HTTP.
"""

from __future__ import annotations

import json
import string
import time
from random import Random
from typing import TYPE_CHECKING, Any, Self

from sync_worker.sandbox.clock import rfc3339
from sync_worker.sandbox.documents import AUTHOR, Document, DocumentStore, Mutation, Transaction
from sync_worker.sandbox.faults import BAD_GATEWAY, Answer, Faults
from sync_worker.sandbox.groq import Groq
from sync_worker.sandbox.listeners import Listeners
from sync_worker.sandbox.mutation_events import failure
from sync_worker.sandbox.query_index import QueryIndex
from sync_worker.sandbox.traffic import Traffic
from sync_worker.sandbox.transaction_log import TransactionLog
from sync_worker.sandbox.webhooks import OPERATIONS, Hook, Webhooks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

ALPHABET = string.ascii_letters + string.digits
ID_LENGTH = 22

UNAUTHORIZED = {"errorCode": "SIO-401-ANF", "error": "Unauthorized", "message": "Session not found"}

ANSWERS = {
    "unauthorized": Answer.json(401, UNAUTHORIZED),
    "forbidden": Answer.json(403, {"statusCode": 403, "error": "Forbidden", "message": "Insufficient permissions"}),
    "no_dataset": Answer.json(404, {"statusCode": 404, "error": "Not Found", "message": "Dataset not found"}),
    "rate_limited": Answer.json(
        429, {"statusCode": 429, "error": "Too Many Requests", "message": "Rate limit exceeded"}, retry_after=1
    ),
    "internal": Answer.json(500, {"error": {"type": "internalError", "description": "Internal server error"}}),
    "bad_gateway": BAD_GATEWAY,
    "unavailable": Answer.json(503, {"statusCode": 503, "error": "Service Unavailable", "message": "Try again later"}),
    "channel_error": Answer(200, failure({"description": "the channel failed"}), "text/event-stream"),
    "error_in_ok": Answer.json(200, {"error": {"type": "queryError", "description": "query timed out"}}),
}


class ContentLake:
    """One project and dataset. Use it as an async context manager.

    `token` may do everything, `viewer_token` may read; `authors` has the tokens that may do everything and the users
    that they belong to, `editors` the names of users by id. `documents` is the document store, by id; queries are `lag`
    seconds behind it. `public` lets requests without a token read published documents whose id has no dot. `index`,
    `webhooks` and `listeners` exist once it is entered.
    """

    index: QueryIndex
    webhooks: Webhooks
    listeners: Listeners

    def __init__(
        self,
        project_id: str = "sandbox",
        dataset: str = "production",
        token: str = "sk-sandbox",  # noqa: S107  a key of the sandbox, not a secret
        *,
        public: bool = False,
        clock: Callable[[], float] = time.time,
        random: Random | None = None,
    ) -> None:
        self.project_id = project_id
        self.dataset = dataset
        self.token = token
        self.viewer_token = f"{token}-viewer"
        self.public = self._public_at_first = public
        self.clock = clock
        self.random = random or Random(0)
        self.faults = Faults(ANSWERS, self.random)
        self.requests = Traffic()
        self.authors = {token: AUTHOR}
        self.editors = {AUTHOR: "Sandbox Editor"}
        self.log = TransactionLog(clock)
        self._store = DocumentStore()
        self._groq = Groq(project_id, dataset)

    async def __aenter__(self) -> Self:
        await self._groq.__aenter__()
        self.webhooks = Webhooks(self._groq, self.project_id, self.dataset, self.clock, self.random)
        self.listeners = Listeners(self._groq, self.log, self.new_id, self.random)
        self.index = QueryIndex(self._groq, lambda transaction: self.listeners.publish(transaction, "query"))
        return self

    async def __aexit__(self, *_: object) -> None:
        self.faults.clear()
        self.listeners.reset()
        await self.webhooks.close()
        await self.index.close()
        await self._groq.__aexit__()

    @property
    def documents(self) -> dict[str, Document]:
        """The document store by id. Change it with `mutate`."""
        return self._store.documents

    @property
    def lag(self) -> float:
        """Seconds by which queries are behind the documents."""
        return self.index.lag

    @lag.setter
    def lag(self, seconds: float) -> None:
        self.index.lag = seconds

    def new_id(self) -> str:
        """Return a fresh id like Sanity's."""
        return "".join(self.random.choices(ALPHABET, k=ID_LENGTH))

    async def mutate(
        self, mutations: Sequence[Mutation], *, transaction_id: str | None = None, author: str | None = None
    ) -> str:
        """Apply one transaction and return its id, which is the `_rev` of the documents it wrote.

        Without lag, queries see it on return; with lag, wait for `indexed`. Without `author`, it is the user of
        `token`. Raises MutationError.
        """
        return (await self.transact(mutations, transaction_id=transaction_id, author=author)).id

    async def transact(
        self,
        mutations: Sequence[Mutation],
        *,
        transaction_id: str | None = None,
        author: str | None = None,
        dry_run: bool = False,
    ) -> Transaction:
        """Apply one transaction, or only return what it would do. Raises MutationError."""
        expanded = [single for mutation in mutations for single in await self._expand(mutation)]
        now = rfc3339(self.clock())
        author = author or self.authors[self.token]
        transaction = self._store.prepare(expanded, transaction_id or self.new_id(), now, self.new_id, author)
        if dry_run:
            return transaction
        self._store.commit(transaction)
        self.log.append(transaction)
        self.listeners.publish(transaction, "transaction")
        self.index.put(transaction)
        if not self.lag:
            await self.indexed()
        self.webhooks.publish(transaction)
        return transaction

    async def _expand(self, mutation: Mutation) -> list[Mutation]:
        """Expand a patch or delete by query into one mutation per document found."""
        ((name, body),) = mutation.items()
        if name not in {"patch", "delete"} or "query" not in body:
            return [mutation]
        found = await self.query(body["query"], body.get("params", {}), perspective="raw")
        rest = {key: value for key, value in body.items() if key not in {"query", "params"}}
        return [{name: {**rest, "id": document["_id"]}} for document in found]

    async def load(self, documents: Iterable[Mapping[str, Any]]) -> None:
        """Import many documents at once, without lag, webhooks and events: as if they were older than the log."""
        mutations = [{"createOrReplace": dict(document)} for document in documents]
        now = rfc3339(self.clock())
        transaction = self._store.prepare(mutations, self.new_id(), now, self.new_id)
        self._store.commit(transaction)
        await self._groq.apply([change.after for change in transaction.changes if change.after is not None])

    async def show(self, documents: Mapping[str, Document]) -> None:
        """Let queries see these documents, by id: an earlier state, as from a replica that has fallen behind.

        Later transactions are seen on top of them. `show(lake.documents)` brings queries up to date.
        """
        await self.indexed()
        await self._groq.clear()
        await self._groq.apply(list(documents.values()))

    async def indexed(self) -> None:
        """Wait until queries see every transaction made so far."""
        await self.index.caught_up()

    async def query(
        self, query: str, params: Mapping[str, Any] | None = None, *, perspective: str = "published"
    ) -> Any:
        """Return the result of a GROQ query over the query index. Raises GroqError."""
        return json.loads(await self.query_json(query, params or {}, perspective=perspective))

    async def query_json(self, query: str, params: Mapping[str, Any], *, perspective: str) -> bytes:
        """Return the result as JSON text. Raises GroqError."""
        return await self._groq.query(query, params, perspective, rfc3339(self.clock()))

    def add_hook(
        self,
        url: str,
        *,
        secret: str = "",
        filter: str = "",  # noqa: A002  Sanity's name
        projection: str = "",
        on: Sequence[str] = OPERATIONS,
        include_drafts: bool = False,
    ) -> Hook:
        """Configure a webhook."""
        return self.webhooks.add(
            url=url,
            secret=secret,
            filter=filter,
            projection=projection,
            on=tuple(on),
            include_drafts=include_drafts,
            dataset=self.dataset,
        )

    async def hooks_idle(self) -> None:
        """Wait until all webhooks of the transactions so far are delivered or given up."""
        await self.webhooks.idle()

    async def reset(self) -> None:
        """Empty the dataset: no documents, hooks, listeners, faults, lag, log or logged requests."""
        self.lag = 0.0
        self.faults.clear()
        self.listeners.reset()
        await self.webhooks.reset()
        await self.indexed()
        self._store.clear()
        self.log.clear()
        self.authors = {self.token: AUTHOR}
        await self._groq.clear()
        self.requests.clear()
        self.public = self._public_at_first

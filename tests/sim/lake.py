"""The Content Lake: a document store, a query index behind it, and the HTTP that the worker uses.

Transactions are those of the sandbox; `groq` answers queries from a state of the documents that is up to five seconds
old. States are numbered, so that the watch knows which one a read showed. `hooks` has the webhooks.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from sync_worker.sandbox.clock import rfc3339
from sync_worker.sandbox.documents import DocumentStore, MutationError, Transaction
from sync_worker.sanity.client import NAMES, Queries
from tests.sim import groq
from tests.sim.network import Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

    import httpx

    from sync_worker.sandbox.documents import Mutation

TOKEN = "sk-sandbox"
PAGE = 3
"""Rows in a page of a query: few documents are to be many pages."""
QUERIES = Queries(**dict(zip(NAMES, NAMES, strict=True)), folder=None)
"""Each query's text is its name: a long address costs a millisecond, and nobody above the transport reads the text."""


@dataclass(frozen=True)
class State:
    """The published documents after so many transactions."""

    number: int
    documents: groq.Documents
    at: str = ""


@dataclass(frozen=True)
class Read:
    """One answer: the state that it shows and the ids that were requested.

    One of the document store shows documents, whomever they are about, and may prove that they are gone.
    """

    state: int
    ids: frozenset[str]
    stored: bool = False


class Lake:
    """One dataset. `lag` is how many seconds new transactions stay invisible to queries; `reported` hears of each.

    `fallen_back` is an earlier state, which half of the queries see, as from a replica that has fallen behind. The log
    has the last `log_kept` seconds; `log_fault` is what is wrong with it.
    While it is `blind`, it answers as to a token that may read nothing. `short_pages` is the fraction of pages that are
    cut short, which is no trouble to anybody.
    """

    def __init__(self, clock: Callable[[], float], random: Random, short_pages: float, log_kept: float) -> None:
        self.clock = clock
        self.random = random
        self.store = DocumentStore()
        self.history: list[State] = [State(0, {})]
        self.lag = 0.0
        self.fallen_back: int | None = None
        self.dataset_empty = False
        self.log_kept = log_kept
        self.log_fault = ""
        self.short_pages = short_pages
        self.key_works = True
        self.reported: list[Callable[[Transaction, int], None]] = []
        self._visible_from: list[float] = [0.0]
        self._shown = 0
        self._ids = 0

    @property
    def now(self) -> State:
        """What is published."""
        return self.history[-1]

    @property
    def index(self) -> State:
        """What queries see; transactions become visible in their order."""
        while self._shown + 1 < len(self.history) and self._visible_from[self._shown + 1] <= self.clock():
            self._shown += 1
        return self.history[self._shown]

    def fall_back(self, states: int, seconds: float) -> int:
        """Let half of the queries see an earlier state, by at most so many states and seconds; return its number."""
        oldest = next(
            n for n, since in enumerate(self._visible_from) if n == self.index.number or since > self.clock() - seconds
        )
        self.fallen_back = max(oldest, self.index.number - states)
        return self.fallen_back

    def mutate(self, mutations: Sequence[Mutation]) -> bool:
        """Apply one transaction; False when the service refuses it, as it does for what is still referred to."""
        self._ids += 1
        try:
            transaction = self.store.prepare(mutations, f"r{self._ids}", rfc3339(self.clock()), lambda: "unused")
        except MutationError:
            return False
        self.store.commit(transaction)
        self.history.append(State(len(self.history), groq.published(self.store.documents), rfc3339(self.clock())))
        self._visible_from.append(max(self._visible_from[-1], self.clock() + self.random.uniform(0.3, 1.0) * self.lag))
        for publish in self.reported:
            publish(transaction, self.now.number)
        return True

    def serve(self, request: httpx.Request) -> Reply:
        """Answer one request."""
        if not self.key_works or request.headers.get("authorization") != f"Bearer {TOKEN}":
            return Reply.json(401, {"statusCode": 401, "error": "Unauthorized", "message": "Session not found"})
        _, _, _, what, _, *rest = request.url.path.split("/", 5)
        if what == "doc":
            return self._documents(rest[0].split(","))
        if what == "history":
            return self._transactions(request.url.params)
        query, parameters = _asked(request)
        state = self.index
        if self.fallen_back is not None and self.random.random() < 0.5:
            state = self.history[min(state.number, self.fallen_back)]
        result = groq.MEANINGS[query]({} if self.dataset_empty else state.documents, parameters, PAGE)
        if "remaining" in result and self.random.random() < self.short_pages:
            del result["entitlements"][self.random.randrange(1, PAGE) :]
        read = Read(state.number, frozenset((*parameters.get("users", ()), *parameters.get("organizations", ()))))
        body = json.dumps({"ms": 1, "result": result}).encode()
        return Reply(200, body, read=read)

    def _transactions(self, given: httpx.QueryParams) -> Reply:
        """Answer with the log of deletes; to a token that may read nothing with 403."""
        if self.log_fault == "unavailable":
            return Reply.json(503, {"statusCode": 503, "error": "Service Unavailable", "message": "Try again later"})
        if self.dataset_empty or self.log_fault == "forbidden":
            return Reply.json(403, {"statusCode": 403, "error": "Forbidden", "message": "Insufficient permissions"})
        lines = [
            {"id": f"t{state.number}", "mutations": [{"delete": {"id": id_}} for id_ in sorted(gone)]}
            for before, state in pairwise(self.history)
            if (gone := before.documents.keys() - state.documents.keys())
            and max(given.get("fromTime", ""), rfc3339(self.clock() - self.log_kept)) <= state.at <= given["toTime"]
        ]
        text = list(map(json.dumps, lines))
        if self.log_fault:
            text[len(text) // 2 :] = [
                {"garbled": '{"id": "t1", "muta', "error line": '{"error": "timeout"}'}[self.log_fault]
            ]
        return Reply(200, "\n".join(text).encode())

    def _documents(self, ids: Sequence[str]) -> Reply:
        requested = [unquote(id_) for id_ in ids]
        if self.dataset_empty:
            return Reply.json(200, {"documents": [], "omitted": [{"id": i, "reason": "permission"} for i in requested]})
        found = [self.store.documents[id_] for id_ in requested if id_ in self.store.documents]
        omitted = [{"id": id_, "reason": "existence"} for id_ in requested if id_ not in self.store.documents]
        body = json.dumps({"documents": found, "omitted": omitted}).encode()
        return Reply(200, body, read=Read(self.now.number, frozenset(), stored=True))


def _asked(request: httpx.Request) -> tuple[str, dict[str, Any]]:
    """Return the query and its parameters, from the address or from the body."""
    if request.method == "POST":
        body = json.loads(request.content)
        return body["query"], body["params"]
    given = request.url.params
    assert given["perspective"] == "published"
    return given["query"], {name[1:]: json.loads(value) for name, value in given.items() if name.startswith("$")}

"""Real GROQ: a Node.js process that runs groq-js and holds the query index, used over stdin and stdout."""

from __future__ import annotations

import asyncio
import itertools
import json
from asyncio.subprocess import PIPE
from typing import TYPE_CHECKING, Any, Self

from sync_worker.sandbox.documents import AUTHOR
from sync_worker.sandbox.node import HERE, groq_js, node_binary

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import Mapping, Sequence

LONGEST_ANSWER = 1 << 30
"""Bytes."""
PATIENCE = 5.0
"""Seconds until a process that does not end by itself is killed."""
BATCH = 5_000


class GroqError(Exception):
    """A query was refused. `details` are `description` and, for a parse error, `type`, `start` and `end`."""

    def __init__(self, details: Mapping[str, Any]) -> None:
        self.details = details
        super().__init__(details["description"])


class Groq:
    """The evaluator. Use it as an async context manager; it answers requests in order."""

    def __init__(self, project_id: str, dataset: str) -> None:
        self._sanity = {"projectId": project_id, "dataset": dataset}
        self._ids = itertools.count()
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._process: Process | None = None
        self._reader: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        command = [str(node_binary()), str(HERE / "groq.mjs"), (await groq_js()).as_uri()]
        # In its own session, it is not interrupted by Ctrl-C before its work is done.
        self._process = await asyncio.create_subprocess_exec(
            *command, stdin=PIPE, stdout=PIPE, limit=LONGEST_ANSWER, start_new_session=True
        )
        self._reader = asyncio.create_task(self._read(self._process))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process is None or self._process.stdin is None or self._reader is None:
            return
        self._process.stdin.close()
        try:
            async with asyncio.timeout(PATIENCE):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
        await self._reader
        await self._process.wait()

    async def apply(self, puts: Sequence[Mapping[str, Any]], drops: Sequence[str] = ()) -> None:
        """Put documents into the query index, and drop ids from it."""
        for start in range(0, max(len(puts), 1), BATCH):
            await self._request("apply", puts=puts[start : start + BATCH], drops=drops if start == 0 else ())

    async def clear(self) -> None:
        """Empty the query index."""
        await self._request("clear")

    async def query(
        self,
        query: str,
        params: Mapping[str, Any],
        perspective: str,
        now: str,
        *,
        is_plain: bool = False,
    ) -> bytes:
        """Return the result as JSON.

        `perspective` is raw, published, anonymous (published, and no dot in the id), or a comma list of drafts and
        releases. `is_plain` evaluates the unoptimized tree over all documents. Raises GroqError.
        """
        return await self._request(
            "query", query=query, params=params, perspective=perspective, now=now, sanity=self._sanity, isPlain=is_plain
        )

    async def matches(
        self, query: str, params: Mapping[str, Any], documents: Sequence[Mapping[str, Any] | None], now: str
    ) -> list[bool]:
        """Return for each document whether a listener's query selects it; None never is. Raises GroqError.

        As in the service, each document is evaluated alone, and order, slices and projections do not count.
        """
        answer: list[bool] = json.loads(
            await self._request(
                "matches", query=query, params=params, documents=documents, now=now, sanity=self._sanity
            )
        )
        return answer

    async def delta(
        self, filter_: str, projection: str, before: Any, after: Any, now: str, *, identity: str = AUTHOR
    ) -> tuple[bool, Any]:
        """Return whether a change matches a webhook's filter, and the projection of it. Raises GroqError.

        `identity` is the author of the change.
        """
        answer = json.loads(
            await self._request(
                "delta",
                filter=filter_,
                projection=projection,
                before=before,
                after=after,
                now=now,
                sanity=self._sanity,
                identity=identity,
            )
        )
        return answer["isMatch"], answer["payload"]

    async def _request(self, op: str, **request: Any) -> bytes:
        if self._process is None or self._process.stdin is None:
            message = "the evaluator is not running"
            raise RuntimeError(message)
        number = next(self._ids)
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        line = json.dumps({"id": number, "op": op, **request}, separators=(",", ":"))
        self._process.stdin.write(line.encode() + b"\n")
        await self._process.stdin.drain()
        return await answer

    async def _read(self, process: Process) -> None:
        if process.stdout is None:
            return
        try:
            async for line in process.stdout:
                number, verdict, body = line.rstrip(b"\n").split(b" ", 2)
                answer = self._waiting.pop(int(number))
                if answer.done():
                    continue
                if verdict == b"ok":
                    answer.set_result(body)
                else:
                    answer.set_exception(GroqError(json.loads(body)))
        finally:
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(RuntimeError("the evaluator stopped"))

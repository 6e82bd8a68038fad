"""Real GROQ: one Node.js process with groq-js, asked over its stdin and stdout.

Why it exists: only groq-js evaluates GROQ outside of Sanity, and it is JavaScript. The process holds the *query index*;
the document store, which is the truth, is `content_lake`. How queries are made fast is `rewrite.mjs` and `views.mjs`.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from asyncio.subprocess import PIPE
from typing import TYPE_CHECKING, Any, Self

from sync_worker.sandbox.node import HERE, groq_js, node_binary

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import Mapping, Sequence

LONGEST_ANSWER = 1 << 30
"""Bytes."""
PATIENCE = 5.0
"""Seconds in which the process has to end by itself."""
BATCH = 5_000


class GroqError(Exception):
    """A query was refused. `details` are `description` and, for a parse error, `type`, `start` and `end`."""

    def __init__(self, details: Mapping[str, Any]) -> None:
        self.details = details
        super().__init__(details["description"])


class Groq:
    """The evaluator. Use it as an async context manager; its answers come in the order of the requests."""

    def __init__(self, project_id: str, dataset: str) -> None:
        self._sanity = {"projectId": project_id, "dataset": dataset}
        self._ids = itertools.count()
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._process: Process | None = None
        self._reader: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        command = [str(node_binary()), str(HERE / "groq.mjs"), (await groq_js()).as_uri()]
        # In a session of its own a Ctrl-C does not end it before its work is done.
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
        """Bring documents into the query index and take ids out of it."""
        for start in range(0, max(len(puts), 1), BATCH):
            await self._ask("apply", puts=puts[start : start + BATCH], drops=drops if start == 0 else ())

    async def clear(self) -> None:
        """Empty the query index."""
        await self._ask("clear")

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

        `perspective` is raw, published, anonymous (published and undotted ids), or a comma list of drafts and releases.
        `is_plain` evaluates the tree as groq-js parsed it, over all documents. Raises GroqError.
        """
        return await self._ask(
            "query", query=query, params=params, perspective=perspective, now=now, sanity=self._sanity, isPlain=is_plain
        )

    async def delta(self, filter_: str, projection: str, before: Any, after: Any, now: str) -> tuple[bool, Any]:
        """Return whether one document's change matches a webhook's filter, and its projection. Raises GroqError."""
        answer = json.loads(
            await self._ask(
                "delta",
                filter=filter_,
                projection=projection,
                before=before,
                after=after,
                now=now,
                sanity=self._sanity,
            )
        )
        return answer["isMatch"], answer["payload"]

    async def _ask(self, op: str, **request: Any) -> bytes:
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

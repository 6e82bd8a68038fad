"""The query index: what GROQ queries see, `lag` seconds behind the document store.

A change of `lag` also applies to transactions that wait already. The documents themselves are in the `groq` process.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from sync_worker.sandbox.documents import Transaction
    from sync_worker.sandbox.groq import Groq


class QueryIndex:
    """Applies each transaction `lag` seconds after its commit, in order, and then calls `on_applied` with it.

    Create it inside the running event loop.
    """

    def __init__(self, groq: Groq, on_applied: Callable[[Transaction], None]) -> None:
        self._groq = groq
        self._on_applied = on_applied
        self._lag = 0.0
        self._lag_changed = asyncio.Event()
        self._waiting: asyncio.Queue[tuple[float, Transaction]] = asyncio.Queue()
        self._applier = asyncio.create_task(self._apply_all())

    @property
    def lag(self) -> float:
        """Seconds behind the document store."""
        return self._lag

    @lag.setter
    def lag(self, seconds: float) -> None:
        self._lag = seconds
        self._lag_changed.set()

    def put(self, transaction: Transaction) -> None:
        """Accept a transaction that was just committed. Raises RuntimeError if the evaluator has stopped."""
        if self._applier.done():
            self._applier.result()
        self._waiting.put_nowait((asyncio.get_running_loop().time(), transaction))

    async def caught_up(self) -> None:
        """Wait until queries see every transaction accepted so far."""
        await self._waiting.join()

    async def close(self) -> None:
        """Stop; transactions that still wait are dropped."""
        self._applier.cancel()
        await asyncio.wait({self._applier})

    async def _apply_all(self) -> None:
        while True:
            committed, transaction = await self._waiting.get()
            try:
                await self._due(committed)
                puts = [change.after for change in transaction.changes if change.after is not None]
                drops = [change.id for change in transaction.changes if change.after is None]
                await self._groq.apply(puts, drops)
                self._on_applied(transaction)
            finally:
                self._waiting.task_done()

    async def _due(self, committed: float) -> None:
        loop = asyncio.get_running_loop()
        while (left := committed + self._lag - loop.time()) > 0:
            self._lag_changed.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._lag_changed.wait(), left)

"""Items for a worker with the real parts, and the rows that become of them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from sync_worker.storage.work_items import WorkItem
from tests.oracle import until_seen

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.parts import Parts


async def enqueue(parts: Parts, *subjects: str, **given: Any) -> None:
    await parts.store.queue.enqueue([WorkItem(subject, **given) for subject in subjects])


async def row_of(parts: Parts, key: str) -> Any:
    return await parts.store.queue.get(key)


async def row_when(parts: Parts, key: str, is_so: Callable[[Any], object]) -> Any:
    """Wait until the row of a key `is_so`, and return it."""
    return await until_seen(partial(row_of, parts, key), is_so)

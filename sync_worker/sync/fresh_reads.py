"""Reads again while Sanity's query index lags behind the events: the one place that waits for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

from sync_worker.domain.freshness import is_ambiguous, matches_store, reflects
from sync_worker.domain.revisions import revision_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence

    from sync_worker.domain.clock import Clock
    from sync_worker.domain.freshness import DocumentRevision
    from sync_worker.domain.revisions import ExpectedRevision
    from sync_worker.domain.timings import Timings
    from sync_worker.sanity.source import Source


class Dated(Protocol):
    """A read that says which revisions it shows."""

    @property
    def revisions(self) -> Mapping[str, DocumentRevision] | None:
        """Return the revisions by document."""


Key = TypeVar("Key")
Read = TypeVar("Read", bound=Dated)


async def read_until_fresh(
    read: Callable[[Collection[Key]], Awaitable[Read]],
    expected: Mapping[Key, Sequence[ExpectedRevision]],
    *,
    source: Source,
    clock: Clock,
    timings: Timings,
) -> AsyncIterator[tuple[Read, list[Key], dict[Key, list[str]]]]:
    """Call `read` for the keys that still wait, until it reflects all that is `expected` of each.

    Yields a read with the keys it is fresh for, and the keys given up with the documents it shows out of date. Each
    key is yielded once, as soon as it is decided.
    """
    waiting = dict(expected)
    for wait in (*timings.stale_read_waits, None):
        result = await read(waiting.keys())
        behind = await _behind(result.revisions or {}, waiting, source, last=wait is None)
        # Two publishes in one moment leave no revision to wait for: a further read would not tell which was the last.
        lagging = {key for key, missed in behind.items() if wait is not None and any(revision_of(e) for e in missed)}
        fresh = [key for key in waiting if key not in behind]
        stale = {key: [e.document for e in missed] for key, missed in behind.items() if key not in lagging}
        if fresh or stale:
            yield result, fresh, stale
        waiting = {key: waiting[key] for key in waiting if key in lagging}
        if wait is None or not waiting:
            return
        await clock.sleep(wait)


async def _behind(
    revisions: Mapping[str, DocumentRevision],
    waiting: Mapping[Key, Sequence[ExpectedRevision]],
    source: Source,
    *,
    last: bool,
) -> dict[Key, list[ExpectedRevision]]:
    """Return the keys that a read is not fresh for, with what it does not reflect.

    The document store decides where the index cannot: after the `last` wait, and between revisions of one moment.
    """
    behind = {key: [e for e in some if not reflects(revisions, e)] for key, some in waiting.items()}
    undecided = [
        key for key, missed in behind.items() if missed and (last or any(is_ambiguous(revisions, e) for e in missed))
    ]
    if undecided:
        stored = await source.stored({e.document for key in undecided for e in behind[key]})
        for key in undecided:
            behind[key] = [e for e in behind[key] if not matches_store(revisions, stored, e.document)]
    return {key: missed for key, missed in behind.items() if missed}

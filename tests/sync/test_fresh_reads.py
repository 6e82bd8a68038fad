"""Reads that lag behind their events are made again; each key is decided once, as soon as it can be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import pytest

from sync_worker.domain.freshness import DocumentRevision, Stored
from sync_worker.domain.revisions import Ambiguous, ExpectedRevision, Updated
from sync_worker.sync.fresh_reads import read_until_fresh
from tests.clock import TIMINGS, ManualClock

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from sync_worker.sanity.source import Source

pytestmark = pytest.mark.anyio
OLD, NEW = DocumentRevision("old", 0), DocumentRevision("new", 1_000_000)
PUBLISHED = Updated("e1", "new", 1_000_000)
TWO_IN_ONE_MOMENT = Ambiguous("e2", 0)


@dataclass(frozen=True)
class Shown:
    revisions: Mapping[str, DocumentRevision]


class Store:
    """The document store; `requested` are the documents that were looked up in it."""

    def __init__(self, **documents: DocumentRevision) -> None:
        self.documents = documents
        self.requested: list[set[str]] = []

    async def stored(self, ids: Collection[str]) -> Stored:
        self.requested.append(set(ids))
        return Stored(self.documents, frozenset(set(ids) - self.documents.keys()))


Decided = tuple[list[str], dict[str, list[str]]]


async def decided(
    index: Sequence[Mapping[str, DocumentRevision]], store: Store, clock: ManualClock, **expected: ExpectedRevision
) -> list[Decided]:
    """Return what was decided by the reads of an index that shows one state after the other, and then the last."""
    states = list(index)

    async def read(_: Collection[str]) -> Shown:
        return Shown(states.pop(0) if len(states) > 1 else states[0])

    wanted = {key: [one] for key, one in expected.items()}
    reads = read_until_fresh(read, wanted, source=cast("Source", store), clock=clock, timings=TIMINGS)
    return [(fresh, stale) async for _, fresh, stale in reads]


async def test_a_fresh_read_is_the_only_one() -> None:
    clock, store = ManualClock(), Store()
    assert await decided([{"e1": NEW}], store, clock, ada=PUBLISHED) == [(["ada"], {})]
    assert (clock.slept, store.requested) == ([], [])


async def test_who_is_fresh_does_not_wait_for_who_lags() -> None:
    clock = ManualClock()
    known = Updated("e3", "r", 0)
    fresh = {"e3": DocumentRevision("r", 0)}
    found = await decided([{**fresh, "e1": OLD}, {**fresh, "e1": NEW}], Store(), clock, ada=PUBLISHED, ben=known)
    assert found == [(["ben"], {}), (["ada"], {})]
    assert clock.slept == [TIMINGS.stale_read_waits[0]]


async def test_after_the_last_wait_the_document_store_decides_that_the_read_is_as_new_as_can_be() -> None:
    clock = ManualClock()
    assert await decided([{"e1": OLD}], Store(e1=OLD), clock, ada=PUBLISHED) == [(["ada"], {})]
    assert clock.slept == list(TIMINGS.stale_read_waits)


async def test_after_the_last_wait_a_read_that_is_older_than_the_document_store_is_given_up() -> None:
    clock = ManualClock()
    assert await decided([{"e1": OLD}], Store(e1=NEW), clock, ada=PUBLISHED) == [([], {"ada": ["e1"]})]
    assert clock.slept == list(TIMINGS.stale_read_waits)


async def test_between_two_publishes_of_one_moment_the_document_store_decides_at_once() -> None:
    clock, store = ManualClock(), Store(e2=OLD)
    assert await decided([{"e2": OLD}], store, clock, ada=TWO_IN_ONE_MOMENT) == [(["ada"], {})]
    assert (clock.slept, store.requested) == ([], [{"e2"}])


async def test_where_waiting_cannot_help_a_key_is_given_up_at_once() -> None:
    clock = ManualClock()
    assert await decided([{"e2": OLD}], Store(e2=NEW), clock, ada=TWO_IN_ONE_MOMENT) == [([], {"ada": ["e2"]})]
    assert clock.slept == []

"""What operators are notified of, read from the database."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from sync_worker.diagnostics.situations import EVENTS, SituationReader
from sync_worker.runtime.wiring import Runtime, Store, open_store
from sync_worker.storage.approvals import HeldChange
from sync_worker.storage.counters import MISSED_WEBHOOKS
from sync_worker.storage.reconcile_runs import LastSuccess
from sync_worker.storage.state import PAGES_URL, STOPPED
from sync_worker.storage.work_items import DeadLettered, WorkItem
from tests.clock import TIMINGS, ManualClock
from tests.parts import settings_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sync_worker.sandbox.server import Sandbox
    from sync_worker.storage.notices import Situation

pytestmark = pytest.mark.anyio
ADDRESS = "ada@example.org"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def store(box: Sandbox, sqlite_url: str, clock: ManualClock) -> AsyncIterator[Store]:
    async with open_store(settings_of(box, sqlite_url), Runtime(clock, TIMINGS)) as store:
        yield store


async def situations(store: Store) -> list[Situation]:
    return await SituationReader(store.queue, store.approvals, TIMINGS, "p/production").read()


async def give_up(store: Store, *keys: str, code: str = "no_such_subject") -> None:
    await store.queue.enqueue([WorkItem(key) for key in keys])
    claims = [*await store.queue.claim(0, 100, 30.0), *await store.queue.claim_lookups(0, 100, 30.0)]
    assert len(claims) == len(keys)
    await store.queue.complete([DeadLettered(claim, code, f"about {ADDRESS}", None) for claim in claims])


async def test_a_healthy_installation_has_no_situation(store: Store) -> None:
    assert await situations(store) == []


async def test_a_held_list_with_its_size_and_what_to_run(store: Store) -> None:
    changes = [HeldChange(f"user:user_{n}", {"plan": "pro"}, {}) for n in range(31)]
    lists = await store.approvals.hold("document:plan-1", changes, f"31 would lose access by {ADDRESS}")
    (id_,) = set(lists.values())
    (one,) = await situations(store)
    assert (one.event, one.cause, one.size, one.facts["changeset"]) == ("losses_held", id_, 31, id_)
    assert f"sync-worker approve {id_}" in one.text
    assert one.text.startswith("Sync of p/production: 31 subjects would lose access")
    assert ADDRESS not in one.text


async def test_a_notice_links_to_its_page_once_it_is_known_where_the_pages_are(store: Store) -> None:
    await store.approvals.hold("document:plan-1", [HeldChange("user:user_1", {"plan": "pro"}, {})], "1 too many")
    await store.queue.count({MISSED_WEBHOOKS: 4})
    assert all("link" not in one.facts and "https://" not in one.text for one in await situations(store))
    await store.queue.remember(PAGES_URL, "https://sync.example.com")
    held, missed = await situations(store)
    assert held.facts["link"] == f"https://sync.example.com/held/{held.cause}"
    assert held.text.endswith(f" https://sync.example.com/held/{held.cause}")
    assert missed.facts["link"] == "https://sync.example.com/status"


async def test_stopped_work_with_the_reason_until_the_worker_says_it_no_more(store: Store, clock: ManualClock) -> None:
    await store.queue.remember(STOPPED, "credentials_refused")
    (one,) = await situations(store)
    assert (one.event, one.cause) == ("work_stopped", "credentials_refused")
    assert "The service rejected our credentials." in one.text
    clock.advance(120)
    assert await situations(store) == []


async def test_missed_webhooks_with_their_number(store: Store) -> None:
    await store.queue.count({MISSED_WEBHOOKS: 4})
    (one,) = await situations(store)
    assert (one.event, one.size, one.facts["total"]) == ("webhooks_missed", 4, 4)


async def test_subjects_that_were_given_up_by_reason_and_without_addresses(store: Store) -> None:
    await give_up(store, "user:user_1", "user:user_2", f"email:{ADDRESS}")
    await give_up(store, "org:org_1", code="access_too_large")
    found = await situations(store)
    assert [(one.event, one.cause, one.size) for one in found] == [
        ("subject_given_up", "access_too_large", 1),
        ("subject_given_up", "no_such_subject", 3),
    ]
    assert all("example.org" not in json.dumps([one.text, dict(one.facts)]) for one in found)


async def test_each_reconcile_that_failed_is_news(store: Store, clock: ManualClock) -> None:
    await store.runs.remember_end(well=False)
    (first,) = await situations(store)
    clock.advance(86_400)
    await store.runs.remember_end(well=False)
    (second, *_) = await situations(store)
    assert (first.event, second.size > first.size) == ("reconcile_failed", True)
    await store.runs.remember_end(well=True)
    assert "reconcile_failed" not in {one.event for one in await situations(store)}


async def test_an_overdue_reconcile_is_news_every_day(store: Store, clock: ManualClock) -> None:
    await store.runs.remember_good(LastSuccess(1, 1))
    clock.advance(TIMINGS.reconcile_stale_after)
    (first,) = await situations(store)
    clock.advance(86_400)
    (second,) = await situations(store)
    assert (first.event, first.facts["hours"], second.size) == ("reconcile_overdue", 26, first.size + 1)


def test_the_events_are_these() -> None:
    assert set(EVENTS) == {
        *("losses_held", "work_stopped", "webhooks_missed", "subject_given_up"),
        *("reconcile_failed", "reconcile_overdue"),
    }

"""Notices in the database: what is news, and that each is sent once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sync_worker.storage.notices import Notices, Situation
from tests.clock import TIMINGS, ManualClock

if TYPE_CHECKING:
    from sync_worker.storage.database import Database

pytestmark = pytest.mark.anyio
PAUSE = TIMINGS.notify_pause


@pytest.fixture
def notices(db: Database) -> Notices:
    return Notices(db, TIMINGS)


def held(size: int, cause: str = "list-1") -> Situation:
    return Situation("losses_held", cause, f"{size} held", size, {"subjects": size})


async def sent(notices: Notices) -> list[str]:
    """Take everything that is due, as sent; return the texts."""
    taken = await notices.take(100)
    for notice in taken:
        await notices.done(notice)
    return [notice.body["text"] for notice in taken]


async def test_a_situation_is_reported_once_while_it_lasts(notices: Notices, clock: ManualClock) -> None:
    await notices.record([held(3)])
    assert await sent(notices) == ["3 held"]
    for _ in range(3):
        clock.advance(PAUSE)
        await notices.record([held(3)])
        assert await sent(notices) == []


async def test_a_notice_has_event_cause_text_and_facts(notices: Notices) -> None:
    await notices.record([held(3)])
    (notice,) = await notices.take(1)
    assert notice.body == {"event": "losses_held", "cause": "list-1", "text": "3 held", "facts": {"subjects": 3}}


async def test_what_grows_is_reported_again_after_an_hour_and_not_before(notices: Notices, clock: ManualClock) -> None:
    await notices.record([held(3)])
    await sent(notices)
    clock.advance(PAUSE - 1)
    await notices.record([held(5)])
    assert await sent(notices) == []
    clock.advance(1)
    await notices.record([held(7)])
    assert await sent(notices) == ["7 held"]


async def test_what_shrank_and_grew_again_is_news(notices: Notices, clock: ManualClock) -> None:
    await notices.record([held(9)])
    await sent(notices)
    await notices.record([held(1)])
    clock.advance(PAUSE)
    await notices.record([held(2)])
    assert await sent(notices) == ["2 held"]


async def test_what_was_over_and_came_back_is_reported_again_once_an_hour(notices: Notices, clock: ManualClock) -> None:
    await notices.record([held(3)])
    await sent(notices)
    for _ in range(3):
        await notices.record([])
        await notices.record([held(3)])
        assert await sent(notices) == []
    clock.advance(PAUSE)
    await notices.record([held(3)])
    assert await sent(notices) == ["3 held"]


async def test_each_cause_has_its_own_hour(notices: Notices) -> None:
    await notices.record([held(3)])
    await notices.record([held(3), held(4, "list-2")])
    assert sorted(await sent(notices)) == ["3 held", "4 held"]


async def test_a_notice_that_nobody_accepted_comes_back_with_growing_delays(
    notices: Notices, clock: ManualClock
) -> None:
    await notices.record([held(3)])
    delay = TIMINGS.notify_first_retry
    for attempt in range(3):
        (notice,) = await notices.take(100)
        assert notice.attempts == attempt
        clock.advance(delay - 1)
        assert await notices.take(100) == []
        clock.advance(1)
        delay *= 2


async def test_two_processes_do_not_both_take_a_notice(db: Database) -> None:
    one, other = Notices(db, TIMINGS), Notices(db, TIMINGS)
    await one.record([held(3)])
    await other.record([held(3)])
    assert len([*await one.take(100), *await other.take(100)]) == 1


async def test_what_ended_is_forgotten_after_an_hour(db: Database, notices: Notices, clock: ManualClock) -> None:
    await notices.record([held(3)])
    await sent(notices)
    clock.advance(2 * PAUSE)
    await notices.record([])
    assert await db.read(lambda tx: tx.execute("SELECT COUNT(*) FROM notice")) == [(0,)]

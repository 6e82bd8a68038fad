"""Writes that were refused, got no answer, or have no result in the ledger."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from sync_worker.storage.ledger import Entry
from tests.builders import created
from tests.clock import TIMINGS
from tests.oracle import until, until_seen, wrong
from tests.parts import working
from tests.worker.items import enqueue, row_of, row_when

if TYPE_CHECKING:
    from sync_worker.sandbox.server import Sandbox

pytestmark = pytest.mark.anyio


async def test_a_200_that_is_not_the_user_is_not_a_write(box: Sandbox, sqlite_url: str) -> None:
    box.clerk.add_user("user_1")
    await box.lake.mutate([created("e1", "user_1", plan="pro")])
    box.clerk.faults.next("error_in_ok", method="PATCH")
    async with working(box, sqlite_url) as parts:
        await enqueue(parts, "user:user_1")
        await until(lambda: not wrong(box))
        await until_seen(
            lambda: parts.store.ledger.history("user:user_1"),
            lambda history: [one.state for one in history] == ["applied", "unknown"],
        )


async def test_retry_after_is_kept_where_the_run_is_cut_off_afterwards(box: Sandbox, sqlite_url: str) -> None:
    for user in ("user_a", "user_b"):
        box.clerk.add_user(user)
        await box.lake.mutate([created(f"e-{user}", user, plan="pro")])
    box.clerk.faults.next("rate_limited", 100, method="PATCH", path_prefix="/v1/users/user_a", retry_after=60)
    box.clerk.faults.next("hang", 100, method="PATCH", path_prefix="/v1/users/user_b")
    async with working(box, sqlite_url, timings=replace(TIMINGS, run_deadline=2.0)) as parts:
        await enqueue(parts, "user:user_a", "user:user_b")
        row = await row_when(parts, "user:user_a", lambda row: row.attempts)
        assert row.error_code == "retryable_error"
        assert row.visible_at - time.time() > 50
        assert (await row_of(parts, "user:user_b")).visible_at - time.time() < 5


def refuse_results(database_url: str) -> None:
    """Make the database refuse to record what became of any change, as a full disk may."""
    with closing(sqlite3.connect(database_url.removeprefix("sqlite:///"))) as connection:
        connection.execute("CREATE TRIGGER full_disk BEFORE UPDATE ON ledger BEGIN INSERT INTO nowhere VALUES (1); END")
        connection.commit()


async def test_retry_after_is_kept_where_the_ledger_cannot_be_written(box: Sandbox, sqlite_url: str) -> None:
    box.clerk.add_user("user_1")
    await box.lake.mutate([created("e1", "user_1", plan="pro")])
    box.clerk.faults.next("rate_limited", 100, method="PATCH", retry_after=60)
    async with working(box, sqlite_url) as parts:
        refuse_results(sqlite_url)
        await enqueue(parts, "user:user_1")
        row = await row_when(parts, "user:user_1", lambda row: row.attempts)
    assert row.error_code == "rate_limited"
    assert row.visible_at - time.time() > 50


async def test_a_write_that_the_ledger_does_not_know_to_have_ended_is_looked_at_again(
    box: Sandbox, sqlite_url: str
) -> None:
    box.clerk.add_user("user_1")
    await box.lake.mutate([created("e1", "user_1", plan="pro")])
    async with working(box, sqlite_url) as parts:
        refuse_results(sqlite_url)
        await enqueue(parts, "user:user_1")
        await until(lambda: not wrong(box))
        row = await row_when(parts, "user:user_1", lambda row: not row.pending)
    assert box.clerk.requests.count("PATCH") == 1
    assert 5 < row.visible_at - time.time() < 15


async def test_after_a_write_that_may_land_late_the_subject_is_looked_at_again(box: Sandbox, sqlite_url: str) -> None:
    box.clerk.add_user("user_1")
    await box.lake.mutate([created("e1", "user_1", plan="pro")])
    box.clerk.faults.next("lost", method="PATCH")
    async with working(box, sqlite_url) as parts:
        await enqueue(parts, "user:user_1")
        await until(lambda: not wrong(box))
        row = await row_when(parts, "user:user_1", lambda row: not row.pending)
    assert row.visible_at is not None
    assert 5 < row.visible_at - time.time() < 15


@pytest.mark.parametrize("plan", ["old", "pro"])
async def test_an_item_in_between_does_not_undo_the_second_look(box: Sandbox, sqlite_url: str, plan: str) -> None:
    box.clerk.add_user("user_1")
    await box.lake.mutate([created("e1", "user_1", plan="pro")])
    async with working(box, sqlite_url) as parts:
        left_open = {"plan": plan, "courseSlugs": []}
        await parts.store.ledger.intend([Entry("", "user:user_1", "grant", {}, left_open, ["e1"])])
        for _ in range(2):
            await enqueue(parts, "user:user_1")
            row = await row_when(parts, "user:user_1", lambda row: not row.pending)
    assert row.visible_at is not None

"""Names beside ids: few calls, kept for minutes, and no name where Clerk does not say."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from sync_worker.storage.rate_limit import Budget
from tests.clock import CLOCK, TIMINGS, ManualClock
from tests.parts import opened

if TYPE_CHECKING:
    from sync_worker.sandbox.server import Sandbox

pytestmark = pytest.mark.anyio
ADA, ENGINES = "user:user_ada", "org:org_1"


@pytest.fixture(autouse=True)
def people(box: Sandbox) -> None:
    box.clerk.add_user("user_ada", email="ada@example.org", first_name="Ada", last_name="Lovelace")
    box.clerk.add_user("user_nameless", email="no@example.org")
    box.clerk.add_organization("org_1", name="Analytical Engines", slug="engines")


async def test_every_kind_of_subject_has_a_name_and_what_has_none_is_left_out(box: Sandbox, sqlite_url: str) -> None:
    keys = [ADA, ENGINES, "membership:org_1/user_ada", "membership:org_1/user_gone", "user:user_gone", "document:e1"]
    async with opened(box, sqlite_url) as parts:
        named = await parts.services.names.of([*keys, "email:ada@example.org", "user:user_nameless", "3f9a2c1b7e"])
    assert named == {
        ADA: "Ada Lovelace",
        ENGINES: "Analytical Engines",
        "membership:org_1/user_ada": "Ada Lovelace in Analytical Engines",
        "membership:org_1/user_gone": "Analytical Engines",
        "user:user_nameless": "n***@example.org",
    }


async def test_fifty_subjects_take_one_call_and_the_next_look_none(box: Sandbox, sqlite_url: str) -> None:
    keys = [f"user:{box.clerk.add_user(f'user_{n}', username=f'student{n}')}" for n in range(49)]
    async with opened(box, sqlite_url) as parts:
        for _ in range(2):
            assert len(await parts.services.names.of([*keys, ADA, "user:user_gone"])) == 50
    assert box.clerk.requests.count() == 1


async def test_a_name_is_requested_again_after_some_minutes(box: Sandbox, sqlite_url: str) -> None:
    clock = ManualClock()
    async with opened(box, sqlite_url, clock=clock) as parts:
        await parts.services.names.of([ADA])
        box.clerk.update_user("user_ada", last_name="King")
        assert await parts.services.names.of([ADA]) == {ADA: "Ada Lovelace"}
        clock.advance(TIMINGS.names_kept)
        assert await parts.services.names.of([ADA]) == {ADA: "Ada King"}


@pytest.mark.parametrize("fault", ["unauthorized", "internal"])
async def test_without_an_answer_there_is_no_name_and_no_error(box: Sandbox, sqlite_url: str, fault: str) -> None:
    async with opened(box, sqlite_url) as parts:
        box.clerk.faults.some(fault, 1.0)
        assert await parts.services.names.of([ADA, ENGINES]) == {}
        box.clerk.faults.clear()
        assert await parts.services.names.of([ADA]) == {ADA: "Ada Lovelace"}


async def test_names_take_no_call_that_queued_work_needs(box: Sandbox, sqlite_url: str) -> None:
    async with opened(box, sqlite_url, clerk_budget=20, timings=replace(TIMINGS, page_patience=0.3)) as parts:
        budget = Budget(parts.store.database, "clerk", 20, CLOCK, TIMINGS)
        while await budget.left(2):
            await budget.take(2)
        assert await parts.services.names.of([ADA]) == {}
    assert box.clerk.requests.count() == 0

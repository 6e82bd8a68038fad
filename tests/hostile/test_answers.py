"""Every answer of Sanity and Clerk, changed in every way: a run ends by name, and nobody loses access by it.

`HOSTILE_EVERY=1` tries all of some 19,000 changes; without it every 13th is tried, and before each commit every 65th.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from sync_worker.errors import SyncWorkerError
from tests.hostile.flows import FLOWS, OWNER, Memory, Question, World, inhabited
from tests.hostile.tampering import GONE, Tampering, tamperings
from tests.oracle import GUARD
from tests.sizes import sizes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx

pytestmark = pytest.mark.anyio
EVERY = int(os.environ.get("HOSTILE_EVERY", "13"))
SELDOM = 5 * EVERY
BY_ADDRESS = {"users/user_2", "users/user_3"}
ANOTHER_ADDRESS: dict[tuple[str, ...], tuple[Any, ...]] = {
    (): (GONE,),
    ("id",): ("", "another"),
    ("external_id",): (None, "", "another"),
    ("primary_email_address_id",): (None, "", "another"),
    ("email_addresses",): ([],),
    ("email_addresses", "0"): (GONE,),
    ("email_addresses", "0", "id"): (GONE, "", "another"),
    ("email_addresses", "0", "email_address"): ("", "another"),
    ("email_addresses", "0", "reserved"): (True,),
    ("email_addresses", "0", "verification"): (None,),
    ("email_addresses", "0", "verification", "status"): ("", "another"),
}
"""What Clerk may say of a user, and means that an address is not that user's."""


@pytest.fixture(scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    with structlog.testing.capture_logs():
        async with inhabited(tmp_path_factory.mktemp("answers")) as world:
            yield world


def said(question: Question, tampering: Tampering, answer: Any) -> set[str]:
    """Return who has less by what a changed answer says, and rightly so: it is a good answer of another meaning.

    A row that is wrong counts for nobody, so its subject keeps nothing from it. Any other answer that is no answer of
    the service says nothing of anybody.
    """
    at = tuple(map(str, tampering.at))
    if question.service == "Sanity" and at[:2] == ("result", "entitlements"):
        rows = answer["result"]["entitlements"]
        if len(at) == 2:
            return {_path(OWNER[row["_id"]]) for row in rows} if tampering.value == [] else set()
        row = rows[int(at[2])]
        return {_path(OWNER[row["_id"]])} if len(at) > 3 or tampering.value is GONE else set()
    if (
        at == ("result", "visible")
        and isinstance(tampering.value, int | float)
        and not answer["result"]["entitlements"]
    ):
        return {_path(subject) for subject in OWNER.values()}  # none of many, and each deletion was reported
    if question.path == "/v1/users":
        meanings = ANOTHER_ADDRESS.get(at[1:], ()) if at else ()
        address_changed = any(_equal(tampering.value, value) for value in meanings)
        return BY_ADDRESS if address_changed or tampering.name == "a list" else set()
    return set()


def _path(subject: str) -> str:
    """Return a subject as Clerk's addresses name it."""
    kind, _, id_ = subject.partition(":")
    if kind == "membership":
        return "organizations/{}/memberships/{}".format(*id_.split("/"))
    return f"{'users' if kind == 'user' else 'organizations'}/{id_}"


def _equal(one: Any, other: Any) -> bool:
    return type(one) is type(other) and one == other


async def tried(world: World, flow: str, memory: Memory, question: Question, tampering: Tampering) -> str:
    """Run a flow with one answer changed. Return what is wrong with how it went, or nothing."""

    def tamper(requested: Question, response: httpx.Response, body: bytes) -> httpx.Response | None:
        return tampering.change(response, body) if requested == question else None

    memory.tamper = tamper
    try:
        await asyncio.wait_for(world.run(flow), GUARD)
    except SyncWorkerError:
        pass
    except Exception as error:  # noqa: BLE001 - whatever it is, it is to be shown with what made it
        return f"{question}: {tampering}: {error!r}"
    finally:
        memory.tamper = lambda *_: None
    more = world.taken() - said(question, tampering, memory.answer(question))
    return f"{question}: {tampering}: took from {sorted(more)}" if more else ""


@pytest.mark.parametrize("every", sizes(SELDOM, EVERY))
@pytest.mark.parametrize("flow", FLOWS)
async def test_no_answer_ends_a_run_without_a_name_or_takes_access_away(world: World, flow: str, every: int) -> None:
    requested = list(dict.fromkeys(await world.run(flow)))
    possible, wrong = 0, []
    for place, question in enumerate(requested, 8 * [*FLOWS].index(flow)):
        memory = world.sanity if question.service == "Sanity" else world.clerk
        changes = list(tamperings(memory.answer(question)))
        possible += len(changes)
        wrong += [await tried(world, flow, memory, question, change) for change in changes[place % every :: every]]
    assert wrong
    assert [problem for problem in wrong if problem] == []
    assert possible > 300 * len(requested)
    await world.run(flow)
    assert world.taken() == set()

"""Killed between any two effects: whatever was accepted is done by the next process, and done right.

Each boundary is a call of one method. A process is killed before it, while its transaction is written but
`uncommitted`, and after it; a request to Clerk has no transaction, so it is killed before the request is sent, while
Clerk works on it, and after the answer. The work of all those processes is left to the last one, which lives.
"""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any

import pytest

from sync_worker.model import Witness
from sync_worker.workset import Mark
from tests.crash.launcher import Moment, Trouble
from tests.oracle import until, wrong
from tests.parts import working

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.crash.site import Site

pytestmark = pytest.mark.anyio
LEASE = 1.0
LIVING = Trouble(lease=LEASE)

COMMIT: tuple[Moment, ...] = ("before", "uncommitted", "after")
EFFECTS_OF_A_RUN = ("WorkSet.claim", "Ledger.intend", "Ledger.settle", "WorkSet.settle")
EFFECTS_OF_A_FAN_OUT = ("WorkSet.mark", "WorkSet.renew", "WorkSet.settle")


def entitlement(document: str, user: str, **fields: Any) -> dict[str, Any]:
    return {"create": {"_id": document, "_type": "entitlement", "clerkUserId": user, **fields}}


def reference(document: str) -> dict[str, str]:
    return {"_type": "reference", "_ref": document, "_key": document}


async def mark(site: Site, *marks: Mark) -> None:
    async with site.store() as store:
        await store.workset.mark(marks)


async def prepare(site: Site, names: Sequence[str]) -> None:
    """Bring about users of whom some have access already, and somebody who keeps what he has."""
    box = site.box
    for name in names:
        box.clerk.add_user(f"user_granted_{name}")
    held = [box.clerk.add_user(f"user_{kind}_{name}") for kind in ("updated", "revoked") for name in names]
    held.append(box.clerk.add_user("user_unchanged"))
    await box.lake.mutate([entitlement(f"e-{user}", user, plan="basic") for user in held])
    async with working(box, site.database_url) as parts:
        await parts.store.workset.mark([Mark(f"user:{user}") for user in held])
        await until(lambda: not wrong(box))


async def edit(site: Site, name: str) -> None:
    """Make a grant, an update and a revocation due."""
    granted, updated, revoked = (f"user_{kind}_{name}" for kind in ("granted", "updated", "revoked"))
    await site.box.lake.mutate(
        [
            entitlement(f"e-{granted}", granted, plan="pro"),
            {"patch": {"id": f"e-{updated}", "set": {"plan": "pro"}}},
            {"delete": {"id": f"e-{revoked}"}},
        ]
    )
    witness = Witness(f"e-{revoked}", "", "", deleted=True)
    await mark(site, Mark(f"user:{granted}"), Mark(f"user:{updated}"), Mark(f"user:{revoked}", witness=witness))
    assert {granted, updated, revoked} <= set(wrong(site.box))


@pytest.mark.parametrize("method", EFFECTS_OF_A_RUN)
async def test_a_worker_killed_at_an_effect_of_a_run(site: Site, method: str) -> None:
    await prepare(site, COMMIT)
    for moment in COMMIT:
        await edit(site, moment)
        await site.dies(Trouble(method, moment, lease=LEASE))
    async with site.worker(LIVING):
        await site.comes_right()


async def test_a_worker_killed_at_a_write_to_clerk(site: Site) -> None:
    boundaries: list[tuple[Moment, int]] = [("before", 1), ("after", 1), ("before", 3), ("after", 3)]
    await prepare(site, [f"{moment}_{call}" for moment, call in boundaries])
    for moment, call in boundaries:
        await edit(site, f"{moment}_{call}")
        await site.dies(Trouble("ServiceTransport._send", moment, call, LEASE))
    async with site.worker(LIVING):
        await site.comes_right()


async def test_a_worker_killed_while_clerk_works_on_its_write(site: Site) -> None:
    await prepare(site, ["now"])
    await edit(site, "now")
    site.box.clerk.requests.clear()
    site.box.clerk.faults.latency = 0.4
    async with site.worker(LIVING) as first:
        await until(lambda: site.box.clerk.requests.count("PATCH") > 0)
        first.kill()
        assert await first.wait() == -signal.SIGKILL
    site.box.clerk.faults.latency = 0.0
    async with site.worker(LIVING):
        await site.comes_right()


@pytest.mark.parametrize("method", EFFECTS_OF_A_FAN_OUT)
async def test_a_worker_killed_at_an_effect_of_a_fan_out(site: Site, method: str) -> None:
    box = site.box
    for moment in COMMIT:
        users = [box.clerk.add_user(f"user_{moment}_{n}") for n in range(3)]
        course = {"create": {"_id": moment, "_type": "course", "slug": {"current": moment}}}
        await box.lake.mutate([course, *(entitlement(f"e-{u}", u, courses=[reference(moment)]) for u in users)])
        await mark(site, Mark(f"document:{moment}", lane=1))
        await site.dies(Trouble(method, moment, lease=LEASE))
    async with site.worker(LIVING):
        await site.comes_right()


async def test_a_receiver_killed_at_its_mark(site: Site) -> None:
    site.install_hook()
    for moment in COMMIT:
        await deliver_to_a_receiver_that_dies(site, Trouble("WorkSet.mark", moment, call=2))
    async with site.receiver(), site.worker():
        await site.box.lake.hooks_idle()
        await site.comes_right()


async def test_what_was_marked_is_done_although_nobody_was_told_that_it_was_accepted(site: Site) -> None:
    site.install_hook(repeats=0)
    await deliver_to_a_receiver_that_dies(site, Trouble("WorkSet.mark", "after", call=3))
    async with site.worker():
        await site.comes_right()


async def deliver_to_a_receiver_that_dies(site: Site, trouble: Trouble) -> None:
    """Publish for three users; the receiver is killed over one of the webhooks."""
    users = [site.box.clerk.add_user(f"user_{trouble.moment}_{n}") for n in range(3)]
    async with site.receiver(trouble=trouble) as receiver:
        for user in users:
            await site.box.lake.mutate([entitlement(f"e-{user}", user, plan="pro")])
        assert await asyncio.wait_for(receiver.wait(), 20) == -signal.SIGKILL

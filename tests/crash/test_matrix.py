"""Killed between any two effects: whatever was accepted is done by the next process, and done right.

Each boundary is a call of one method. A process is killed before it, while its transaction is written but
`uncommitted`, and after it; a request to Clerk has no transaction, so it is killed before the request is sent, while
Clerk works on it, and after the answer. The work of all those processes is left to the last one, which lives: on SQLite
it sees that they are gone; on PostgreSQL they pass for processes of other machines, whose leases have to end.
"""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any

import pytest

from sync_worker.model import Witness
from sync_worker.workset import Mark
from tests.crash.site import Site
from tests.oracle import until, wrong
from tests.parts import working
from tests.trouble import Moment, Trouble

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sync_worker.sandbox.server import Sandbox
    from sync_worker.sandbox.traffic import Request

pytestmark = pytest.mark.anyio
LEASE = 1.0

COMMIT: tuple[Moment, ...] = ("before", "uncommitted", "after")
EFFECTS_OF_A_RUN = ("WorkSet.claim", "Ledger.intend", "Ledger.settle", "WorkSet.settle")
EFFECTS_OF_A_FAN_OUT = ("WorkSet.mark", "WorkSet.renew", "WorkSet.settle")


def to(site: Site, method: str = "", moment: Moment = "before", call: int = 1) -> Trouble:
    return Trouble(method, moment, call, LEASE, elsewhere=site.database_url.startswith("postgres"))


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
        await site.dies(to(site, method, moment))
    async with site.worker(to(site)):
        await site.comes_right()


async def test_a_worker_killed_at_a_write_to_clerk(site: Site) -> None:
    boundaries: list[tuple[Moment, int]] = [("before", 1), ("after", 1), ("before", 3), ("after", 3)]
    await prepare(site, [f"{moment}_{call}" for moment, call in boundaries])
    for moment, call in boundaries:
        await edit(site, f"{moment}_{call}")
        await site.dies(to(site, "ServiceTransport._send", moment, call))
    async with site.worker(to(site)):
        await site.comes_right()


async def test_a_write_of_a_lost_machine_and_that_of_its_successor_do_not_overlap(
    box: Sandbox, postgres_url: str, tmp_path: Path
) -> None:
    site = Site(box, postgres_url, tmp_path)
    await killed_over_a_write(site, to(site), latency=0.4)
    async with site.worker(to(site)):
        await site.comes_right()


async def test_a_write_that_outlives_its_process_does_not_undo_what_the_next_one_writes(site: Site) -> None:
    box, here = site.box, Trouble(lease=2.5)
    outliving = await killed_over_a_write(site, here, latency=1.0)
    await box.lake.mutate([{"patch": {"id": "e-user_updated_now", "set": {"plan": "team"}}}])
    await mark(site, Mark("user:user_updated_now"))
    async with site.worker(here):
        await until(lambda: box.clerk.users["user_updated_now"]["public_metadata"]["plan"] == "team")
        assert not all(write.ended for write in outliving), "it did not outlive its process"
        await until(lambda: all(write.ended for write in outliving))
        await site.settles()


async def killed_over_a_write(site: Site, trouble: Trouble, *, latency: float) -> list[Request]:
    """Kill a worker while Clerk works on its writes, which take `latency` seconds; return them."""
    await prepare(site, ["now"])
    await edit(site, "now")
    site.box.clerk.requests.clear()
    site.box.clerk.faults.latency = latency
    async with site.worker(trouble) as worker:
        await until(lambda: site.box.clerk.requests.count("PATCH") > 0)
        worker.kill()
        assert await worker.wait() == -signal.SIGKILL
    site.box.clerk.faults.latency = 0.0
    return site.box.clerk.requests.writes


@pytest.mark.parametrize("method", EFFECTS_OF_A_FAN_OUT)
async def test_a_worker_killed_at_an_effect_of_a_fan_out(site: Site, method: str) -> None:
    box = site.box
    for moment in COMMIT:
        users = [box.clerk.add_user(f"user_{moment}_{n}") for n in range(3)]
        course = {"create": {"_id": moment, "_type": "course", "slug": {"current": moment}}}
        await box.lake.mutate([course, *(entitlement(f"e-{u}", u, courses=[reference(moment)]) for u in users)])
        await mark(site, Mark(f"document:{moment}", lane=1))
        await site.dies(to(site, method, moment))
    async with site.worker(to(site)):
        await site.comes_right()


async def test_a_worker_killed_while_access_moves_to_the_new_holder_of_an_address(site: Site) -> None:
    box = site.box
    boundaries: list[tuple[str, Moment]] = [
        *(("WorkSet.mark", moment) for moment in COMMIT),
        ("ServiceTransport._send", "after"),
    ]
    for number in range(len(boundaries)):
        box.clerk.add_user(f"user_old_{number}", external_id=f"crm-{number}")
        row = {"_id": f"e-{number}", "_type": "entitlement", "userExternalId": f"crm-{number}", "plan": "pro"}
        await box.lake.mutate([{"create": row}])
    async with working(box, site.database_url) as parts:
        await parts.store.workset.mark([Mark(f"document:e-{number}") for number in range(len(boundaries))])
        await until(lambda: not wrong(box))
    for number, (method, moment) in enumerate(boundaries):
        old, address = f"user_old_{number}", f"crm-{number}"
        box.clerk.update_user(old, external_id=None)
        box.clerk.add_user(f"user_new_{number}", external_id=address)
        await mark(site, Mark(f"user:{old}", cause="clerk:user.updated"))
        await site.dies(to(site, method, moment))
    async with site.worker(to(site)):
        await site.comes_right()


async def test_a_worker_killed_over_a_shared_address_leaves_it_to_be_looked_at_again(site: Site) -> None:
    box, shared = site.box, "ada@example.org"
    box.clerk.add_user("user_ada", email=shared)
    row = {"_id": "e1", "_type": "entitlement", "userEmail": shared, "plan": "pro"}
    await box.lake.mutate([{"create": row}])
    async with working(box, site.database_url) as parts:
        await parts.store.workset.mark([Mark("user:user_ada")])
        await until(lambda: not wrong(box))
    box.clerk.add_user("user_twin", email=shared)
    await mark(site, Mark("user:user_ada"))
    await site.dies(to(site, "WorkSet.settle", "after"))
    async with site.worker(to(site)), site.store() as store, asyncio.timeout(10):
        while (noted := await store.workset.get("document:e1")) is None or noted.due is None:
            await asyncio.sleep(0.05)


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

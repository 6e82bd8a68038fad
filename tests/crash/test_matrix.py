"""Killed between any two effects: whatever was accepted is done by the next process, and done right.

Each boundary is a call of one method. A process is killed before it, while its transaction is written but
`uncommitted`, and after it; a request to Clerk has no transaction, so it is killed before the request is sent, while
Clerk works on it, and after the answer. The work of all those processes is left to the last one, which lives: on SQLite
it sees that they are gone; on PostgreSQL they pass for processes of other machines, whose leases have to end.
"""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import pytest

from sync_worker.storage.work_items import WorkItem
from tests.builders import created, reference
from tests.causes import cause_of
from tests.expected import deleted
from tests.nursery import NOTHING_WRONG
from tests.oracle import GUARD, until, until_seen, wrong
from tests.parts import working
from tests.trouble import Moment, Trouble

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.crash.site import Site

pytestmark = pytest.mark.anyio
LEASE = 1.0

COMMIT: tuple[Moment, ...] = ("before", "uncommitted", "after")
EFFECTS_OF_A_RUN = ("WorkQueue.claim", "Ledger.intend", "Ledger.settle", "WorkQueue.complete")
EFFECTS_OF_A_FAN_OUT = ("WorkQueue.enqueue", "WorkQueue.renew", "WorkQueue.complete")
PATCH = "ServiceTransport._send"

Crash = tuple[str, Moment, int]
"""The method that is called, when in it the process is killed, and in which call of it."""


def every_moment(method: str) -> tuple[Crash, ...]:
    return tuple((method, moment, 1) for moment in COMMIT)


ONCE_IN_A_RUN: tuple[Crash, ...] = (
    ("WorkQueue.claim", "after", 1),
    ("Ledger.intend", "after", 1),
    (PATCH, "after", 1),
    ("Ledger.settle", "after", 1),
    ("WorkQueue.complete", "uncommitted", 1),
)
WRITES: tuple[Crash, ...] = ((PATCH, "before", 1), (PATCH, "after", 1), (PATCH, "before", 3), (PATCH, "after", 3))
ONCE_IN_A_FAN_OUT: tuple[Crash, ...] = (
    ("WorkQueue.enqueue", "after", 1),
    ("WorkQueue.renew", "after", 1),
    ("WorkQueue.complete", "uncommitted", 1),
)
ONCE_IN_A_MOVE: tuple[Crash, ...] = (("WorkQueue.enqueue", "uncommitted", 1),)
EVERY_MOMENT_OF_A_MOVE: tuple[Crash, ...] = (*every_moment("WorkQueue.enqueue"), (PATCH, "after", 1))

EVERY_MOMENT = pytest.mark.full("every moment of every effect, on both databases")


def crashing(quick: dict[str, tuple[Crash, ...]], full: dict[str, tuple[Crash, ...]]) -> pytest.MarkDecorator:
    """Run a test with `quick`, by database; and with `full` on both, which the quick run leaves out."""
    cases = [pytest.param(url, crashes, id=f"{url}-once-each") for url, crashes in quick.items()]
    cases += [
        pytest.param(url, crashes, id=f"{url}-{name}", marks=EVERY_MOMENT)
        for url in ("sqlite_url", "postgres_url")
        for name, crashes in full.items()
    ]
    return pytest.mark.parametrize(("database_url", "crashes"), cases, indirect=["database_url"])


def to(site: Site, method: str = "", moment: Moment = "before", call: int = 1) -> Trouble:
    return Trouble(method, moment, call, LEASE, elsewhere=site.database_url.startswith("postgres"))


async def enqueue(site: Site, *items: WorkItem) -> None:
    async with site.store() as store:
        await store.queue.enqueue(items)


async def prepare(site: Site, names: Sequence[str]) -> None:
    """Create users, some of them with access, and one whose access stays as it is."""
    box = site.box
    for name in names:
        box.clerk.add_user(f"user_granted_{name}")
    held = [box.clerk.add_user(f"user_{kind}_{name}") for kind in ("updated", "revoked") for name in names]
    held.append(box.clerk.add_user("user_unchanged"))
    await box.lake.mutate([created(f"e-{user}", user, plan="basic") for user in held])
    async with working(box, site.database_url) as parts:
        await parts.store.queue.enqueue([WorkItem(f"user:{user}") for user in held])
        await until(lambda: not wrong(box))


async def edit(site: Site, name: str) -> None:
    """Make a grant, an update and a revocation due."""
    granted, updated, revoked = (f"user_{kind}_{name}" for kind in ("granted", "updated", "revoked"))
    await site.box.lake.mutate(
        [
            created(f"e-{granted}", granted, plan="pro"),
            {"patch": {"id": f"e-{updated}", "set": {"plan": "pro"}}},
            {"delete": {"id": f"e-{revoked}"}},
        ]
    )
    expected = deleted(f"e-{revoked}", "", "")
    await enqueue(
        site, WorkItem(f"user:{granted}"), WorkItem(f"user:{updated}"), WorkItem(f"user:{revoked}", expected=expected)
    )
    assert {granted, updated, revoked} <= set(wrong(site.box))


@crashing(
    {"sqlite_url": ONCE_IN_A_RUN, "postgres_url": (("Ledger.intend", "uncommitted", 1),)},
    {method: every_moment(method) for method in EFFECTS_OF_A_RUN} | {"PATCH": WRITES},
)
async def test_a_worker_killed_at_an_effect_of_a_run(site: Site, crashes: tuple[Crash, ...]) -> None:
    await prepare(site, [str(number) for number in range(len(crashes))])
    for number, crash in enumerate(crashes):
        await edit(site, str(number))
        await site.dies(to(site, *crash))
    async with site.worker(to(site)):
        await site.until_in_sync()


@pytest.mark.full("waits for the end of a lease; tests/crash/test_several_machines.py ends one in the quick run")
@pytest.mark.parametrize("database_url", ["postgres_url"], indirect=True)
async def test_a_write_of_a_lost_machine_and_that_of_its_successor_do_not_overlap(site: Site) -> None:
    await killed_over_its_writes(site, Trouble(lease=3.0, elsewhere=True))
    site.box.clerk.faults.release()
    async with site.worker(to(site)):
        await site.until_in_sync()


async def killed_over_its_writes(site: Site, trouble: Trouble) -> None:
    """Kill a worker while Clerk holds its three writes."""
    await prepare(site, ["now"])
    await edit(site, "now")
    site.box.clerk.faults.hold(3, method="PATCH")
    async with site.worker(trouble) as worker:
        await until(lambda: site.box.clerk.faults.held == 3)
        worker.kill()
        await worker.wait()


@pytest.mark.full("waits until a write cannot land any more; the worlds do the same in the quick run")
async def test_a_write_that_outlives_its_process_does_not_undo_what_the_next_one_writes(site: Site) -> None:
    box = site.box
    await killed_over_its_writes(site, NOTHING_WRONG)
    await box.lake.mutate([{"patch": {"id": "e-user_updated_now", "set": {"plan": "team"}}}])
    await enqueue(site, WorkItem("user:user_updated_now"))
    async with site.worker(Trouble(lease=2.0)):
        await until(lambda: box.clerk.users["user_updated_now"]["public_metadata"]["plan"] == "team")
        box.clerk.faults.release()
        await until(lambda: box.clerk.users["user_updated_now"]["public_metadata"]["plan"] == "pro")
        await site.comes_to_rest()


@crashing({"sqlite_url": ONCE_IN_A_FAN_OUT}, {method: every_moment(method) for method in EFFECTS_OF_A_FAN_OUT})
async def test_a_worker_killed_at_an_effect_of_a_fan_out(site: Site, crashes: tuple[Crash, ...]) -> None:
    box = site.box
    for number, crash in enumerate(crashes):
        course = f"course-{number}"
        users = [box.clerk.add_user(f"user_{number}_{n}") for n in range(3)]
        await box.lake.mutate(
            [
                {"create": {"_id": course, "_type": "course", "slug": {"current": course}}},
                *(created(f"e-{u}", u, courses=[reference(course)]) for u in users),
            ]
        )
        await enqueue(site, WorkItem(f"document:{course}", lane=1))
        await site.dies(to(site, *crash))
    async with site.worker(to(site)):
        await site.until_in_sync()


@crashing({"sqlite_url": ONCE_IN_A_MOVE}, {"move": EVERY_MOMENT_OF_A_MOVE})
async def test_a_worker_killed_while_access_moves_to_the_new_holder_of_an_address(
    site: Site, crashes: tuple[Crash, ...]
) -> None:
    box = site.box
    for number in range(len(crashes)):
        box.clerk.add_user(f"user_old_{number}", external_id=f"crm-{number}")
        row = {"_id": f"e-{number}", "_type": "entitlement", "userExternalId": f"crm-{number}", "plan": "pro"}
        await box.lake.mutate([{"create": row}])
    async with working(box, site.database_url) as parts:
        await parts.store.queue.enqueue([WorkItem(f"document:e-{number}") for number in range(len(crashes))])
        await until(lambda: not wrong(box))
    for number, crash in enumerate(crashes):
        old, address = f"user_old_{number}", f"crm-{number}"
        box.clerk.update_user(old, external_id=None)
        box.clerk.add_user(f"user_new_{number}", external_id=address)
        await enqueue(site, WorkItem(f"user:{old}", cause=cause_of("clerk:user.updated")))
        await site.dies(to(site, *crash))
    async with site.worker(to(site)):
        await site.until_in_sync()


@EVERY_MOMENT
async def test_a_worker_killed_over_a_shared_address_leaves_it_to_be_looked_at_again(site: Site) -> None:
    box, shared = site.box, "ada@example.org"
    box.clerk.add_user("user_ada", email=shared)
    row = {"_id": "e1", "_type": "entitlement", "userEmail": shared, "plan": "pro"}
    await box.lake.mutate([{"create": row}])
    async with working(box, site.database_url) as parts:
        await parts.store.queue.enqueue([WorkItem("user:user_ada")])
        await until(lambda: not wrong(box))
    box.clerk.add_user("user_twin", email=shared)
    await enqueue(site, WorkItem("user:user_ada"))
    await site.dies(to(site, "WorkQueue.complete", "after"))
    async with site.worker(to(site)), site.store() as store:
        await until_seen(lambda: store.queue.get("document:e1"), lambda row: row and row.visible_at)


@crashing({"sqlite_url": (("WorkQueue.enqueue", "uncommitted", 2),)}, {"enqueue": every_moment("WorkQueue.enqueue")})
async def test_a_receiver_killed_as_it_enqueues(site: Site, crashes: tuple[Crash, ...]) -> None:
    site.install_hook()
    for method, moment, _ in crashes:
        await deliver_to_a_receiver_that_dies(site, Trouble(method, moment, call=2))
    async with site.receiver(), site.worker():
        await site.box.lake.hooks_idle()
        await site.until_in_sync()


@EVERY_MOMENT
async def test_what_was_enqueued_is_done_although_its_sender_got_no_answer(site: Site) -> None:
    site.install_hook(repeats=0)
    await deliver_to_a_receiver_that_dies(site, Trouble("WorkQueue.enqueue", "after", call=3))
    async with site.worker():
        await site.until_in_sync()


async def deliver_to_a_receiver_that_dies(site: Site, trouble: Trouble) -> None:
    """Publish for three users; the receiver is killed over one of the webhooks."""
    users = [site.box.clerk.add_user(f"user_{trouble.moment}_{n}") for n in range(3)]
    async with site.receiver(trouble=trouble) as receiver:
        for user in users:
            await site.box.lake.mutate([created(f"e-{user}", user, plan="pro")])
        assert await asyncio.wait_for(receiver.wait(), GUARD) == -signal.SIGKILL, site.reported()

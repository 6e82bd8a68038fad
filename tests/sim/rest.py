"""The end of a run: all failures end, all queues drain, and then all subjects must be in sync.

Trouble may delay access, but not change it. First those are compared of whom every webhook arrived: they
must be right without a reconcile. Then a reconcile has to make everybody right, and a second one has nothing to do.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from sync_worker.errors import DatasetEmpty, SyncWorkerError
from sync_worker.storage.reconcile_runs import LOCK
from sync_worker.storage.work_items import WorkItem
from sync_worker.worker.empty_dataset import STATE
from tests.clock import TIMINGS
from tests.sim import content, operators, trouble, truth

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from tests.sim.machine import Process
    from tests.sim.world import World

PATIENCE = 4000.0
"""Seconds after which what is still not done never will be: the longest backoff is five minutes."""
LAG = 6.0
POLLED = 15.0
"""Seconds that the poll may need, beside its interval and the minute that it leaves to webhooks."""
UNREPORTED = 0.7
"""How often no event reports the last changes, where the poll has to find them."""
BEFORE, AFTER = 10.0, 60.0
"""Seconds around a comparison in which no window opens or closes."""

BUSY = """
SELECT key, lane, visible_at - NOW(), lease_token, generation, completed_generation, attempts, error_code FROM work
WHERE lease_token IS NOT NULL OR visible_at <= NOW()
OR (dead = 0 AND (generation > completed_generation OR attempts > 0) AND NOT (lane > 0 AND cause_kind = 'clerk'))
"""
"""What is under way. The echoes of our own writes, which are looked at later, must not be needed."""
SOON = "SELECT 1 FROM work WHERE visible_at < NOW() + 11 AND dead = 0 AND cause_kind <> 'clerk'"
EMPTY = f"SELECT 1 FROM state WHERE name = '{STATE}'"
UNLISTED = """
SELECT 1 FROM work WHERE error_code IN ('pending_sign_up', 'no_such_subject') AND visible_at < NOW() + 61
"""
AMBIGUOUS_ADDRESS = "SELECT 1 FROM work WHERE error_code = 'ambiguous_address'"
LOCKED = "SELECT 1 FROM state WHERE name = ? AND at >= NOW() - ?"
"""One that was killed holds the lock for a minute."""
WAITING = """
SELECT key, lane FROM work
WHERE lease_token IS NULL AND dead = 0 AND (generation > completed_generation OR attempts > 0)
"""
DEAD = """
SELECT key, error_code, error_detail FROM work
WHERE dead = 1 AND error_code NOT IN ('no_such_subject', 'managed_elsewhere')
"""


UNREPORTED_CHANGES = (content.move, content.delete, content.unpublish, content.dissolve)


async def quiet(world: World) -> str:
    """Let a last change be made, and then all queues run empty: those of whom every webhook arrived must be in sync."""
    await _calm(world)
    if world.config.awaits_poll and world.random.random() < UNREPORTED:
        last = _change_unreported(world)
    else:
        last = world.random.choice((content.course, content.plan, content.cohort, content.move, content.delete))(world)
    await world.hooks.all_delivered()
    await asyncio.sleep(LAG)
    operator = await _operator(world)
    await operator.queue.enqueue([WorkItem(key, lane) for key, lane in world.disk.ask(WAITING)])
    await _idle(world)
    if world.config.awaits_poll:
        await asyncio.sleep(TIMINGS.poll_grace + 2 * world.config.poll_seconds + POLLED)
        await _idle(world)
        if _has_entitlements(world):
            world.watch.unheard.clear()  # else no read proves a delete that nothing has reported
    held = {key for (key,) in world.disk.ask("SELECT key FROM work WHERE dead = 1")} | world.watch.reasons.losses.held()
    unready = world.watch.excuses.keys() | world.watch.unheard | _at_a_boundary(world)
    _compare(world, "right after a quiet while", set(world.clerk.records()) - held - unready)
    _lists_are_withdrawn(world, unready)
    await operator.session.close()
    return f"{last}; then it was quiet"


async def tidy(world: World) -> str:
    """Let operators put everything right; from then on nobody is excused."""
    content.anchor(world)
    await _calm(world)
    await asyncio.sleep(LAG)
    operator = await _operator(world)
    await _put_right(world, operator)
    unready = _at_a_boundary(world)
    _compare(world, "right after a reconcile", set(world.clerk.records()) - unready)
    world.watch.excuses.clear()
    world.watch.unheard.clear()
    world.watch.excuse(unready, "it was about to change when it was looked at")
    await operator.session.close()
    return "operators put everything right"


async def come_to_rest(world: World) -> None:
    """Let the trouble end and compare. What is wrong is reported to the watch."""
    world.note("trouble is over")
    if world.clock.skew:
        world.clock.jump(0.0)
    content.anchor(world)
    if world.clock.jumps:
        world.watch.excuse(world.keys_of(world.history.with_windows()), "its windows went by a clock that jumped")
    await _calm(world)
    if world.config.awaits_poll:
        world.note(_change_unreported(world))
    await asyncio.sleep(LAG + (70.0 + 2 * world.config.poll_seconds if world.config.poll_seconds else 0.0))
    operator = await _operator(world)
    await _idle(world)
    await _approve_all(world, operator)
    await operator.queue.revive()
    await _idle(world)
    await _away_from_boundaries(world)
    _compare(world, "right without a reconcile", world.clerk.records().keys() - world.watch.excuses.keys())
    await _put_right(world, operator)
    await _away_from_boundaries(world)
    _compare(world, "right after a reconcile", set(world.clerk.records()))
    _lists_are_withdrawn(world, set())
    for key, code, detail in world.disk.ask(DEAD):
        world.watch.fail("nobody is given up for nothing", f"{key}: {code} {detail}")
    writes = world.watch.writes
    await _reconcile(world, operator)
    if world.watch.writes != writes:
        world.watch.fail("a second reconcile writes nothing", f"{world.watch.writes - writes} writes")


def _change_unreported(world: World) -> str:
    """Make changes that neither a webhook nor the stream reports."""
    world.hooks.is_silent = True
    done = [change(world) for change in UNREPORTED_CHANGES]
    world.hooks.is_silent = False
    return f"unreported: {'; '.join(done)}"


async def _put_right(world: World, operator: Process) -> None:
    """Do what operators can do: reconcile, approve what is held, retry what was given up."""
    await _commands_done(world)
    await _idle(world)
    await operator.queue.revive()
    await _idle(world)
    await _reconcile(world, operator)
    await _approve_all(world, operator)
    await _idle(world)


async def _calm(world: World) -> None:
    """End the trouble, and deliver what is on its way."""
    trouble.calm(world)
    await world.replace_servers()
    if not any(server.takes_webhooks for server in world.servers):
        await world.start_server()
    await world.hooks.all_delivered()


async def _operator(world: World) -> Process:
    from tests.sim.machine import Process  # noqa: PLC0415

    process = Process(world, "operator")
    await process.start()
    return process


async def _reconcile(world: World, operator: Process) -> None:
    await _nobody_alone(world)

    async def work() -> Any:
        return await operators.reconcile_once(operator, accept_fewer=True)

    try:
        findings, result = await operator.spawn(work())
    except SyncWorkerError as error:
        world.watch.fail("a reconcile in good weather succeeds", f"{type(error).__name__} {error.detail}")
        return
    world.note(f"reconciled: {len(findings.differences)} differences, {dict(result.kinds)}, held {result.held!r}")
    for key, failure in result.failed.items():
        world.watch.fail("a reconcile in good weather succeeds", f"{key}: {failure}")


async def _approve_all(world: World, operator: Process) -> None:
    for held in await operator.approvals.changesets():
        await _nobody_alone(world)
        world.note(f"approved: {held.reason}")
        result = await operator.spawn(operators.approve_one(operator, held))
        for key, failure in result.failed.items():
            world.watch.fail("an approval in good weather succeeds", f"{key}: {failure}")


async def _nobody_alone(world: World) -> None:
    while world.disk.ask(LOCKED, (LOCK, TIMINGS.reconcile_lock)):
        await asyncio.sleep(5.0)


async def _commands_done(world: World) -> None:
    if world.commands:
        _, left = await asyncio.wait(world.commands.values(), timeout=PATIENCE)
        for process, task in world.commands.items():
            if task in left:
                world.watch.fail("everything comes to an end", process.name)


async def _idle(world: World) -> None:
    """Wait until nothing is due, running, to be tried again, or to be looked at again because no event reports it."""
    await _nothing_under_way(world)
    if world.disk.ask(UNLISTED):
        await asyncio.sleep(TIMINGS.clerk_list_lag + 2.0)
    elif world.disk.ask(AMBIGUOUS_ADDRESS):
        await asyncio.sleep(TIMINGS.shared_address_recheck + 2.0)
    elif world.disk.ask(SOON):
        await asyncio.sleep(12.0)
    if world.disk.ask(EMPTY):
        await asyncio.sleep(TIMINGS.empty_dataset_interval + 5.0)
    await _nothing_under_way(world)


async def _nothing_under_way(world: World) -> None:
    deadline = world.loop.time() + PATIENCE
    while busy := _busy(world):
        if world.watch.broken or world.loop.time() > deadline:
            world.watch.fail("everything comes to an end", f"{busy}")
            return
        await asyncio.sleep(1.0)


def _busy(world: World) -> list[Any]:
    """Return the rows under way. Without any entitlement some wait until an end is reported, or one is visible."""
    rows = world.disk.ask(BUSY)
    if _has_entitlements(world):
        return rows
    return [row for row in rows if row[3] is not None or row[2] <= 0 or row[-1] != DatasetEmpty().code]


def _has_entitlements(world: World) -> bool:
    return any(document["_type"] == "entitlement" for document in world.lake.now.documents.values())


async def _away_from_boundaries(world: World) -> None:
    while True:
        now = world.clock.true_time()
        boundary = world.history.next_boundary(now - BEFORE)
        if boundary is None or boundary > now + AFTER:
            return
        await asyncio.sleep(boundary - now + BEFORE + 0.1)
        await _idle(world)


def _at_a_boundary(world: World) -> set[str]:
    """Return the subjects whose access changes by the clock just now, or by a clock that jumped."""
    now = world.clock.true_time()
    history = world.history
    names = history.with_windows() if world.clock.jumps else history.with_boundary(now - BEFORE, now + 1.0)
    return set(world.keys_of(names))


def _compare(world: World, rule: str, keys: Iterable[str]) -> None:
    wrong = [text for key in sorted(keys) for text in _wrong(world, key)]
    if wrong:
        world.watch.fail(rule, "; ".join(wrong))


def _lists_are_withdrawn(world: World, unready: Collection[str]) -> None:
    """What a subject on a list would lose is still not published: else it would not have to wait."""
    for key in sorted(world.watch.reasons.losses.held() - set(unready)):
        if world.clerk.record(key) is not None and not list(_wrong(world, key)):
            world.watch.fail("a list is withdrawn once nothing would be lost", key)


def _wrong(world: World, key: str) -> Iterable[str]:
    """Yield how a subject differs from what is published and from what others wrote."""
    record = world.clerk.record(key)
    assert record is not None
    unmanaged = truth.unmanaged_of(record)
    if unmanaged != world.unmanaged[key]:
        yield f"{key} has the unmanaged keys {unmanaged}, not {world.unmanaged[key]}"
    want = truth.desired(world.history.rows(world.names_of(key)), world.clock.true_time())
    state = world.ownership.now(key)
    if state.is_taken(world.namespace):
        if want:
            return  # it is another installation's; ours is refused
        theirs = state.listed(own=False)
    else:
        theirs = set[truth.Slot]()
        yield from _differences(world, key, want)
    for slot in sorted(state.managed - theirs, key=str):
        if slot[0] != world.namespace or slot[1] not in want:
            yield f"{key} still has {slot}={state.values[slot]!r}, which nothing gives"


def _differences(world: World, key: str, want: truth.Values) -> Iterable[str]:
    """Yield what is missing, or has another value, of what rows give. An empty list takes nothing over."""
    state, place = world.ownership.now(key), world.namespace
    given = set[truth.Slot]()
    for name, value in want.items():
        slot = (place, name)
        if value != [] or slot in state.managed or slot not in state.values:
            given.add(slot)
            if not truth.same(state.values.get(slot), value):
                yield f"{key} has {name}={state.values.get(slot)!r}, not {value!r}"
    listed = state.listed(own=True)
    if listed != given or (bool(given) is not (place in state.markers)):
        yield f"{key} has the marker {state.markers}, which should list {sorted(given, key=str)}"

"""Failures that tests inject into a process before it runs its command.

The program has no hooks for tests, but a test has to stop it exactly between two effects, or shorten a lease of half a
minute. All patches are here; `nursery` starts the processes.
"""

from __future__ import annotations

import itertools
import os
import signal
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from sync_worker.domain.timings import Timings
from sync_worker.runtime.wiring import Runtime
from sync_worker.storage import migrations as schema
from sync_worker.storage import queue
from sync_worker.storage.ledger import Ledger
from sync_worker.storage.migrations import Step
from sync_worker.storage.postgres import PostgresDatabase
from sync_worker.storage.queue import WorkQueue
from sync_worker.storage.sqlite import SqliteDatabase
from sync_worker.transport import ServiceTransport
from tests.blackbox.buggy import plant_bugs
from tests.clock import ShiftedClock

if TYPE_CHECKING:
    from collections.abc import Callable

Moment = Literal["before", "uncommitted", "after"]


@dataclass(frozen=True)
class Trouble:
    """What goes wrong.

    `kill_at` names a method, as `WorkQueue.enqueue`: its `call`-th call ends the process with SIGKILL, `before` it
    begins, while all is written but `uncommitted`, or `after` it. `lease` is in seconds. `clock_jump` is how many
    seconds the clock of the process jumps at each SIGUSR1. `elsewhere` lets the process pass for one on another
    machine, so that nobody sees when it is gone. `patience` is how many seconds it waits for a lock of the database.
    `probe_after` is how many seconds pass between two tries while a key is refused. `bugs` plants those of `buggy`.
    `steps` are statements that a later release will bring the tables up to date with, each with the oldest version of
    the tables whose programs still work after it.
    """

    kill_at: str = ""
    moment: Moment = "before"
    call: int = 1
    lease: float | None = None
    clock_jump: float | None = None
    elsewhere: bool = False
    patience: int | None = None
    probe_after: float | None = None
    bugs: bool = False
    steps: tuple[tuple[int, str], ...] = ()


def die() -> NoReturn:
    """End as a machine that loses its power does."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError  # not reached


def plant(trouble: Trouble) -> None:
    bent = Runtime(clock_of(trouble), timings_of(trouble))
    Runtime.system = lambda: bent  # type: ignore[method-assign]  # the one place that verbs have it from
    if trouble.elsewhere:
        vars(queue)["identity"] = lambda: "elsewhere"
    if trouble.bugs:
        plant_bugs()
    if trouble.steps:
        later = (Step(compatible_from, (statement,)) for compatible_from, statement in trouble.steps)
        vars(schema)["STEPS"] = (*schema.STEPS, *later)
    if trouble.kill_at:
        plant_kill(trouble)


def timings_of(trouble: Trouble) -> Timings:
    """Return the timings of the process. With the lease goes how long a run may take, and how late a write may land."""
    timings = Timings()
    if (lease := trouble.lease) is not None:
        timings = replace(
            timings, lease=lease, run_deadline=lease * 0.8, lease_margin=lease * 0.1, max_write_delay=lease
        )
    if (wait := trouble.patience) is not None:
        timings = replace(timings, postgres_lock_timeout=float(wait), sqlite_busy_timeout=float(wait))
    if trouble.probe_after is not None:
        timings = replace(timings, credentials_probe=trouble.probe_after)
    return timings


def clock_of(trouble: Trouble) -> ShiftedClock:
    """Return the clock of the process, which somebody sets at each SIGUSR1."""
    clock, jump = ShiftedClock(), trouble.clock_jump

    def set_clock(*_: object) -> None:
        clock.ahead += jump or 0.0

    if jump is not None:
        signal.signal(signal.SIGUSR1, set_clock)
    return clock


def plant_kill(trouble: Trouble) -> None:
    doomed: ContextVar[bool] = ContextVar("doomed", default=False)
    for database in (PostgresDatabase, SqliteDatabase):
        _doom_commits(database, doomed)
    owners = {owner.__name__: owner for owner in (WorkQueue, Ledger, ServiceTransport)}
    owner, _, name = trouble.kill_at.partition(".")
    original, calls = getattr(owners[owner], name), itertools.count(1)

    async def fatal(self: Any, *arguments: Any, **named: Any) -> Any:
        if not _counts(arguments) or next(calls) != trouble.call:
            return await original(self, *arguments, **named)
        if trouble.moment == "before":
            die()
        doomed.set(trouble.moment == "uncommitted")
        await original(self, *arguments, **named)
        die()

    setattr(owners[owner], name, fatal)


def _counts(arguments: tuple[Any, ...]) -> bool:
    """Of requests only writes count: what is read leaves no trace."""
    return all(getattr(argument, "method", "PATCH") == "PATCH" for argument in arguments)


def _doom_commits(database: Any, doomed: ContextVar[bool]) -> None:
    """Let the process die in the last moment before a commit that was made in a doomed context."""
    run = database.run

    async def run_or_die(self: Any, work: Callable[[Any], Any]) -> Any:
        if not doomed.get():
            return await run(self, work)

        def work_and_die(tx: Any) -> NoReturn:
            work(tx)
            die()

        return await run(self, work_and_die)

    database.run = run_or_die

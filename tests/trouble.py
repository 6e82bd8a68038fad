"""What goes wrong in a process on purpose: bent inside the process, just before it runs its verb.

Why it exists: the program has no hooks for tests, yet a test has to stop it exactly between two effects, or to be
faster than a lease of half a minute. What is bent stands here and nowhere else; `nursery` starts the processes.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import time
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Self

from sync_worker import attempt, converge, postgres, running, schema, worker, workset
from sync_worker.http import ServiceTransport
from sync_worker.ledger import Ledger
from sync_worker.postgres import PostgresDatabase
from sync_worker.schema import Step
from sync_worker.sqlite import SqliteDatabase
from sync_worker.workset import WorkSet

if TYPE_CHECKING:
    from collections.abc import Callable

Moment = Literal["before", "uncommitted", "after"]


@dataclass(frozen=True)
class Trouble:
    """What goes wrong.

    `kill_at` names a method, as `WorkSet.mark`: its `call`-th call ends the process with SIGKILL, `before` it begins,
    while all is written but `uncommitted`, or `after` it. `lease` is in seconds. `clock_jump` is how many seconds the
    clock of the process jumps at each SIGUSR1. `elsewhere` lets the process pass for one on another machine, so that
    nobody sees when it is gone. `patience` is how many seconds it waits for a lock of the database.
    `probe_after` is how many seconds pass between two tries while a key is refused.
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
    steps: tuple[tuple[int, str], ...] = ()


def die() -> NoReturn:
    """End as a machine that loses its power does."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError  # not reached


def plant(trouble: Trouble) -> None:
    if trouble.lease is not None:
        shorten_lease(trouble.lease)
    if trouble.elsewhere:
        vars(workset)["identity"] = lambda: "elsewhere"
    if trouble.probe_after is not None:
        vars(attempt)["PROBE_AFTER"] = trouble.probe_after
    if trouble.steps:
        later = (Step(compatible_from, (statement,)) for compatible_from, statement in trouble.steps)
        vars(schema)["STEPS"] = (*schema.STEPS, *later)
    if trouble.patience is not None:
        lose_patience(trouble.patience)
    if trouble.clock_jump is not None:
        plant_clock(trouble.clock_jump)
    if trouble.kill_at:
        plant_kill(trouble)


def shorten_lease(seconds: float) -> None:
    """Shorten all that goes with it: how long a run may take, and how late a write may land."""
    for module in (attempt, worker):
        vars(module).update(LEASE=seconds, DEADLINE=seconds * 0.8, MARGIN=seconds * 0.1)
    vars(converge)["LANDS_WITHIN"] = timedelta(seconds=seconds)


def lose_patience(seconds: int) -> None:
    vars(postgres)["LIMITS"] = postgres.LIMITS.replace("lock_timeout = '5s'", f"lock_timeout = '{seconds}s'")
    defaults = SqliteDatabase.__init__.__kwdefaults__
    assert defaults is not None
    defaults["busy_timeout"] = float(seconds)


def plant_clock(jump: float) -> None:
    """Replace every way in which the program reads the time of day, also where it is the default of a parameter."""
    right, ahead = time.time, 0.0

    def clock() -> float:
        return right() + ahead

    def set_clock(*_: object) -> None:
        nonlocal ahead
        ahead += jump

    class Datetime(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return cls.fromtimestamp(clock(), tz)

    for name, module in list(sys.modules.items()):
        if name.startswith("sync_worker") and getattr(module, "datetime", None) is datetime:
            vars(module)["datetime"] = Datetime
    time.time = clock
    vars(running)["Attempts"] = partial(attempt.Attempts, wall=clock)
    signal.signal(signal.SIGUSR1, set_clock)


def plant_kill(trouble: Trouble) -> None:
    doomed: ContextVar[bool] = ContextVar("doomed", default=False)
    for database in (PostgresDatabase, SqliteDatabase):
        _doom_commits(database, doomed)
    owners = {owner.__name__: owner for owner in (WorkSet, Ledger, ServiceTransport)}
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

"""Runs a `sync-worker` verb in a process in which something goes wrong on purpose.

Why it exists: the program has no hooks for tests, yet a test has to stop it exactly between two effects, or to be
faster than a lease of half a minute. So the test starts this file instead of `-m sync_worker`; it imports the program,
bends the one thing that `Trouble` names, and then runs the verb. What is bent stands here and nowhere else.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from sync_worker import attempt, cli, worker
from sync_worker.http import ServiceTransport
from sync_worker.ledger import Ledger
from sync_worker.postgres import PostgresDatabase
from sync_worker.sqlite import SqliteDatabase
from sync_worker.workset import WorkSet

if TYPE_CHECKING:
    from collections.abc import Callable

Moment = Literal["before", "uncommitted", "after"]


@dataclass(frozen=True)
class Trouble:
    """What goes wrong.

    `kill_at` names a method, as `WorkSet.mark`: its `call`-th call ends the process with SIGKILL, `before` it begins,
    while all is written but `uncommitted`, or `after` it. `lease` is in seconds.
    """

    kill_at: str = ""
    moment: Moment = "before"
    call: int = 1
    lease: float | None = None

    def command(self) -> tuple[str, ...]:
        """Return what is run instead of `sync-worker`."""
        return (sys.executable, "-P", __file__, json.dumps(asdict(self)))


def die() -> NoReturn:
    """End as a machine that loses its power does."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError  # not reached


def plant(trouble: Trouble) -> None:
    if trouble.lease is not None:
        shorten_lease(trouble.lease)
    if trouble.kill_at:
        plant_kill(trouble)


def shorten_lease(seconds: float) -> None:
    """Keep the order of the three: what is still sent, the deadline of a run, the lease."""
    for name, value in (("LEASE", seconds), ("DEADLINE", seconds * 0.8), ("MARGIN", seconds * 0.1)):
        for module in (attempt, worker):
            if hasattr(module, name):
                setattr(module, name, value)


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


if __name__ == "__main__":
    plant(Trouble(**json.loads(sys.argv.pop(1))))
    cli.main()

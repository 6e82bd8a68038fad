"""Runs seeds: draws a trace, executes it, and shrinks it if an invariant was violated.

One entry for the tests, the soak and the replay of one seed. A failure is a text with the seed, the rule
and the shortest trace found.
"""

from __future__ import annotations

import asyncio
import os
import random as global_random
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from random import Random
from typing import TYPE_CHECKING
from unittest.mock import patch

import structlog

from sync_worker.storage import queue
from tests.garbage import collect_rarely
from tests.sim import content, people, steps
from tests.sim.loop import VirtualLoop
from tests.sim.machine import owned_task, running
from tests.sim.rest import come_to_rest
from tests.sim.world import Config, World

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableMapping, Sequence
    from typing import Any

    from tests.sim.steps import Step

STEPS = 400
QUICK_STEPS = 200
"""Of the ordinary seeds in `make test`; `make full` takes all steps of them."""
SHRINKING = 60.0
"""Seconds at most for the search of a shorter trace."""
HASHES = {"PYTHONHASHSEED": "0"}
RARELY = 0.65
"""How often a world has none of a dimension."""
STRICT = 0.7
"""How often a world in which slugs vanish allows two losses by one cause."""
RENEWED = 300
"""Seeds after which new processes go on."""
BUGS = frozenset({"run_crashed", "timer_broken", "listener_crashed"})
"""Log events that only a bug of the worker makes."""


@dataclass
class Outcome:
    """What came of one run."""

    config: Config
    broken: tuple[str, str] | None
    trace: list[str]
    steps: int
    calls: int
    writes: int
    seconds: float


@dataclass
class Failure:
    """A broken rule with the shortest trace that was found for it."""

    outcome: Outcome
    drawn: int
    tried: int
    kept: list[Step] = field(default_factory=list)

    def __str__(self) -> str:
        rule, particulars = self.outcome.broken or ("", "")
        replay = f"python -m tests.sim --seed {self.outcome.config.seed}"
        replay += f" --steps {self.drawn}" if self.drawn != STEPS else ""
        lines = [
            f"rule broken: {rule}",
            f"  {particulars}",
            f"replay: {replay}",
            f"{self.outcome.config}",
            f"{self.outcome.steps} steps are left after {self.tried} tries:",
        ]
        return "\n".join((*lines, *self.outcome.trace))


def config_of(seed: int) -> Config:
    """Return what a seed chooses once."""
    random = Random(f"config {seed}")
    dimensions = {**steps.DIMENSIONS, **steps.SOURCES}
    core = [name for name in steps.NAMED if not any(name in names for names in dimensions.values())]
    often = {"crash": 0.5, "jump": 1.0, "disk": 0.5, "empty": 0.7, "keys": 0.6, "blind": 0.4, "change_email": 0.4}
    without = {name for name in core if random.random() < often.get(name, 0.12)}
    mischief = ("twice", "late", "unreachable", "unanswered", "cut")
    webhooks = {name: random.choice((0.05, 0.2)) for name in mischief if random.random() < 0.5}
    if random.random() < 0.3:
        webhooks["lost"] = random.choice((0.02, 0.2))
    jumps = random.random() < 0.15
    more = Random(f"dimensions {seed}")  # numbers of their own, so that worlds without them stay what they were
    without |= {name for names in steps.DIMENSIONS.values() if more.random() < RARELY for name in names}
    strict = "clear_slug" not in without and more.random() < STRICT
    config = Config(
        seed,
        budget=random.choice((20, 50, 90)),
        poll_seconds=random.choice((0, 0, 30)),
        max_revocations=random.choice(("1000", "1000", "2", "10%")),
        real_clients=seed % 50 == 0,
        servers=random.choice((1, 1, 2)),
        jumps=jumps,
        one_machine=random.random() < 0.5,
        clerk_reports=random.random() < 0.6,
        short_pages=random.choice((0.0, 0.0, 0.4)),
        webhooks=webhooks,
        without=frozenset(without - {"jump"} if jumps else without),
    )
    return _with_sources(replace(config, max_revocations="2") if strict else config)


def _with_sources(config: Config) -> Config:
    """Choose how changes are reported, by numbers of their own again. Listening and the log need the poll."""
    random = Random(f"sources {config.seed}")
    chosen = {name for name in steps.SOURCES if random.random() > RARELY}
    without = {step for name, names in steps.SOURCES.items() if name not in chosen for step in names}
    config = replace(config, without=config.without | without)
    if chosen & {"log", "listen"}:
        config = replace(config, poll_seconds=30, jumps=False, without=config.without | {"jump"})
    if "log" in chosen:
        lost = {**config.webhooks, "lost": 0.2}
        config = replace(config, log_kept=120.0, full_check=random.choice((120.0, 36_000.0)), webhooks=lost)
    if "listen" in chosen:
        config = replace(config, events=random.choice(("listen", "listen", "both")))
    return config


def trace_of(config: Config, count: int = STEPS) -> list[Step]:
    """Return the steps of a seed."""
    return steps.draw(count, config.without, Random(f"steps {config.seed}"))


def run(config: Config, trace: Sequence[Step]) -> Outcome:
    """Let a trace happen in a new world."""
    state = global_random.getstate()
    started = time.perf_counter()
    try:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            loop = runner.get_loop()
            loop.set_task_factory(owned_task)
            world = World(config, loop)
            with patch.object(queue, "identity", _identity), patch.object(queue, "is_gone", world.is_gone):
                runner.run(_happen(world, trace))
    finally:
        global_random.setstate(state)
        structlog.reset_defaults()
    seconds = time.perf_counter() - started
    return Outcome(config, world.watch.broken, world.trace, len(trace), world.watch.calls, world.watch.writes, seconds)


async def _happen(world: World, trace: Sequence[Step]) -> None:
    _listen(world)
    world.loop.set_exception_handler(lambda _, context: world.watch.fail("nothing breaks unseen", repr(context)))
    world.random.seed(f"{world.config.seed} begins")
    people.first_people(world)
    world.open_clerk()
    await world.start_server()
    world.lake.mutate(content.first_documents(world))
    for step in trace:
        world.random.seed(f"{world.config.seed} {step.number}")
        global_random.seed(step.number)
        pause = step.pause(world.random)
        world.note(f"{step.number}: {await step.take(world)}")
        await asyncio.sleep(pause)
        if world.watch.broken:
            return
    world.random.seed(f"{world.config.seed} ends")
    await come_to_rest(world)
    for process in (*world.commands, *world.servers):
        await process.kill()


def _identity() -> str:
    """Name the process that runs now, in place of the one that all of them run in."""
    process = running.get()
    return process.name if process is not None else ""


def _listen(world: World) -> None:
    """Keep the log quiet, but for what only a bug of the worker can say."""

    def hear(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        if event.get("event") in BUGS:
            world.watch.fail("the worker has no bug that it stumbles over", repr(event))
        raise structlog.DropEvent

    structlog.configure(processors=[hear], wrapper_class=structlog.make_filtering_bound_logger(40))


def check(seed: int, count: int = STEPS, *, shrinking: float = SHRINKING) -> Outcome:
    """Run one seed. Raises AssertionError with the shrunk trace when a rule is broken."""
    config = config_of(seed)
    outcome = run(config, trace_of(config, count))
    if outcome.broken:
        raise AssertionError(str(shrunk(config, trace_of(config, count), outcome, shrinking)))
    return outcome


def check_all(worlds: Sequence[tuple[int, int]]) -> Iterator[tuple[int, Outcome | str]]:
    """Run many seeds, each with so many steps, on all processors. Yields each with its outcome or its failure's text.

    The order of sets is fixed, because some calls are made in it; processes are renewed, because they grow.
    """
    for start in range(0, len(worlds), RENEWED):
        with (
            patch.dict(os.environ, HASHES),
            ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), initializer=collect_rarely) as processes,
        ):
            runs = {processes.submit(check, *world): world[0] for world in worlds[start : start + RENEWED]}
            for run in as_completed(runs):
                failure = run.exception()
                if failure is not None and not isinstance(failure, AssertionError):
                    raise failure
                yield runs[run], run.result() if failure is None else str(failure)


def shrunk(config: Config, trace: list[Step], outcome: Outcome, seconds: float) -> Failure:
    """Drop steps, many at first and single ones in the end, for as long as the same rule is broken."""
    best, drawn, tried = outcome, len(trace), 1
    deadline = time.monotonic() + seconds
    size = max(1, len(trace) // 2)
    while size and time.monotonic() < deadline:
        start, dropped = 0, False
        while start < len(trace) and time.monotonic() < deadline:
            shorter = trace[:start] + trace[start + size :]
            attempt = run(config, shorter)
            tried += 1
            if attempt.broken and outcome.broken and attempt.broken[0] == outcome.broken[0]:
                trace, best, dropped = shorter, attempt, True
            else:
                start += size
        if size == 1 and not dropped:
            break
        size = max(1, size // 2) if size > 1 else 1
    return Failure(best, drawn, tried, trace)

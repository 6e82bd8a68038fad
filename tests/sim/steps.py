"""The steps of the simulation, how often each is taken, and how much time passes after it.

A trace is a list of numbered names. Each step draws from random numbers of its own number, so a trace
from which steps were dropped still means the same.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.sim import content, operators, people, rest, trouble, writers

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from random import Random

    from tests.sim.world import World

STEPS: dict[Callable[[World], Any], float] = {
    content.publish: 12,
    content.edit: 10,
    content.move: 6,
    content.swap: 2,
    content.delete: 5,
    content.unpublish: 3,
    content.draft: 1,
    content.stage: 1,
    content.release: 1,
    content.course: 3,
    content.plan: 3,
    content.cohort: 2,
    content.burst: 1.5,
    content.empty: 0.3,
    content.anchor: 0.5,
    people.sign_up: 2,
    people.delete_user: 1,
    people.change_email: 5,
    people.change_external_id: 3,
    people.join: 3,
    people.leave: 1,
    people.close_organization: 0.5,
    writers.edit_unmanaged: 3,
    writers.edit_by_hand: 1,
    writers.strip_marker: 0.5,
    trouble.calm: 7,
    trouble.weather: 4,
    trouble.outage: 0.5,
    trouble.lag: 2,
    trouble.dataset_empty: 1,
    trouble.keys: 0.4,
    trouble.disk: 0.5,
    trouble.busy_app: 1,
    trouble.jump: 1.5,
    trouble.crash: 1,
    trouble.stop: 0.7,
    trouble.start: 4,
    trouble.kill_command: 0.5,
    trouble.forge: 0.3,
    rest.quiet: 2,
    rest.tidy: 1,
    operators.reconcile: 1,
    operators.approve: 0.5,
    operators.sync: 2,
    operators.retry: 0.5,
    operators.purge: 0.3,
    writers.set_our_names: 6,
    writers.wipe_private: 2.5,
    writers.wipe_all: 1,
    writers.grant_elsewhere: 4,
    writers.revoke_elsewhere: 2,
    content.enrol: 1,
    content.clear_slug: 3,
    content.restore_slugs: 3,
    operators.change_settings: 0.7,
    trouble.fall_back: 4,
    trouble.log_fault: 4,
    trouble.cut: 3,
}
"""Weights."""
DIMENSIONS = {
    "app": ("set_our_names", "wipe_private", "wipe_all"),
    "second installation": ("grant_elsewhere", "revoke_elsewhere"),
    "slugs": ("enrol", "clear_slug", "restore_slugs"),
    "settings": ("change_settings",),
}
"""Steps that only some worlds know."""
SOURCES = {"replica": ("fall_back",), "log": ("log_fault",), "listen": ("cut",)}
"""The same, about what reports changes and how they are read."""

NAMED = {step.__name__: step for step in STEPS}
PAUSES = ((0.0, 0.0), (0.005, 0.3), (0.3, 2.0), (4.0, 15.0))
OFTEN = (30, 45, 20, 2)
"""How much time passes between two steps (seconds), and how often it is so much."""


@dataclass(frozen=True)
class Step:
    """One step of a trace."""

    number: int
    name: str

    async def take(self, world: World) -> str:
        """Do it; return what was done, in words."""
        done = NAMED[self.name](world)
        return str(await done if inspect.isawaitable(done) else done)

    def pause(self, random: Random) -> float:
        low, high = random.choices(PAUSES, OFTEN)[0]
        return random.uniform(low, high)


def draw(count: int, without: Collection[str], random: Random) -> list[Step]:
    """Return a trace of so many steps."""
    names = [name for name in NAMED if name not in without]
    weights = [STEPS[NAMED[name]] for name in names]
    return [Step(number, name) for number, name in enumerate(random.choices(names, weights, k=count))]

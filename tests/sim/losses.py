"""What one cause may take away: the guard's promise, checked by what is written.

A loss counts unless it is what the subject's own entitlements say, the end of a window, or an operator's word. That is
decided here by what happened, not by what the worker says of it, but for the name of the cause.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from tests.sim import truth
from tests.sim.clock import EPOCH

if TYPE_CHECKING:
    from tests.sim.reasons import Write
    from tests.sim.world import World

HOUR = 3600.0
AT_LEAST = 5
"""What a percentage always allows; a tenth of the few subjects here is less."""
LISTED = """
SELECT held.subject FROM held JOIN changeset ON changeset.id = held.changeset WHERE changeset.expires > NOW()
"""


class Losses:
    """Counts losses by cause."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._explained: dict[str, tuple[int, int, float]] = {}
        self._sent: dict[str, tuple[int, int, float]] = {}
        self._lost: dict[str, dict[str, float]] = defaultdict(dict)

    def held(self) -> set[str]:
        """Return the subjects on a live list."""
        return {key for (key,) in self._world.disk.ask(LISTED)}

    def is_held(self, key: str) -> bool:
        """Return whether something of a subject waits for approval."""
        return key in self.held()

    def check(self, write: Write, state: int) -> None:
        """Check one write that a read of `state` explains."""
        world, key, now = self._world, write.key, self._world.loop.time()
        before = self._explained.get(key, (0, 0, 0.0))
        if not (is_held := self.is_held(key)):
            self._sent[key] = state, world.watch.order, now
        if not _loses(write) or world.clock.jumps or write.call.process.may_take or write.cause == "sync":
            return
        if self._own_changed(key, *before):
            return
        if is_held:
            world.watch.fail("what is held waits for approval", f"{key}: {write.after} by {write.cause!r}")
        if self._is_own_event(key, write.cause):
            return
        lost = self._lost[write.cause]
        lost[key] = now
        recent = [one for one, at in lost.items() if at > now - HOUR]
        if len(recent) > self._allowed:
            world.watch.fail("no cause takes more than it may", f"{write.cause!r} took from {sorted(recent)}")

    def applied(self, key: str) -> None:
        """Note that Clerk has made a change of ours: what it does not make must still be explained the next time."""
        if sent := self._sent.pop(key, None):
            self._explained[key] = sent

    @property
    def _allowed(self) -> int:
        text = self._world.config.max_revocations
        return AT_LEAST if text.endswith("%") else int(text)

    def _is_own_event(self, key: str, cause: str) -> bool:
        """Return whether the cause is an event of an entitlement that names the subject, or once did."""
        kind, _, document = cause.partition(":")
        if kind not in ("webhook", "listen", "document"):
            return False
        directories = self._world.watch.reasons.directories_since(0)
        names = set().union(*(truth.names_of(key, directory) for directory in directories))
        states = range(self._world.lake.now.number + 1)
        return any(row["_id"] == document for state in states for row in self._world.history.rows(names, state))

    def _own_changed(self, key: str, state: int, order: int, at: float) -> bool:
        """Return whether own entitlements, addresses or a window of the subject changed since it was last in sync."""
        world = self._world
        named = [truth.names_of(key, directory) for directory in world.watch.reasons.directories_since(order)]
        if any(names != named[0] for names in named):
            return True
        states = [world.history.rows(named[0], number) for number in range(state, world.lake.now.number + 1)]
        revisions = [sorted((row["_id"], row["_rev"]) for row in rows) for rows in states]
        passed = (at - 1.0 <= moment - EPOCH <= world.loop.time() + 1.0 for moment in truth.boundaries(states[0]))
        return any(some != revisions[0] for some in revisions) or any(passed)


def _loses(write: Write) -> bool:
    """Return whether a write takes something away, whatever the worker has seen since the claim."""
    return all(
        any(truth.is_loss(name, one.current(name, write.namespace), write.after.get(name)) for name in _written(write))
        for one in write.snapshots
    )


def _written(write: Write) -> set[str]:
    return {name for _, name in write.public}

"""Why the worker may make a write: what a read showed since the subject was claimed, and whose keys it changes.

Every write has to be explained by such a read, and that read by what the webhooks had reported. What it leaves out, or
leaves as it was, has to be another's, or wait for approval.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING, Any

from tests.sim import truth
from tests.sim.losses import Losses

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.sim.hooks import Delivery
    from tests.sim.lake import Read
    from tests.sim.machine import Process
    from tests.sim.ownership import Snapshot
    from tests.sim.truth import Slot
    from tests.sim.world import World

EPSILON = 1e-5
UNMANAGED = "unmanaged keys stay as they are"
OTHERS = "another installation's keys stay as they are"


@dataclass(eq=False)
class Call:
    """One request of the worker, from when it was sent until it was answered or given up. Times are of the loop."""

    process: Process
    service: str
    method: str
    key: str
    sent: float


@dataclass(frozen=True)
class Claimed:
    """That a process took a subject: its place in the order of events, and the wall clock then."""

    order: int
    at: float
    wall: float


@dataclass(frozen=True)
class Write:
    """One PATCH as it is sent: what the ledger says it leaves and why, and what it changes."""

    call: Call
    claimed: Claimed
    after: truth.Values
    cause: str
    public: Mapping[Slot, Any]
    private: Mapping[str, Any]

    @property
    def key(self) -> str:
        return self.call.key

    @property
    def namespace(self) -> str | None:
        """Where the settings of the process put the managed keys."""
        return self.call.process.namespace

    @cached_property
    def snapshots(self) -> list[Snapshot]:
        """What Clerk held of the subject since the claim: the worker has seen one of them."""
        return self.call.process.world.ownership.since(self.key, self.claimed.order)


class Reasons:
    """Explains writes. What has no reason breaks a rule."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.losses = Losses(world)
        self._events: dict[str, dict[str, list[tuple[int, int]]]] = defaultdict(lambda: defaultdict(list))
        self._granted_by: dict[str, int] = {}
        self._directories: list[tuple[int, truth.Directory]] = [(0, {})]

    def accepted(self, delivery: Delivery) -> None:
        """Note what a webhook reported."""
        for key in delivery.subjects:
            self._events[key][delivery.about].append((self._world.watch.order, delivery.state))

    def addresses_moved(self, directory: truth.Directory) -> None:
        """Note who has which address from now on."""
        self._directories.append((self._world.watch.order, directory))

    def check(self, write: Write) -> None:
        """Check one write as it is sent."""
        if self._world.clock.jumped_forth_and_back_since(write.call.sent - 60.0):
            return  # it is an older claim's, whose lease the first jump ended
        self._check_settings(write)
        self._check_values(write)
        self._check_ownership(write)
        self._check_read(write)

    def _check_settings(self, write: Write) -> None:
        world = self._world
        if write.namespace != world.namespace and write.claimed.order > world.released:
            detail = f"{write.key}: {write.namespace}, but {world.namespace} was released"
            world.watch.fail("nothing is written under settings that were replaced", detail)

    def _check_values(self, write: Write) -> None:
        """Compare what is written with the ledger and the allow-list."""
        fail, key = self._world.watch.fail, write.key
        for (place, name), value in write.public.items():
            if place != write.namespace and value is not None:
                fail("keys are written where the settings say", f"{key}: {name} in {place}")
            elif place == write.namespace and write.after.get(name) != value:
                fail("the ledger says what is written", f"{key}: {name} {value}, but the ledger says {write.after}")
            was_there = (one.current(name, place) for one in write.snapshots)  # a loss is held, and its key moves
            if value not in (None, *truth.ORDERS.get(name, (value,)), *was_there):
                fail("nothing outside the allow-list is granted", f"{key}: {name} {value!r}")

    def _check_ownership(self, write: Write) -> None:
        """Nothing is removed that is not managed, and nothing of another installation's is touched at all."""
        fail, key, seen = self._world.watch.fail, write.key, write.snapshots
        for slot, value in write.public.items():
            if value is None and not any(slot in one.perhaps_managed for one in seen):
                fail(UNMANAGED, f"{key}: {slot} is removed")
            if all(slot in one.listed(own=False) or (value is not None and one.is_taken(slot[0])) for one in seen):
                fail(OTHERS, f"{key}: {slot} becomes {value}")
        for place in truth.NAMESPACES:
            inside = write.private if place is None else write.private.get(place, {})
            if truth.MARKER in inside and all(one.is_taken(place) for one in seen):
                fail(OTHERS, f"{key}: the marker in {place} becomes {inside[truth.MARKER]}")
        names = {name for marker in truth.markers_in(write.private).values() for name in marker["keys"]}
        if names - {f"public.{write.namespace}.{name}" if write.namespace else name for name in write.after}:
            fail("the marker lists what is managed", f"{key}: {sorted(names)}, after {write.after}")

    def _check_read(self, write: Write) -> None:
        """Find the read that explains a write."""
        key, claimed, fail = write.key, write.claimed, self._world.watch.fail
        since = [read for order, read in reversed(write.call.process.reads) if order > claimed.order]
        reads = [read for read in since if _id(key) in read.ids or (read.stored and not write.after)]
        shown = [
            (read, values)
            for read in reads
            for values in self._given(key, read, claimed)
            if self._explains(write, values)
        ]
        if not shown:
            fail("a write is what a read showed", f"{key}: {write.after} after states {[read.state for read in reads]}")
            return
        fresh = [(read.state, values) for read, values in shown if not self._behind(key, read, claimed)]
        if not fresh:
            read = shown[0][0]
            detail = f"{key}: {write.after} from state {read.state}, older than a webhook said of "
            fail("no write from a stale read", detail + self._behind(key, read, claimed))
            return
        self.losses.check(write, min(state for state, _ in fresh))
        granting = [state for state, values in fresh if values]
        if granting:
            self._granted_by[key] = min(granting)
        elif any(state >= self._granted_by.get(key, 0) for state, _ in fresh) and self._always_entitled(
            key, self._granted_by.get(key, 0), claimed
        ):
            fail("nobody entitled is revoked", f"{key} was entitled at every moment since the last grant")

    def _explains(self, write: Write, values: truth.Values) -> bool:
        """Return whether a write leaves what rows give, apart from what is not ours and what waits for approval."""
        return all(self._may_leave(write, name, values.get(name)) for name in truth.MANAGED)

    def _may_leave(self, write: Write, name: str, given: Any) -> bool:
        value, slot = write.after.get(name), (write.namespace, name)
        if given == [] and value in (None, []):  # an empty list takes nothing over
            return any(
                (slot not in one.values or slot in one.perhaps_managed)
                if value == []
                else (slot in one.values and slot not in one.managed)
                for one in write.snapshots
            )
        if value == given:
            return True
        if not self.losses.is_held(write.key):
            return False
        kept = [one.current(name, write.namespace) for one in write.snapshots]
        return value is None or any(value == old or value == _union(old, given) for old in kept)

    def _given(self, key: str, read: Read, claimed: Claimed) -> list[truth.Values]:
        """Return what a state may give since the claim, by the addresses that the subject had since then."""
        had = [truth.names_of(key, directory) for directory in self.directories_since(claimed.order)]
        always = set.intersection(*had)
        sometimes = sorted(set.union(*had) - always)
        return [
            values
            for count in range(len(sometimes) + 1)
            for some in combinations(sometimes, count)
            for values in self._given_to(always | set(some), read, claimed)
        ]

    def _given_to(self, names: set[str], read: Read, claimed: Claimed) -> list[truth.Values]:
        """Return what the rows with these names give at any moment since the claim, by the wall clock."""
        rows, clock = self._world.history.rows(names, read.state), self._world.clock
        jumps = [abs(by) for at, by in clock.jumps if at >= claimed.at]
        low = min(claimed.wall, clock.now()) - sum(jumps)
        high = max(claimed.wall, clock.now()) + sum(jumps) + EPSILON
        moments = {low, high, *(moment for moment in truth.boundaries(rows) if low <= moment <= high)}
        # An index does not find a row as an editor pasted it, until its document is known to be for the subject.
        pasted = [row for row in rows if truth.is_pasted(row)]
        plain = [row for row in rows if not truth.is_pasted(row)]
        return [
            truth.desired([*plain, *some], moment)
            for moment in moments
            for count in range(len(pasted) + 1)
            for some in combinations(pasted, count)
        ]

    def directories_since(self, order: int) -> list[truth.Directory]:
        """Return who had which address since then, the oldest first."""
        last = max(index for index, (at, _) in enumerate(self._directories) if at <= order)
        return [directory for _, directory in self._directories[last:]]

    def _behind(self, key: str, read: Read, claimed: Claimed) -> str:
        """Return a document that a read shows older than a webhook had reported before the claim, or nothing."""
        history, now = self._world.history, self._world.lake.now.number
        for document, events in self._events[key].items():
            reported = [state for order, state in events if order < claimed.order]
            if reported:
                shown = history.revision(document, read.state)
                if read.state < max(reported) and all(
                    history.revision(document, state) != shown for state in range(max(reported), now + 1)
                ):
                    return document
        return ""

    def _always_entitled(self, key: str, since: int, claimed: Claimed) -> bool:
        """Return whether some row gave the subject something in every state since then, and could be found.

        No query finds a row as an editor pasted it before an event has made its document known, so it counts from the
        next state, and only then.
        """
        known = self._known(key, max(0, since - 1), claimed)
        for state in range(since, self._world.lake.now.number + 1):
            rows = self._world.history.rows([key], state)
            if not any(_entitles(row) and (not truth.is_pasted(row) or row["_id"] in known) for row in rows):
                return False
            known = self._known(key, state, claimed)
        return True

    def _known(self, key: str, state: int, claimed: Claimed) -> set[str]:
        """Return the documents of which an event was accepted before a claim, and since they were for the subject."""
        return {
            id_
            for id_ in {row["_id"] for row in self._world.history.rows([key], state)}
            if any(
                order < claimed.order and reported >= self._for_it_since(key, id_, state)
                for order, reported in self._events[key][id_]
            )
        }

    def _for_it_since(self, key: str, document: str, state: int) -> int:
        """Return the first of the states up to `state` that name the subject in this document without a gap."""
        while state and any(row["_id"] == document for row in self._world.history.rows([key], state - 1)):
            state -= 1
        return state


def _entitles(row: truth.Row) -> bool:
    """Return whether a row gives something at any time."""
    return truth.is_good(row) and row["status"] in (None, "active") and row["startsAt"] is row["endsAt"] is None


def _id(key: str) -> str:
    """Return the id that a query names a subject by."""
    return key.partition(":")[2].rpartition("/")[2]


def _union(one: object, other: object) -> object:
    return sorted({*one, *other}) if isinstance(one, list) and isinstance(other, list) else None

"""The invariants that must hold at every moment, checked on each request and each response.

A wrong write may be repaired a second later and leave no trace. So every write must be explained by a read since the
subject was claimed, and that read must reflect the webhooks delivered before.
"""

from __future__ import annotations

import json
from collections import defaultdict, deque
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

from tests.sim import truth
from tests.sim.clerk import key_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import httpx

    from sync_worker.storage.queue import Claim
    from tests.sim.hooks import Delivery
    from tests.sim.lake import Read
    from tests.sim.machine import Process
    from tests.sim.network import Reply
    from tests.sim.world import World

WINDOW = 10.0
CLEAN_WRITES = 9
"""Writes to one subject that went well, in any ten seconds; Clerk refuses the eleventh."""
EPSILON = 1e-5


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


class Watch:
    """Records what happens and says what must not. `broken` is the first rule that was broken, with the particulars.

    `excuses` says of subjects why they may differ until a reconcile; `unheard` wait at least for the poll.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self.broken: tuple[str, str] | None = None
        self.excuses: dict[str, str] = {}
        self.unheard: set[str] = set()
        self.writes = 0
        self.calls = 0
        self._order = 0
        self._claims: dict[tuple[Process, str], Claimed] = {}
        self._events: dict[str, dict[str, list[tuple[int, int]]]] = defaultdict(lambda: defaultdict(list))
        self._in_flight: dict[str, Call] = {}
        self._sent: deque[float] = deque()
        self._refused: dict[str, tuple[float, float]] = {}
        self._paused: tuple[float, float] = (0.0, 0.0)
        self._clean: dict[str, deque[float]] = defaultdict(deque)
        self._granted_by: dict[str, int] = {}
        self._directories: list[tuple[int, truth.Directory]] = [(0, {})]

    def fail(self, rule: str, particulars: str) -> None:
        if self.broken is None:
            self.broken = rule, particulars

    def excuse(self, keys: Iterable[str], reason: str) -> None:
        for key in keys:
            self.excuses.setdefault(key, reason)

    def lost(self, delivery: Delivery) -> None:
        self._world.note(f"the webhook about {delivery.about} is lost")
        self.unheard |= delivery.concerned
        self.excuse(delivery.unheard, f"the webhook about {delivery.about} was lost")

    def accepted(self, delivery: Delivery) -> None:
        self._order += 1
        for key in delivery.subjects:
            self._events[key][delivery.about].append((self._order, delivery.state))

    def addresses_moved(self, directory: truth.Directory) -> None:
        """Take note of who has which address from now on."""
        self._order += 1
        self._directories.append((self._order, directory))

    def claimed(self, process: Process, claims: Sequence[Claim]) -> None:
        self._order += 1
        now = Claimed(self._order, self._world.loop.time(), self._world.clock.now())
        for claim in claims:
            self._claims[process, claim.key] = now

    def sent(self, process: Process, service: str, request: httpx.Request) -> Call:
        now = self._world.loop.time()
        call = Call(process, service, request.method, "", now)
        if service == "clerk":
            self.calls += 1
            self._count(now)
            if request.method not in ("GET", "PATCH"):
                self.fail("only metadata is written", f"{request.method} {request.url.path}")
            if request.method == "PATCH":
                self.writes += 1
                call.key = key_of(request.url.path)
                self._check_write(call, request)
                self._in_flight[call.key] = call
        return call

    def answered(self, call: Call, reply: Reply) -> None:
        now = self._world.loop.time()
        if reply.read is not None:
            self._order += 1
            call.process.reads.append((self._order, reply.read))
        if reply.status == 429 and call.service == "clerk":
            until = now + (reply.retry_after or 0.0)
            if call.key:
                self._refused[call.key] = now, until
            else:
                self._paused = now, until
        if call.key and 200 <= reply.status < 300:
            self._check_pace(call)

    def ended(self, call: Call) -> None:
        if self._in_flight.get(call.key) is call:
            del self._in_flight[call.key]

    def applied(self, key: str) -> None:
        """Look at what is left after Clerk made a change of ours."""
        record = self._world.clerk.record(key)
        assert record is not None
        foreign = {
            "public": {k: v for k, v in record["public_metadata"].items() if k not in truth.OWNED},
            "private": {k: v for k, v in record["private_metadata"].items() if k != truth.MARKER},
        }
        if foreign != self._world.foreign[key]:
            self.fail("foreign keys stay as they are", f"{key}: {foreign}, not {self._world.foreign[key]}")

    def _count(self, now: float) -> None:
        world = self._world
        self._sent.append(now)
        while self._sent[0] <= now - WINDOW:
            self._sent.popleft()
        if len(self._sent) > world.config.budget and not world.clock.jumped_since(now - WINDOW):
            self.fail("the budget is kept", f"{len(self._sent)} calls in {WINDOW:.0f} s, {world.config.budget} allowed")
        since, until = self._paused
        held = since + 0.3 < now < until - EPSILON
        if held and not world.disk.was_in_trouble and not world.clock.jumped_since(since):
            self.fail("a pause is kept", f"a call {until - now:.2f} s before Clerk's Retry-After was over")

    def _check_write(self, call: Call, request: httpx.Request) -> None:
        key, now, clock = call.key, call.sent, self._world.clock
        patch = json.loads(request.content)
        public, private = patch.get("public_metadata", {}), patch.get("private_metadata", {})
        if patch.keys() - {"public_metadata", "private_metadata"} or not key:
            self.fail("only metadata is written", f"{request.method} {request.url.path}: {sorted(patch)}")
        if public.keys() - set(truth.OWNED) or private.keys() - {truth.MARKER}:
            self.fail("only owned keys are written", f"{key}: {sorted(public)} {sorted(private)}")
        for name, order in truth.ORDERS.items():
            if public.get(name) not in (None, *order):
                self.fail("nothing outside the allow-list is granted", f"{key}: {name} {public[name]!r}")
        other = self._in_flight.get(key)
        if other is not None and not clock.jumped_since(other.sent, forward=True):
            self.fail("one write of a subject at a time", f"{key}: {call.process.name} while {other.process.name}")
        since, until = self._refused.get(key, (0.0, 0.0))
        if now < until - EPSILON and not clock.jumped_since(since):
            self.fail("Retry-After is honoured", f"{key}: {until - now:.2f} s too early")
        after = self._intent(key, settled=clock.jumped_since(now - 60.0))
        if after is None:
            self.fail("a write follows a ledger row", key)
        elif any(after.get(name) != value for name, value in public.items()):
            self.fail("the ledger tells what is written", f"{key}: {public}, but the ledger says {after}")
        else:
            self._check_reason(call, after)

    def _check_reason(self, call: Call, after: truth.Values) -> None:
        """Find the read that explains a write."""
        key, claimed = call.key, self._claims.get((call.process, call.key))
        if claimed is None:
            self.fail("a write follows a claim", key)
            return
        since = [read for order, read in reversed(call.process.reads) if order > claimed.order]
        reads = [read for read in since if _id(key) in read.ids or (read.stored and not after)]
        shown = [read for read in reads if after in self._given(key, read, claimed)]
        if not shown and self._world.clock.jumped_forth_and_back_since(call.sent - 60.0):
            return  # it is an older claim's, whose lease the first jump ended
        if not shown:
            states = [read.state for read in reads]
            self.fail("a write is what a read showed", f"{key}: {after} after reading states {states}")
            return
        fresh = [read.state for read in shown if not self._behind(key, read, claimed)]
        if not fresh:
            document = self._behind(key, shown[0], claimed)
            self.fail(
                "no write from a stale read",
                f"{key}: {after} from state {shown[0].state}, which does not show what was told of {document}",
            )
            return
        if after:
            self._granted_by[key] = min(fresh)
        elif self._always_entitled(key, self._granted_by.get(key, 0)):
            self.fail("nobody entitled is revoked", f"{key} was entitled at every moment since the last grant")

    def _given(self, key: str, read: Read, claimed: Claimed) -> list[truth.Values]:
        """Return what a state may give since the claim, by the addresses that the subject had since then."""
        had = [truth.names_of(key, directory) for directory in self._directories_since(claimed.order)]
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
        return [truth.desired(rows, moment) for moment in moments]

    def _directories_since(self, order: int) -> list[truth.Directory]:
        """Return who had which address since then, the oldest first."""
        last = max(index for index, (at, _) in enumerate(self._directories) if at <= order)
        return [directory for _, directory in self._directories[last:]]

    def _behind(self, key: str, read: Read, claimed: Claimed) -> str:
        """Return a document that a read shows older than a webhook had told before the claim, or nothing."""
        history, now = self._world.history, self._world.lake.now.number
        for document, events in self._events[key].items():
            told = [state for order, state in events if order < claimed.order]
            if told:
                shown = history.revision(document, read.state)
                if read.state < max(told) and all(
                    history.revision(document, state) != shown for state in range(max(told), now + 1)
                ):
                    return document
        return ""

    def _always_entitled(self, key: str, since: int) -> bool:
        history, now = self._world.history, self._world.lake.now.number
        return all(
            any(
                truth.is_good(row) and row["status"] in (None, "active") and row["startsAt"] is row["endsAt"] is None
                for row in history.rows([key], state)
            )
            for state in range(since, now + 1)
        )

    def _check_pace(self, call: Call) -> None:
        clean = self._clean[call.key]
        clean.append(call.sent)
        while clean[0] <= call.sent - WINDOW:
            clean.popleft()
        if len(clean) > CLEAN_WRITES and not self._world.clock.jumped_since(call.sent - 60.0):
            self.fail("writes of a subject are paced", f"{call.key}: {len(clean)} in {WINDOW:.0f} s")

    def _intent(self, key: str, *, settled: bool) -> Any:
        """Return what the ledger says; by a jump another process may have `settled` what is still being sent again."""
        rows = self._world.disk.ask(
            "SELECT after FROM ledger WHERE subject = ? AND (state = 'intended' OR ?) ORDER BY id DESC LIMIT 1",
            (key, settled),
        )
        return json.loads(rows[0][0]) if rows else None


def _id(key: str) -> str:
    """Return the id that a query names a subject by."""
    return key.partition(":")[2].rpartition("/")[2]

"""The invariants that must hold at every moment, checked on each request and each response.

A wrong write may be repaired a second later and leave no trace at the end. This is about the traffic; whether a write
has a reason is `reasons`.
"""

from __future__ import annotations

import json
from collections import defaultdict, deque
from typing import TYPE_CHECKING

from tests.sim import truth
from tests.sim.clerk import key_of
from tests.sim.reasons import EPSILON, Call, Claimed, Reasons, Write

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import httpx

    from sync_worker.storage.work_items import Claim
    from tests.sim.hooks import Delivery
    from tests.sim.machine import Process
    from tests.sim.network import Reply
    from tests.sim.world import World

WINDOW = 10.0
CLEAN_WRITES = 9
"""Writes to one subject that went well, in any ten seconds; Clerk refuses the eleventh."""


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
        self.order = 0
        self._claims: dict[tuple[Process, str], Claimed] = {}
        self._in_flight: dict[str, Call] = {}
        self._sent: deque[float] = deque()
        self._refused: dict[str, tuple[float, float, Process]] = {}
        self._paused: tuple[float, float] = (0.0, 0.0)
        self._clean: dict[str, deque[float]] = defaultdict(deque)
        self.reasons = Reasons(world)

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
        self.order += 1
        self.reasons.accepted(delivery)

    def addresses_moved(self, directory: truth.Directory) -> None:
        """Take note of who has which address from now on."""
        self.order += 1
        self.reasons.addresses_moved(directory)

    def settings_replaced(self) -> None:
        """Note that other settings hold for what is claimed from now on."""
        self._world.released = self.order
        self.order += 1

    def claimed(self, process: Process, claims: Sequence[Claim], order: int) -> None:
        now = Claimed(order, self._world.loop.time(), self._world.clock.now())
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
            self.order += 1
            call.process.reads.append((self.order, reply.read))
        if reply.status == 429 and call.service == "clerk":
            until = now + (reply.retry_after or 0.0)
            if call.key:
                self._refused[call.key] = now, until, call.process
            else:
                self._paused = now, until
        if call.key and reply.status < 500:
            well = 200 <= reply.status < 300
            self._world.ownership.answered(call, well=well)
            if well:
                self._check_pace(call)

    def ended(self, call: Call) -> None:
        if self._in_flight.get(call.key) is call:
            del self._in_flight[call.key]

    def applied(self, key: str) -> None:
        """Look at what is left after Clerk made a change of ours."""
        record = self._world.clerk.record(key)
        assert record is not None
        unmanaged = truth.unmanaged_of(record)
        if unmanaged != self._world.unmanaged[key]:
            self.fail("unmanaged keys stay as they are", f"{key}: {unmanaged}, not {self._world.unmanaged[key]}")

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
        body = json.loads(request.content)
        if body.keys() - {"public_metadata", "private_metadata"} or not key:
            self.fail("only metadata is written", f"{request.method} {request.url.path}: {sorted(body)}")
        public, private = body.get("public_metadata", {}), body.get("private_metadata", {})
        if any(truth.unmanaged_of({"public_metadata": public, "private_metadata": private}).values()):
            self.fail("only managed keys are written", f"{key}: {body}")
        other = self._in_flight.get(key)
        if other is not None and not clock.jumped_since(other.sent, forward=True):
            self.fail("one write of a subject at a time", f"{key}: {call.process.name} while {other.process.name}")
        since, until, refused = self._refused.get(key, (0.0, 0.0, call.process))
        # A process that is killed while it waits takes Clerk's answer with it; the next one is refused once more.
        if now < until - EPSILON and refused.alive and not clock.jumped_since(since):
            self.fail("Retry-After is honoured", f"{key}: {until - now:.2f} s too early")
        claimed, intent = (
            self._claims.get((call.process, key)),
            self._intent(key, settled=clock.jumped_since(now - 60.0)),
        )
        if intent is None:
            self.fail("a write follows a ledger row", key)
        elif claimed is None:
            self.fail("a write follows a claim", key)
        else:
            self.reasons.check(Write(call, claimed, *intent, truth.values_in(public), private))
        self._world.ownership.sent(call, body)

    def _check_pace(self, call: Call) -> None:
        clean = self._clean[call.key]
        clean.append(call.sent)
        while clean[0] <= call.sent - WINDOW:
            clean.popleft()
        if len(clean) > CLEAN_WRITES and not self._world.clock.jumped_since(call.sent - 60.0):
            self.fail("writes of a subject are paced", f"{call.key}: {len(clean)} in {WINDOW:.0f} s")

    def _intent(self, key: str, *, settled: bool) -> tuple[truth.Values, str] | None:
        """Return what the ledger says, and why; by a jump another process may have `settled` what is still repeated."""
        rows = self._world.disk.ask(
            "SELECT after, cause FROM ledger WHERE subject = ? AND (state = 'intended' OR ?) ORDER BY id DESC LIMIT 1",
            (key, settled),
        )
        return (json.loads(rows[0][0]), rows[0][1]) if rows else None

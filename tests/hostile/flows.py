"""What the worker does with answers, from its first question to its last write, where people hold access.

Answers are the services' own, requested once and then repeated from memory, so that a flow can be run some thousand
times in a minute. Everything between the network and the database is what the worker runs.
"""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx

from sync_worker.domain.changeset import LossLimit
from sync_worker.domain.subjects import Subject
from sync_worker.domain.work import NO_CAUSE
from sync_worker.errors import DatasetEmpty
from sync_worker.runtime.wiring import Services, Store, open_services, open_store
from sync_worker.sandbox.server import Sandbox
from sync_worker.storage.installation import InstallationRecord
from sync_worker.sync.address_resolution import resolve_documents
from sync_worker.sync.guard import Guard
from sync_worker.sync.outcome import Due
from sync_worker.sync.reconciler import Reconciler
from sync_worker.transport import ServiceTransport, inner_transport
from sync_worker.triggers.poll import CURSOR, Poll
from sync_worker.worker.empty_dataset import RecordingSource
from sync_worker.worker.fanout import fan_out
from sync_worker.worker.full_reconcile import FullReconcile
from tests.clock import TIMINGS, ImpatientClock
from tests.expected import deleted, updated
from tests.leases import lease_of
from tests.parts import RUNTIME, settings_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from sync_worker.domain.entitlements import Layout
    from sync_worker.domain.revisions import ExpectedRevision
    from sync_worker.storage.work_items import WorkItem


NAMED = {
    "e1": {"clerkUserId": "user_1"},
    "e2": {"userEmail": "ada@example.com"},
    "e3": {"userExternalId": "ext-3"},
    "e4": {"clerkOrganizationId": "org_1"},
    "e5": {"clerkUserId": "user_1", "clerkOrganizationId": "org_1"},
    "e6": {"clerkUserId": "user_new"},
}
HOLDERS = ("user:user_1", "user:user_2", "user:user_3", "org:org_1", "membership:org_1/user_1")
OWNER = dict(zip(NAMED, (*HOLDERS, "user:user_new"), strict=True))
"""Whom each entitlement is for. All but the new one hold their access already."""
GRANTED = {"plan": "team", "courseSlugs": ["algebra"]}
NOW = datetime.now(UTC)
LATER = "2999-01-01T00:00:00Z"


class StandingClock(ImpatientClock):
    """Shows one moment, so that what is written in a run is the same in the next."""

    def __init__(self, at: datetime) -> None:
        self.at = at.timestamp()

    def now(self) -> float:
        return self.at


CLOCK = StandingClock(NOW)


@dataclass(frozen=True)
class Question:
    """One request, as far as its answer depends on it."""

    service: str
    method: str
    url: httpx.URL
    body: bytes
    dataset_empty: bool = False

    @property
    def path(self) -> str:
        return self.url.path

    def __str__(self) -> str:
        return f"{self.service} {self.method} {self.path}"


@dataclass
class Memory(httpx.AsyncBaseTransport):
    """Asks each question once. `tamper` changes what is answered on its way; `requested` are the questions of one run.

    With `dataset_empty`, it answers queries as Sanity does for a token that may see nothing.
    """

    service: str
    inner: httpx.AsyncBaseTransport = field(default_factory=inner_transport)
    known: dict[Question, tuple[int, list[tuple[bytes, bytes]], bytes]] = field(default_factory=dict)
    requested: list[Question] = field(default_factory=list)
    tamper: Callable[[Question, httpx.Response, bytes], httpx.Response | None] = lambda *_: None
    dataset_empty: bool = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        question = Question(self.service, request.method, request.url, await request.aread(), self.dataset_empty)
        self.requested.append(question)
        if question not in self.known:
            response = await self.inner.handle_async_request(request)
            body = await response.aread()
            await response.aclose()
            shown = _blinded(body) if self.dataset_empty and "/data/query/" in question.path else body
            self.known[question] = response.status_code, response.headers.raw, shown
        status, headers, body = self.known[question]
        real = httpx.Response(status, headers=headers, stream=httpx.ByteStream(body))
        return self.tamper(question, real, body) or real

    def answer(self, question: Question) -> Any:
        return json.loads(self.known[question][2])

    async def aclose(self) -> None:
        await self.inner.aclose()


def _blinded(body: bytes) -> bytes:
    """Return the answer to a query as of a dataset that holds nothing."""
    answer = json.loads(body)
    return json.dumps({**answer, "result": {n: type(v)() for n, v in answer["result"].items()}}).encode()


TABLES = ("work", "access", "expected_revision", "ledger", "changeset", "held", "loss", "state")


@dataclass(frozen=True)
class World:
    """The worker's parts, with nothing but memory at the other end."""

    box: Sandbox
    sanity: Memory
    clerk: Memory
    services: Services
    store: Store
    layout: Layout
    held: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def guard(self) -> Guard:
        return Guard(self.store.approvals, self.store.runs, LossLimit("100%"), self.layout.fields, CLOCK)

    @property
    def converge(self) -> Reconciler:
        services, store = self.services, self.store
        source = RecordingSource(services.source, store.queue, TIMINGS)
        installation = InstallationRecord(store.database, {})
        return Reconciler(
            source,
            services.target,
            store.ledger,
            store.queue,
            store.access,
            installation,
            self.guard,
            self.layout,
            CLOCK,
            TIMINGS,
        )

    async def run(self, flow: str) -> list[Question]:
        """Run a flow as if for the first time. Return all requests."""
        await self.store.database.run(lambda tx: [tx.execute(f"DELETE FROM {table}") for table in TABLES])
        for record in self.records():
            record.update(deepcopy(self.held.get(record["id"], {})))
        self.sanity.requested.clear()
        self.clerk.requested.clear()
        await FLOWS[flow](self)
        return [*self.sanity.requested, *self.clerk.requested]

    def records(self) -> Iterable[dict[str, Any]]:
        """Return what Clerk holds of everybody."""
        clerk = self.box.clerk
        return [*clerk.users.values(), *clerk.organizations.values(), *clerk.memberships.values()]

    def begin(self) -> None:
        """Take what is held now for what is held before each run, but for the new one, who holds nothing yet."""
        for record in self.records():
            self.held[record["id"]] = {n: deepcopy(record[n]) for n in ("public_metadata", "private_metadata")}
            assert record["public_metadata"].items() >= GRANTED.items()
        self.held["user_new"] = {"public_metadata": {}, "private_metadata": {}}
        self.sanity.known.clear()
        self.clerk.known.clear()

    def taken(self) -> set[str]:
        """Return from whom the last run took access away, or some of it."""
        return {
            question.path.removeprefix("/v1/").removesuffix("/metadata")
            for question in self.clerk.requested
            if question.method != "GET" and _takes(json.loads(question.body).get("public_metadata", {}))
        }


def _takes(patch: Mapping[str, Any]) -> bool:
    return any(patch.get(name, value) != value for name, value in GRANTED.items())


async def _converge(world: World, batch: Sequence[Due]) -> None:
    async for outcomes in world.converge.run(batch):
        for outcome in outcomes:
            if outcome.error is not None:
                raise outcome.error


def due(entitlement: str, expected: ExpectedRevision) -> Due:
    """Return the owner of an entitlement as due, because an event reported it."""
    owner = OWNER[entitlement]
    return Due(Subject.parse(owner), lease_of(owner), (expected,))


async def a_webhook(world: World) -> None:
    """Events report everybody, and the index shows them already."""
    batch = [
        Due(Subject.parse(who), lease_of(who), (updated(e, "r", "2020-01-01T00:00:00Z"),)) for e, who in OWNER.items()
    ]
    await _converge(world, batch)


async def a_lagging_index(world: World) -> None:
    """Events report a change and a deletion that neither the index nor the document store shows."""
    reported: dict[str, ExpectedRevision] = {"e1": updated("e1", "r", LATER), "e2": deleted("e2", "r", LATER)}
    await _converge(world, [due(e, expected) for e, expected in reported.items()])


async def a_blind_token(world: World) -> None:
    """Events report deletions that did not happen, and queries show nothing, because the token may see nothing."""
    world.sanity.dataset_empty = True
    batch = [Due(Subject.parse(who), lease_of(who), (deleted(e, "r", LATER),)) for e, who in OWNER.items()]
    try:
        await _converge(world, batch)
    except DatasetEmpty:
        return
    finally:
        world.sanity.dataset_empty = False


async def a_reconcile(world: World) -> None:
    """The whole population."""
    run = FullReconcile(world.converge, world.store.queue, world.store.runs, CLOCK, TIMINGS)
    result = await run.apply(await run.find())
    for error in result.failed.values():
        raise error


async def a_fan_out(world: World) -> None:
    """A course was changed, and whom the entitlements are for is looked up."""
    source, find = world.converge.source, world.services.target.find

    async def enqueue(items: Sequence[WorkItem]) -> None:
        await world.store.queue.enqueue(items)

    await fan_out(source, find, "course-1", (), enqueue, clock=CLOCK, timings=TIMINGS, cause=NO_CAUSE)
    await resolve_documents(source, find, dict.fromkeys(NAMED, ()), clock=CLOCK, timings=TIMINGS)
    await world.services.target.instance()


async def a_poll(world: World) -> None:
    """What was published is looked through, in case no webhook reported it. The cursor stays a moment of the past."""
    queue = world.store.queue
    await queue.remember(CURSOR, json.dumps(["2020-01-01T00:00:00Z", ""]))
    try:
        clock = StandingClock(NOW + timedelta(hours=1))
        fields = world.layout.fields
        await Poll(world.services.source, queue, world.store.access, fields, clock, TIMINGS, 3600.0).run()
    finally:
        cursor = await queue.recall(CURSOR)
        assert cursor is not None
        assert datetime.fromisoformat(json.loads(cursor[0])[0]) < NOW + timedelta(hours=1)


FLOWS: Mapping[str, Callable[[World], Awaitable[None]]] = {
    "webhook": a_webhook,
    "lagging index": a_lagging_index,
    "blind token": a_blind_token,
    "reconcile": a_reconcile,
    "fan-out": a_fan_out,
    "poll": a_poll,
}


@asynccontextmanager
async def inhabited(folder: Path) -> AsyncIterator[World]:
    """Two services with people who hold access, and one who is to get it."""
    async with Sandbox() as box:
        settings = settings_of(box, f"sqlite:///{folder / 'work.db'}")
        async with open_store(settings, RUNTIME) as store, open_services(settings, store) as services:
            await _populate(box)
            sanity, clerk = (
                _remembering(name, client)
                for name, client in (("Sanity", services.source._client), ("Clerk", services.target._client))
            )
            world = World(box, sanity, clerk, services, store, settings.layout)
            await world.run("reconcile")
            world.begin()
            yield world


def _remembering(service: str, client: httpx.AsyncClient) -> Memory:
    transport = client._transport
    assert isinstance(transport, ServiceTransport)
    transport.clock, transport.budget = CLOCK, None
    memory = Memory(service, transport.inner)
    transport.inner = memory
    return memory


async def _populate(box: Sandbox) -> None:
    box.clerk.add_user("user_1", public_metadata={"theme": "dark"})
    box.clerk.add_user("user_2", email="ada@example.com")
    box.clerk.add_user("user_3", email="bob@example.com", external_id="ext-3")
    box.clerk.add_user("user_new")
    box.clerk.add_organization("org_1")
    box.clerk.add_membership("org_1", "user_1")
    plan = {"_type": "reference", "_ref": "plan-1"}
    courses = [{"_type": "reference", "_ref": "course-1", "_key": "k"}]
    await box.lake.mutate(
        [
            {"create": {"_id": "course-1", "_type": "course", "slug": {"current": "algebra"}}},
            {"create": {"_id": "plan-1", "_type": "plan", "slug": {"current": "team"}, "courses": courses}},
            *({"create": {"_id": e, "_type": "entitlement", "plan": plan, **named}} for e, named in NAMED.items()),
        ]
    )

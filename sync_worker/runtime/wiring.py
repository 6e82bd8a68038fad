"""Builds the parts of a process from the settings: the store, both services, the reconciler and the explainer."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import httpx

from sync_worker import __version__
from sync_worker.clerk import client as clerk
from sync_worker.clerk.billing import Billing
from sync_worker.clerk.directory import Directory
from sync_worker.clerk.names import Names
from sync_worker.clerk.tokens import Tokens
from sync_worker.diagnostics.explainer import Explainer
from sync_worker.domain.changeset import LossLimit
from sync_worker.domain.ownership import NO_ADOPTION
from sync_worker.domain.timings import Timings
from sync_worker.errors import ConfigurationError
from sync_worker.runtime.system_clock import ClockAt, SystemClock
from sync_worker.sanity import client as sanity
from sync_worker.sanity.editors import Editors
from sync_worker.sanity.groq_files import types_in
from sync_worker.sanity.listen import Listen
from sync_worker.sanity.preview import preview
from sync_worker.storage.access_index import AccessIndex
from sync_worker.storage.approvals import Approvals
from sync_worker.storage.counters import Counters
from sync_worker.storage.installation import InstallationRecord
from sync_worker.storage.ledger import Ledger
from sync_worker.storage.queue import WorkQueue
from sync_worker.storage.rate_limit import Budget
from sync_worker.storage.reconcile_runs import ReconcileRuns
from sync_worker.storage.sqlite import SqliteDatabase, file_of
from sync_worker.sync.guard import Guard
from sync_worker.sync.reconciler import Reconciler
from sync_worker.transport import Call, ServiceTransport, inner_transport
from sync_worker.worker.empty_dataset import RecordingSource
from sync_worker.worker.full_reconcile import FullReconcile

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import AsyncIterator, Callable

    from sync_worker.domain.clock import Clock
    from sync_worker.domain.ownership import Adoption
    from sync_worker.settings import Settings
    from sync_worker.storage.database import Database
    from sync_worker.sync.outcome import Outcome


@dataclass(frozen=True, slots=True)
class Runtime:
    """The clock and the timings of a process."""

    clock: Clock
    timings: Timings

    @classmethod
    def system(cls) -> Runtime:
        """Return the clock of the machine, and the timings of production."""
        return cls(SystemClock(), Timings())


@dataclass(frozen=True, slots=True)
class Store:
    """The database and everything stored in it, with the runtime it was opened with."""

    runtime: Runtime
    database: Database
    queue: WorkQueue
    ledger: Ledger
    runs: ReconcileRuns
    approvals: Approvals
    access: AccessIndex
    counters: Counters

    def count_change(self, outcome: Outcome) -> None:
        """Count a change that Clerk has accepted."""
        if outcome.change is not None:
            self.counters.change(outcome.change.kind, outcome.publish_latency_seconds)


@dataclass(frozen=True, slots=True)
class Services:
    """The clients of both services, and the call budget. All else uses the clients of `source` and `target`."""

    source: sanity.Sanity
    target: clerk.Clerk
    tokens: Tokens
    directory: Directory
    names: Names
    editors: Editors
    billing: Billing
    budget: Budget


def open_database(
    url: str,
    clock: Clock,
    timings: Timings,
    *,
    server_clock: Clock | None = None,
    watch: bool = False,
    connections: int = 4,
) -> Database:
    """Return the database at `url`, not started yet.

    URLs are `sqlite:///relative.db`, `sqlite:////absolute.db`, `postgres://…` and `postgresql://…`, which may have
    query parameters. SQLite uses `clock`; a PostgreSQL server uses its own clock unless `server_clock` is given. With
    `watch`, commits of other processes end `changed` too: within 100 ms on SQLite, at once on PostgreSQL, which takes
    one more connection. `connections` is the number of PostgreSQL connections for transactions.
    Raises ConfigurationError, which never contains the password.
    """
    scheme, found, rest = url.strip().partition("://")
    if found and scheme == "sqlite":
        return SqliteDatabase(file_of(rest), clock, timings, watch=watch)
    if found and scheme in {"postgres", "postgresql"}:
        try:
            from sync_worker.storage.postgres import PostgresDatabase  # noqa: PLC0415 - psycopg is an optional extra
        except ImportError as error:
            raise ConfigurationError(
                "DATABASE_URL names a PostgreSQL server, which needs: pip install 'sanity-clerk-sync[postgres]'"
            ) from error
        return PostgresDatabase(url.strip(), server_clock, timings, watch=watch, connections=connections)
    raise ConfigurationError("DATABASE_URL must start with sqlite:///, postgres:// or postgresql://.")


@asynccontextmanager
async def open_store(settings: Settings, runtime: Runtime, *, watch: bool = False) -> AsyncIterator[Store]:
    """Open and migrate the database. With `watch`, commits of other processes wake this one."""
    clock, timings = runtime.clock, runtime.timings
    database = open_database(settings.database_url, clock, timings, watch=watch)
    await database.start()
    try:
        queue = WorkQueue(database, timings)
        if await queue.recall("installed") is None:
            await queue.remember("installed", __version__)
        counters = Counters(queue, timings)
        async with counters.kept():
            yield Store(
                runtime,
                database,
                queue,
                Ledger(database),
                ReconcileRuns(database, timings),
                Approvals(database, timings),
                AccessIndex(database),
                counters,
            )
    finally:
        await database.close()


def clerk_budget(settings: Settings, store: Store) -> Budget:
    """Return the call budget that all processes share."""
    return Budget(store.database, "clerk", settings.budget, store.runtime.clock, store.runtime.timings)


@asynccontextmanager
async def open_services(
    settings: Settings, store: Store, *, dry_run: bool = False, on_call: Callable[[Call], None] = lambda _: None
) -> AsyncIterator[Services]:
    """Open the clients of both services. `on_call` is called with every request, after the counters."""

    def observe(call: Call) -> None:
        store.counters.call(call)
        on_call(call)

    clock, timings = store.runtime.clock, store.runtime.timings
    budget = clerk_budget(settings, store)
    source, sanity_client = _sanity_of(settings, store.runtime, dry_run=dry_run, observe=observe)
    target, clerk_client = clerk.open_clerk(
        ServiceTransport(
            "Clerk",
            inner_transport(),
            {
                "Authorization": f"Bearer {settings.clerk_secret_key.get_secret_value()}",
                "Clerk-API-Version": clerk.API_VERSION,
            },
            clerk.error_from_response,
            clock,
            timings,
            budget=budget,
            dry_run=dry_run,
            observe=observe,
        ),
        url=settings.clerk_api_url,
    )
    async with sanity_client, clerk_client:
        base = f"{settings.clerk_api_url}/v1"
        tokens = Tokens(target, clerk_client, base)
        directory, billing = Directory(clerk_client, base), Billing(clerk_client, base)
        editors = Editors(sanity_client, f"{settings.sanity_url}/v{settings.sanity_api_version}", timings)
        names = Names(directory, clock, timings)
        yield Services(source, target, tokens, directory, names, editors, billing, budget)


@asynccontextmanager
async def open_listen(settings: Settings, store: Store) -> AsyncIterator[Listen]:
    """Open what listens to Sanity. A connection that is silent for too long is given up."""
    timings = store.runtime.timings
    patience = httpx.Timeout(
        timings.sanity_timeout, connect=timings.sanity_connect_timeout, read=timings.listen_silence
    )
    key = {"Authorization": f"Bearer {settings.sanity_read_token.get_secret_value()}"}
    async with httpx.AsyncClient(transport=inner_transport(), headers=key, timeout=patience) as client:
        types = tuple(types_in(sanity.Queries.load(settings.groq_folder).webhook_filter))
        base = f"{settings.sanity_url}/v{settings.sanity_api_version}"
        yield Listen(client, base, settings.sanity_dataset, types)


@asynccontextmanager
async def open_source(settings: Settings, runtime: Runtime) -> AsyncIterator[sanity.Sanity]:
    """Open the client of Sanity alone, for a command that needs no database. It cannot write."""
    source, client = _sanity_of(settings, runtime, dry_run=True)
    async with client:
        yield source


def _sanity_of(
    settings: Settings, runtime: Runtime, *, dry_run: bool, observe: Callable[[Call], None] = lambda _: None
) -> tuple[sanity.Sanity, httpx.AsyncClient]:
    return sanity.open_sanity(
        ServiceTransport(
            "Sanity",
            inner_transport(),
            {"Authorization": f"Bearer {settings.sanity_read_token.get_secret_value()}"},
            sanity.error_from_response,
            runtime.clock,
            runtime.timings,
            is_read=sanity.reads_only,
            dry_run=dry_run,
            observe=observe,
        ),
        sanity.Queries.load(settings.groq_folder),
        url=settings.sanity_url,
        version=settings.sanity_api_version,
        dataset=settings.sanity_dataset,
    )


def reconciler_of(settings: Settings, store: Store, services: Services) -> Reconciler:
    """Return the reconciler, with the runtime of the store."""
    return Reconciler(
        RecordingSource(services.source, store.queue, store.runtime.timings),
        services.target,
        store.ledger,
        store.queue,
        store.access,
        installation_of(settings, store),
        guard_of(settings, store),
        settings.layout,
        store.runtime.clock,
        store.runtime.timings,
        store.count_change,
    )


def installation_of(settings: Settings, store: Store) -> InstallationRecord:
    """Return what the database remembers of its installation, beside these settings."""
    return InstallationRecord(store.database, settings.installation)


def guard_of(settings: Settings, store: Store) -> Guard:
    """Return the guard, with the limit from the settings."""
    limit = LossLimit(settings.max_revocations)
    return Guard(store.approvals, store.runs, limit, settings.layout.fields, store.runtime.clock)


@asynccontextmanager
async def open_reconcile(
    settings: Settings,
    store: Store,
    calls: Counter[str],
    *,
    dry_run: bool = False,
    adoption: Adoption = NO_ADOPTION,
    accept_fewer: bool = False,
    approved: str = "",
) -> AsyncIterator[FullReconcile]:
    """Open a full reconcile. `calls` counts its calls by service, and its writes; `approved` is the id of a list."""
    async with open_services(settings, store, dry_run=dry_run, on_call=_counting(calls)) as services:
        yield FullReconcile(
            reconciler_of(settings, store, services),
            store.queue,
            store.runs,
            store.runtime.clock,
            store.runtime.timings,
            adoption=adoption,
            accept_fewer=accept_fewer,
            approved=approved,
        )


@asynccontextmanager
async def open_preview(
    settings: Settings,
    store: Store,
    calls: Counter[str],
    *,
    perspective: str = "",
    moment: float | None = None,
    adoption: Adoption = NO_ADOPTION,
    accept_fewer: bool = False,
) -> AsyncIterator[FullReconcile]:
    """Open a reconcile that can only `find`: as if drafts or releases were published, or at another moment, or both.

    Without a moment, windows are judged when the releases are to be published, or else now. It records nothing. Raises
    ConfigurationError for a perspective that there is not.
    """
    async with open_services(settings, store, dry_run=True, on_call=_counting(calls)) as services:
        source, publishes_at = await preview(services.source, perspective) if perspective else (services.source, None)
        if moment is None and publishes_at is not None:
            moment = max(publishes_at.timestamp(), store.runtime.clock.now())
        clock = store.runtime.clock if moment is None else ClockAt(moment)
        reads = replace(reconciler_of(settings, store, services), source=source, clock=clock)
        yield FullReconcile(
            reads,
            store.queue,
            store.runs,
            clock,
            store.runtime.timings,
            adoption=adoption,
            accept_fewer=accept_fewer,
        )


def _counting(calls: Counter[str]) -> Callable[[Call], None]:
    def on_call(call: Call) -> None:
        calls[call.service] += 1
        calls["writes"] += call.method == "PATCH" and call.outcome.startswith("2")

    return on_call


@asynccontextmanager
async def open_explainer(settings: Settings, store: Store, patience: float) -> AsyncIterator[Explainer]:
    """Open an explainer, whose transport cannot write. `patience` is in seconds."""
    async with open_services(settings, store, dry_run=True) as services:
        yield explainer_of(settings, store, services, patience)


def explainer_of(settings: Settings, store: Store, services: Services, patience: float) -> Explainer:
    """Return an explainer on `services`, which must be a dry run's. `patience` is in seconds."""
    # An explanation must not record anything.
    reads = replace(reconciler_of(settings, store, services), source=services.source)
    stored = (store.queue, store.ledger, store.approvals)
    return Explainer(reads, services.billing, *stored, store.runtime.timings, patience)

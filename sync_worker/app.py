"""Puts the parts together from Settings: the web application, the worker, and what the command line needs.

Why it exists: it is the one room that knows every other, so that no other has to. It decides nothing.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import socket
import time
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sync_worker import __version__, clerk, pages, sanity
from sync_worker.admission import Admission
from sync_worker.attempt import Attempts, moved
from sync_worker.brake import FanOutBrake
from sync_worker.budget import Budget
from sync_worker.catchup import catch_up
from sync_worker.changeset import Brake
from sync_worker.clerk_events import INSTANCE
from sync_worker.converge import Converge
from sync_worker.database import Database, open_database
from sync_worker.errors import DatabaseUnavailable
from sync_worker.heard import Heard
from sync_worker.http import Call, ServiceTransport, inner_transport
from sync_worker.inquiry import Inquiry
from sync_worker.ledger import Ledger
from sync_worker.logs import configure_logs
from sync_worker.metrics import Metrics
from sync_worker.projection import refuse_wrong_shape
from sync_worker.receiver import RETRY_AFTER, Receiver
from sync_worker.reconcile import Reconcile, report
from sync_worker.runs import GOOD, Runs, alone, judged
from sync_worker.settings import Settings, load_settings
from sync_worker.status import Glance
from sync_worker.timers import daily, every
from sync_worker.totals import Totals
from sync_worker.worker import HEARTBEAT, Worker
from sync_worker.workset import WorkSet

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from starlette.requests import Request

    from sync_worker.outcome import Outcome

BUDGET_WINDOW = 10.0
"""Seconds that Clerk counts calls over."""
LOOK_SECONDS = 3.0
"""How long Sanity and Clerk may keep somebody waiting who looks at a page; the Studio kit waits for five."""
HEARTBEAT_STALE = 3 * HEARTBEAT
RECONCILE_STALE = 26 * 3600.0
"""Seconds since the last good reconcile; a fresh installation has as long for its first."""
PURGE_EVERY = 3600
ASK_INSTANCE_EVERY = 3600
KEEP_ROWS, KEEP_LEDGER = 7 * 24 * 3600.0, 400 * 24 * 3600.0
"""Seconds that idle rows and ledger entries stay: a week, and somewhat more than a year."""

log = structlog.get_logger("app")


@dataclass(frozen=True, slots=True)
class Store:
    """The durable half: what web processes need."""

    database: Database
    workset: WorkSet
    ledger: Ledger
    runs: Runs
    totals: Totals


@dataclass(frozen=True, slots=True)
class Services:
    """The other half: both services behind their ports, and the budget they share."""

    source: sanity.Sanity
    target: clerk.Clerk
    budget: Budget


@asynccontextmanager
async def open_store(settings: Settings, *, watch: bool = False) -> AsyncIterator[Store]:
    """Open the database and bring its tables up to date. With `watch`, marks of other processes wake us at once."""
    database = open_database(settings.database_url, watch=watch)
    await database.start()
    try:
        workset = WorkSet(database)
        if await workset.recall("installed") is None:
            await workset.remember("installed", __version__)
        totals = Totals(workset)
        async with totals.kept():
            yield Store(database, workset, Ledger(database), Runs(database), totals)
    finally:
        await database.close()


def clerk_budget(settings: Settings, store: Store) -> Budget:
    """Return the call budget that all processes share."""
    return Budget(store.database, "clerk", settings.budget, BUDGET_WINDOW)


@asynccontextmanager
async def open_services(
    settings: Settings, store: Store, *, dry_run: bool = False, told: Callable[[Call], None] = lambda _: None
) -> AsyncIterator[Services]:
    """Open both services on our transport. `told` hears of every call, as the totals do."""

    def observe(call: Call) -> None:
        store.totals.call(call)
        told(call)

    budget = clerk_budget(settings, store)
    queries = sanity.Queries.load(settings.groq_folder)
    source, sanity_client = sanity.open_sanity(
        ServiceTransport(
            "Sanity",
            inner_transport(),
            {"Authorization": f"Bearer {settings.sanity_read_token.get_secret_value()}"},
            sanity.explain,
            is_read=sanity.reads_only,
            dry_run=dry_run,
            observe=observe,
        ),
        queries,
        url=settings.sanity_url,
        version=settings.sanity_api_version,
        dataset=settings.sanity_dataset,
    )
    target, clerk_client = clerk.open_clerk(
        ServiceTransport(
            "Clerk",
            inner_transport(),
            {
                "Authorization": f"Bearer {settings.clerk_secret_key.get_secret_value()}",
                "Clerk-API-Version": clerk.API_VERSION,
            },
            clerk.explain,
            budget=budget,
            dry_run=dry_run,
            observe=observe,
        ),
        url=settings.clerk_api_url,
    )
    async with sanity_client, clerk_client:
        yield Services(source, target, budget)


@asynccontextmanager
async def open_reconcile(
    settings: Settings,
    store: Store,
    calls: Counter[str],
    *,
    dry_run: bool = False,
    adopt: bool = False,
    accept_fewer: bool = False,
) -> AsyncIterator[Reconcile]:
    """Put a reconcile together. `calls` counts its calls by service, and its writes."""

    def told(call: Call) -> None:
        calls[call.service] += 1
        calls["writes"] += call.method == "PATCH" and call.outcome.startswith("2")

    async with open_services(settings, store, dry_run=dry_run, told=told) as services:
        if not dry_run:
            await services.target.warm_up()
        yield Reconcile(
            Converge(services.source, services.target, store.ledger, settings.layout, told=store.totals.change),
            store.workset,
            store.runs,
            Brake(settings.max_revocations),
            adopt=adopt,
            accept_fewer=accept_fewer,
        )


@asynccontextmanager
async def open_inquiry(settings: Settings, store: Store, patience: float = 20.0) -> AsyncIterator[Inquiry]:
    """Put together what reads for explanations; its transport cannot write. `patience` is in seconds."""
    async with open_services(settings, store, dry_run=True) as services:
        converge = Converge(services.source, services.target, store.ledger, settings.layout)
        yield Inquiry(converge, store.workset, store.ledger, store.runs, patience)


@asynccontextmanager
async def running_worker(
    settings: Settings, store: Store, broken: Callable[[], None] = lambda: None
) -> AsyncIterator[Worker]:
    """Run the worker, and what it does by the clock, until the block ends; then let it drain.

    `broken` is called when the worker ended by itself, which only a bug can make it do.
    """
    brake = FanOutBrake(store.runs, Brake(settings.max_revocations))

    async def screen(outcomes: list[Outcome]) -> list[Outcome]:
        screened = await brake.screen(outcomes)
        await store.workset.mark(moved(screened))
        return screened

    async with open_services(settings, store) as services:
        totals = store.totals
        converge = Converge(services.source, services.target, store.ledger, settings.layout, screen, totals.change)
        name = f"{socket.gethostname()}:{os.getpid()}"
        worker = Worker(
            store.database,
            store.workset,
            Attempts(store.workset, converge),
            services.budget,
            lambda: check_projection(services, settings),
            name=name,
        )
        await services.target.warm_up()
        log.info("worker_started", worker=name)
        task = asyncio.create_task(worker.run())
        task.add_done_callback(lambda ended: _leave_if_broken(ended, broken))
        ask_instance_every = ASK_INSTANCE_EVERY if settings.clerk_webhook_secret else 0
        timers = [
            asyncio.create_task(every(settings.poll_seconds, "poll", lambda: _poll(services, store))),
            asyncio.create_task(daily(settings.reconcile_at, "reconcile", lambda: _nightly(settings, store))),
            asyncio.create_task(every(PURGE_EVERY, "purge", lambda: _purge(store))),
            asyncio.create_task(every(ask_instance_every, "instance", lambda: _ask_instance(services, store))),
        ]
        try:
            yield worker
        finally:
            for timer in timers:
                timer.cancel()
            worker.stop()
            await task
            log.info("worker_stopped", worker=name)


async def _poll(services: Services, store: Store) -> None:
    marked = await catch_up(services.source, store.workset, datetime.now(UTC))
    log.info("polled", documents=marked)


async def check_projection(services: Services, settings: Settings) -> None:
    """Read a page of entitlements and judge its shape. Raises ConfigurationError, and what the read raises."""
    page = await services.source.everything("")
    refuse_wrong_shape(page.rows, settings.layout.fields)


async def _ask_instance(services: Services, store: Store) -> None:
    """Remember which instance our key belongs to, so that events of another one are told apart."""
    await store.workset.remember(INSTANCE, await services.target.instance())


async def _purge(store: Store) -> None:
    rows, entries = await store.workset.purge(KEEP_ROWS), await store.ledger.purge(KEEP_LEDGER)
    log.info("purged", rows=rows, entries=entries)


async def _nightly(settings: Settings, store: Store) -> None:
    calls: Counter[str] = Counter()
    started = time.monotonic()
    async with alone(store.runs), judged(store.runs), open_reconcile(settings, store, calls) as run:
        findings = await run.find()
        result = await run.apply(findings)
    told = report(findings, result, calls, time.monotonic() - started)
    (log.error if result.failed else log.info)("reconciled", failed=len(result.failed), changeset=result.held, **told)


def _leave_if_broken(task: asyncio.Task[None], broken: Callable[[], None]) -> None:
    """End the process when the worker broke: a receiver that nobody works for would only look alive."""
    if not task.cancelled() and task.exception() is not None:
        log.critical("worker_broken", exc_info=task.exception())
        broken()
        os.kill(os.getpid(), signal.SIGTERM)


def _from_environment() -> Settings:
    """Do what the command line does first, for a server of somebody else's."""
    settings = load_settings()
    configure_logs(settings.log_format, settings.secrets)
    return settings


def create_app(settings: Settings | None = None, *, with_worker: bool = False) -> Starlette:
    """Return the web application; `uvicorn --factory sync_worker.app:create_app` reads the environment."""
    chosen = settings or _from_environment()

    def broken() -> None:
        app.state.broken = True

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            store = await stack.enter_async_context(open_store(chosen, watch=with_worker))
            app.state.store = store
            app.state.metrics = Metrics(store.workset, store.runs, store.totals, clerk_budget(chosen, store))
            if chosen.clerk_webhook_secret:
                await asyncio.to_thread(importlib.import_module, "svix.webhooks")
            app.state.receiver = Receiver(
                store.workset,
                chosen.layout,
                chosen.sanity_project_id,
                chosen.sanity_dataset,
                Heard(store.workset),
                [secret.get_secret_value() for secret in chosen.sanity_webhook_secret],
                [secret.get_secret_value() for secret in chosen.clerk_webhook_secret],
                store.totals.webhook,
            )
            if chosen.admin_token:
                inquiry = await stack.enter_async_context(open_inquiry(chosen, store, LOOK_SECONDS))
                app.state.pages = pages.Pages(
                    Admission(chosen.admin_token.get_secret_value().encode()),
                    Glance(store.workset, store.ledger, store.runs),
                    inquiry,
                    store.runs,
                )
            if with_worker:
                worker = await stack.enter_async_context(running_worker(chosen, store, broken))
                app.state.stop = worker.stop
            app.state.entered = True
            log.info("started", worker=with_worker, project=chosen.sanity_project_id, dataset=chosen.sanity_dataset)
            yield
        log.info("stopped")

    app = Starlette(
        routes=[
            Route("/webhooks/sanity", _sanity, methods=["POST"]),
            Route("/webhooks/clerk", _clerk, methods=["POST"]),
            Route("/healthz", _healthz),
            Route("/readyz", _readyz),
            Route("/metrics", _metrics),
            *(pages.routes() if chosen.admin_token else ()),
        ],
        lifespan=lifespan,
        exception_handlers={404: _named("not_found"), 405: _named("method_not_allowed"), 500: _named("internal")},
    )
    app.router.redirect_slashes = False  # a redirect would repeat what was asked for, and breaks on some of it
    app.state.entered = app.state.broken = False
    app.state.stop = lambda: None
    return app


def _named(code: str) -> Callable[[Request, Exception], JSONResponse]:
    """Return the handler of an error that is answered by its name alone."""

    def answer(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"error": code}, getattr(error, "status_code", 500), getattr(error, "headers", None))

    return answer


async def _sanity(request: Request) -> JSONResponse:
    receiver: Receiver = request.app.state.receiver
    return await receiver.sanity(request)


async def _clerk(request: Request) -> JSONResponse:
    receiver: Receiver = request.app.state.receiver
    return await receiver.clerk(request)


async def _healthz(_: Request) -> JSONResponse:
    return JSONResponse({"ok": True})


async def _readyz(request: Request) -> JSONResponse:
    """Answer 200 when work that comes in will be done, else 503; either way with each check."""
    checks = await readiness(request.app.state.store)
    ready = all(check["ok"] for check in checks.values())
    return JSONResponse({"ok": ready, "checks": checks}, 200 if ready else 503)


async def _metrics(request: Request) -> Response:
    metrics: Metrics = request.app.state.metrics
    try:
        text = await metrics.exposition()
    except DatabaseUnavailable:
        return JSONResponse({"error": "unavailable"}, 503, headers={"Retry-After": RETRY_AFTER})
    return Response(text, media_type=CONTENT_TYPE_LATEST)


async def readiness(store: Store) -> dict[str, dict[str, object]]:
    """Return each check of /readyz: whether it is good, and the age in seconds of what it looked at."""
    try:
        await store.workset.remember("readyz", "written")
        await store.workset.next_due()  # the table of the work itself may be locked alone
        beat = await store.workset.age("heartbeat")
        reconciled = await store.workset.age(GOOD)
        if reconciled is None:
            reconciled = await store.workset.age("installed")
    except DatabaseUnavailable as error:
        return {"database": {"ok": False, "reason": error.code}}
    return {
        "database": {"ok": True},
        "worker": _within(beat, HEARTBEAT_STALE),
        "reconcile": _within(reconciled, RECONCILE_STALE),
    }


def _within(age: float | None, most: float) -> dict[str, object]:
    return {"ok": age is not None and age < most, "age": None if age is None else round(age, 1)}

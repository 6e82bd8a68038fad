"""Runs the worker with its scheduled tasks: poll, nightly reconcile, clean-up."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import structlog

from sync_worker.diagnostics.situations import SituationReader
from sync_worker.domain.changeset import LossLimit
from sync_worker.runtime.notifier import Notifier, notify, open_notifier
from sync_worker.runtime.periodic import attempt, daily, every
from sync_worker.runtime.wiring import installation_of, open_listen, open_reconcile, open_services, reconciler_of
from sync_worker.sanity.groq_checks import refuse_wrong_queries
from sync_worker.storage.notices import Notices
from sync_worker.storage.reconcile_runs import GOOD, exclusive_run, judged
from sync_worker.triggers.listen import Listener
from sync_worker.triggers.poll import Poll
from sync_worker.webhooks.clerk_events import INSTANCE
from sync_worker.worker.empty_dataset import requeue_after_empty_read
from sync_worker.worker.full_reconcile import report
from sync_worker.worker.jobs import Jobs
from sync_worker.worker.loop import Worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from sync_worker.runtime.wiring import Services, Store
    from sync_worker.settings import Settings

log = structlog.get_logger("app")


@asynccontextmanager
async def running_worker(
    settings: Settings, store: Store, broken: Callable[[], None] = lambda: None, *, nightly: str = ""
) -> AsyncIterator[Worker]:
    """Run the worker and its scheduled tasks until the block ends; then let it drain.

    `broken` is called if the worker ends by itself, which only a bug can cause. It reconciles every day at `nightly`,
    HH:MM in UTC; empty means never.
    """
    clock, timings = store.runtime.clock, store.runtime.timings
    async with open_services(settings, store) as services, AsyncExitStack() as stack:
        reconciler = reconciler_of(settings, store, services)
        name = f"{socket.gethostname()}:{os.getpid()}"
        worker = Worker(
            store.database,
            store.queue,
            Jobs(store.queue, reconciler, clock, timings),
            services.budget,
            lambda: check_before_work(services, settings, store),
            clock,
            timings,
            name=name,
        )
        await services.target.warm_up()
        if await store.runs.last_good() is None:
            log.warning("never_reconciled", next_step="run `sync-worker reconcile --dry-run`, then without it")
        log.info("worker_started", worker=name)
        task = asyncio.create_task(worker.run())
        task.add_done_callback(lambda ended: _leave_if_broken(ended, broken))
        notifier = await stack.enter_async_context(open_notifier(settings, clock, timings))
        notify_every = timings.notify_interval if settings.notify_url else 0
        ask_instance_every = timings.instance_interval if settings.clerk_webhook_secret else 0
        timers = [
            every(settings.poll_seconds, "poll", lambda: _poll(services, store, settings), clock),
            every(
                timings.empty_dataset_interval, "emptiness", lambda: _requeue_after_empty_read(services, store), clock
            ),
            daily(nightly, "reconcile", lambda: _nightly(settings, store), clock),
            _missed_night(settings, store, nightly),
            every(timings.reconcile_reminder, "reminder", lambda: _warn_when_overdue(store), clock),
            every(timings.purge_interval, "purge", lambda: _purge(store), clock),
            every(ask_instance_every, "instance", lambda: _ask_instance(services, store), clock),
            every(notify_every, "notices", lambda: _notify(settings, store, notifier), clock),
        ]
        running = [asyncio.create_task(timer) for timer in timers]
        if settings.events != "webhook":
            running.append(asyncio.create_task(_listen(settings, store, services)))
        try:
            yield worker
        finally:
            for timer in running:
                timer.cancel()
            worker.stop()
            await task
            log.info("worker_stopped", worker=name)


def poll_of(services: Services, store: Store, settings: Settings) -> Poll:
    """Return the poll of this installation."""
    clock, timings = store.runtime.clock, store.runtime.timings
    return Poll(
        services.source, store.queue, store.access, settings.layout.fields, clock, timings, settings.full_check_seconds
    )


async def _poll(services: Services, store: Store, settings: Settings) -> None:
    documents, deleted = await poll_of(services, store, settings).run()
    log.info("polled", documents=documents, deleted=deleted)


async def _listen(settings: Settings, store: Store, services: Services) -> None:
    """Listen to Sanity until the process ends."""
    async with open_listen(settings, store) as listen:
        catch_up = poll_of(services, store, settings).catch_up
        clock, timings = store.runtime.clock, store.runtime.timings
        await Listener(listen, store.database, store.queue, catch_up, clock, timings).run()


async def _requeue_after_empty_read(services: Services, store: Store) -> None:
    await requeue_after_empty_read(services.source, store.queue)


async def check_before_work(services: Services, settings: Settings, store: Store) -> None:
    """Check that the database belongs to this installation, and the queries. Raises ConfigurationError."""
    await _ensure_installation(services, settings, store)
    await refuse_wrong_queries(services.source, settings.layout.fields)


async def refuse_other_installation(settings: Settings, store: Store) -> None:
    """Check before a command writes that the database belongs to this installation. Raises ConfigurationError."""
    async with open_services(settings, store, dry_run=True) as services:
        await _ensure_installation(services, settings, store)


async def _ensure_installation(services: Services, settings: Settings, store: Store) -> None:
    await installation_of(settings, store).ensure(CLERK_SECRET_KEY=await services.target.instance())


async def _ask_instance(services: Services, store: Store) -> None:
    """Record which Clerk instance our key belongs to, so that events from another one are ignored."""
    await store.queue.remember(INSTANCE, await services.target.instance())


async def _notify(settings: Settings, store: Store, notifier: Notifier) -> None:
    """Send notices of what the database knows."""
    timings = store.runtime.timings
    reader = SituationReader(store.queue, store.approvals, timings, settings.layout.source)
    await notify(reader, Notices(store.database, timings), notifier)


async def _purge(store: Store) -> None:
    timings = store.runtime.timings
    rows = await store.queue.purge(timings.row_retention)
    entries = await store.ledger.purge(timings.ledger_retention)
    log.info("purged", rows=rows, entries=entries)


async def _missed_night(settings: Settings, store: Store, nightly: str) -> None:
    """Reconcile at the start if the last night was missed."""
    age = await store.queue.age(GOOD)
    if nightly and age is not None and age > store.runtime.timings.reconcile_stale_after:
        await attempt("reconcile", lambda: _nightly(settings, store))


async def _warn_when_overdue(store: Store) -> None:
    """Warn every day while nothing reconciles."""
    age = await store.queue.age(GOOD)
    installed = await store.queue.age("installed") or 0.0
    if (installed if age is None else age) > store.runtime.timings.reconcile_stale_after:
        step = "run `sync-worker reconcile`, and schedule it every night or set RECONCILE_AT"
        log.warning("reconcile_overdue", hours=None if age is None else round(age / 3600), next_step=step)


async def _nightly(settings: Settings, store: Store) -> None:
    calls: Counter[str] = Counter()
    clock = store.runtime.clock
    started = clock.monotonic()
    async with (
        exclusive_run(store.runs, clock, store.runtime.timings),
        judged(store.runs),
        open_reconcile(settings, store, calls) as run,
    ):
        await refuse_wrong_queries(run.reconciler.source, settings.layout.fields)
        findings = await run.find()
        result = await run.apply(findings)
    facts = report(findings, result, calls, clock.monotonic() - started, LossLimit(settings.max_revocations))
    (log.error if result.failed else log.info)("reconciled", failed=len(result.failed), changeset=result.held, **facts)


def _leave_if_broken(task: asyncio.Task[None], broken: Callable[[], None]) -> None:
    """Stop the process if the worker crashed: without a worker it would accept work and never do it."""
    if not task.cancelled() and task.exception() is not None:
        log.critical("worker_broken", exc_info=task.exception())
        broken()
        os.kill(os.getpid(), signal.SIGTERM)

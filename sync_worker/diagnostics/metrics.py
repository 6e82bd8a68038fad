"""The Prometheus metrics; METRICS lists all of them.

Everything is read from the database at each scrape, so that every web process exports the same values for all
processes. Queries take the maximum over instances, never the sum.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from sync_worker.diagnostics.issues import IssueKind, kind_of
from sync_worker.domain.entitlements import ChangeKind
from sync_worker.storage import counters
from sync_worker.storage.counters import MISSED_WEBHOOKS
from sync_worker.storage.reconcile_runs import GOOD

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping

    from prometheus_client.core import Metric as Family

    from sync_worker.storage.approvals import Approvals
    from sync_worker.storage.counters import Counters, Key
    from sync_worker.storage.queue import WorkQueue
    from sync_worker.storage.queue_admin import LaneDepth
    from sync_worker.storage.reconcile_runs import ReconcileRuns


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: its name, labels and help text."""

    name: str
    labels: tuple[str, ...]
    help: str


WEBHOOKS = Metric("sync_worker_webhooks_total", ("source", "answer"), "Webhook deliveries, by response.")
CALLS = Metric(
    "sync_worker_calls_total",
    ("service", "outcome"),
    "Requests to Sanity and Clerk, including retries, by status or kind of failure.",
)
CHANGES = Metric("sync_worker_changes_total", ("kind",), "Changes that Clerk accepted: grant, update or revoke.")
LATENCY = Metric(
    "sync_worker_publish_to_clerk_seconds",
    (),
    "Time from a publish (_updatedAt) to Clerk's response to the write. A write that serves several publishes counts "
    "from the oldest, a delete from its receipt. _updatedAt may be in whole seconds, which adds up to a second.",
)
DUE = Metric("sync_worker_due", ("lane",), "Subjects and documents that wait for a worker.")
RUNNING = Metric("sync_worker_running", ("lane",), "Subjects and documents that a worker is processing.")
OLDEST = Metric("sync_worker_oldest_due_seconds", (), "How long the oldest waiting subject or document has waited.")
BUDGET = Metric("sync_worker_budget_left", (), "Clerk calls that may be sent now; 0 while a 429 blocks all calls.")
FAILED = Metric("sync_worker_failed", (), "Subjects and documents that failed and are not retried.")
REFUSED_ROWS = Metric("sync_worker_refused", (), "Subjects and documents with refused entitlements.")
PENDING_ROWS = Metric("sync_worker_pending", (), "Entitlements that wait for a sign-up.")
HELD = Metric("sync_worker_held", (), "Lists of losses that are held for approval.")
MISSED = Metric(
    "sync_worker_missed_webhooks", (), "Changes that the poll found without a webhook, since the installation."
)
AGE = Metric(
    "sync_worker_reconcile_age_seconds", (), "Time since the last successful reconcile; absent before the first."
)
OK = Metric("sync_worker_reconcile_ok", (), "1 if the last reconcile succeeded, else 0.")

METRICS = (
    *(WEBHOOKS, CALLS, CHANGES, LATENCY, DUE, RUNNING, OLDEST, BUDGET, FAILED, REFUSED_ROWS, PENDING_ROWS),
    *(HELD, MISSED, AGE, OK),
)
NAMES = frozenset(metric.name for metric in METRICS if metric is not LATENCY) | {
    f"{LATENCY.name}_{part}" for part in ("bucket", "sum", "count")
}
"""The series names for use in alert rules and dashboards."""


class Budget(Protocol):
    """The part of the call budget that is exported."""

    async def left(self) -> int:
        """Return the calls that may be sent now."""


@dataclass(frozen=True, slots=True)
class Metrics:
    """Reads all metrics from the database."""

    queue: WorkQueue
    runs: ReconcileRuns
    approvals: Approvals
    counters: Counters
    budget: Budget

    async def exposition(self) -> bytes:
        """Return all metrics as Prometheus text. Raises DatabaseUnavailable."""
        await self.counters.flush()  # the next scrape may reach another process, and counters must not go back
        counted = await self.counters.recall()
        families = [
            _counter(WEBHOOKS, counters.WEBHOOKS, counted),
            _counter(CALLS, counters.CALLS, counted),
            _counter(CHANGES, counters.CHANGES, _INITIAL_CHANGES | dict(counted)),
            _latency(counted),
            *[family async for family in self._state()],
        ]
        return generate_latest(_Registry(families))

    async def _state(self) -> AsyncIterator[Family]:
        depth = await self.queue.depth()
        yield _by_lane(DUE, depth.lanes, lambda lane: lane.due)
        yield _by_lane(RUNNING, depth.lanes, lambda lane: lane.running)
        yield _gauge(OLDEST, depth.oldest)
        yield _gauge(BUDGET, await self.budget.left())
        yield _gauge(FAILED, depth.failed)
        noted: Counter[IssueKind] = Counter()
        for (code, retrying), number in (await self.queue.noted_by_code()).items():
            noted[kind_of(code, retrying=retrying)] += number
        yield _gauge(REFUSED_ROWS, noted[IssueKind.REFUSED])
        yield _gauge(PENDING_ROWS, noted[IssueKind.PENDING])
        yield _gauge(HELD, len(await self.approvals.changesets()))
        missed = await self.queue.recall(MISSED_WEBHOOKS)
        yield _gauge(MISSED, int(missed[0]) if missed else 0)
        good = await self.queue.age(GOOD)
        if good is not None:
            yield _gauge(AGE, good)
        well = await self.runs.ended_well()
        if well is not None:
            yield _gauge(OK, well)


_INITIAL_CHANGES = {(counters.CHANGES, kind.value): 0 for kind in ChangeKind if kind is not ChangeKind.NONE}
"""Exported as 0 from the start, so that the first change is an increase."""


_LIMITS = [str(limit).replace("inf", "+Inf") for limit in counters.BOUNDS]


@dataclass(frozen=True, slots=True)
class _Registry:
    """The registry that `generate_latest` expects."""

    families: Iterable[Family]

    def collect(self) -> Iterable[Family]:
        return self.families


def _counter(metric: Metric, name: str, counted: Mapping[Key, int]) -> Family:
    family = CounterMetricFamily(metric.name, metric.help, labels=metric.labels)
    for key, value in sorted(counted.items()):
        if key[0] == name:
            family.add_metric(key[1:], value)
    return family


def _latency(counted: Mapping[Key, int]) -> Family:
    """Build the histogram. Counts that an older release kept under other bounds go into the next bucket up."""
    found = {float(key[1]): value for key, value in counted.items() if key[0] == counters.LATENCY}
    below = [sum(value for bound, value in found.items() if bound <= limit) for limit in counters.BOUNDS]
    buckets = list(zip(_LIMITS, below, strict=True))
    family = HistogramMetricFamily(LATENCY.name, LATENCY.help)
    family.add_metric((), buckets, counted.get((counters.LATENCY_MS,), 0) / 1000)
    return family


def _gauge(metric: Metric, value: float) -> Family:
    return GaugeMetricFamily(metric.name, metric.help, value=value)


def _by_lane(metric: Metric, lanes: Iterable[LaneDepth], value: Callable[[LaneDepth], int]) -> Family:
    family = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
    for lane in lanes:
        family.add_metric((str(lane.lane),), value(lane))
    return family

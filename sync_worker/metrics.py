"""What Prometheus reads: counters of this process, and the state that all processes share.

Why it exists: "is it working" must be a number that an alert can watch. Web processes answer for the workers too, so
what workers know is read from the database at each scrape.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from sync_worker.runs import GOOD

if TYPE_CHECKING:
    from sync_worker.workset import WorkSet

UNANNOUNCED = "unannounced"


@dataclass(frozen=True, slots=True)
class Metrics:
    """The counters of one process."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    webhooks: Counter = field(init=False)

    def __post_init__(self) -> None:
        counter = Counter(
            "sync_worker_webhooks",
            "Deliveries by who sent them and what they were answered.",
            ["source", "answer"],
            registry=self.registry,
        )
        object.__setattr__(self, "webhooks", counter)

    def webhook(self, source: str, answer: str) -> None:
        """Count one delivery."""
        self.webhooks.labels(source, answer).inc()


async def exposition(metrics: Metrics, workset: WorkSet, now: float) -> bytes:
    """Return everything as Prometheus text. Raises DatabaseUnavailable. `now` is in epoch seconds."""
    shared = CollectorRegistry()
    depth = await workset.depth()
    due = Gauge("sync_worker_due", "Subjects that are due, by lane.", ["lane"], registry=shared)
    running = Gauge("sync_worker_running", "Subjects in flight, by lane.", ["lane"], registry=shared)
    for lane in depth.lanes:
        due.labels(lane.lane).set(lane.due)
        running.labels(lane.lane).set(lane.running)
    Gauge("sync_worker_failed", "Subjects that were given up.", registry=shared).set(depth.failed)
    Gauge("sync_worker_oldest_due_seconds", "How long the oldest due subject waits.", registry=shared).set(depth.oldest)
    unannounced = await workset.recall(UNANNOUNCED)
    Gauge(
        "sync_worker_unannounced_changes", "Changes that the poll found and no webhook told of.", registry=shared
    ).set(int(unannounced[0]) if unannounced else 0)
    good = await workset.recall(GOOD)
    if good is not None:
        Gauge("sync_worker_reconcile_age_seconds", "Seconds since the last good reconcile.", registry=shared).set(
            now - good[1]
        )
    return bytes(generate_latest(metrics.registry) + generate_latest(shared))

"""GET /metrics: its values, and that every process exports the same for all of them."""

from __future__ import annotations

from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from sync_worker.cli.processes import settings_for
from sync_worker.diagnostics.metrics import METRICS, NAMES
from sync_worker.storage.approvals import HeldChange
from sync_worker.storage.reconcile_runs import judged
from sync_worker.storage.work_items import DeadLettered, WorkItem
from sync_worker.sync.address_resolution import AMBIGUOUS_ADDRESS, PENDING, REFUSED
from sync_worker.web.app import create_app
from tests.builders import created
from tests.expected import stored
from tests.nursery import run
from tests.oracle import until, wrong
from tests.parts import opened, settings_of, working

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from sync_worker.sandbox.server import Sandbox

pytestmark = pytest.mark.anyio
PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
Samples = dict[str, float]


def samples(text: str) -> Samples:
    """Return values by name and labels: `sync_worker_due{lane="0"}`."""
    found = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
    return {_name(sample.name, sample.labels): sample.value for sample in found}


def _name(name: str, labels: dict[str, str]) -> str:
    reported = ",".join(f'{label}="{value}"' for label, value in sorted(labels.items()))
    return f"{name}{{{reported}}}" if reported else name


@asynccontextmanager
async def web(box: Sandbox, database_url: str, **given: Any) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(settings_of(box, database_url, **given))
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client,
    ):
        yield client


async def scrape(client: httpx.AsyncClient) -> Samples:
    return samples((await client.get("/metrics")).text)


def row(name: str, labels: tuple[str, ...], text: str) -> str:
    shown = f"{name}{{{','.join(labels)}}}" if labels else name
    return f"| `{shown}` | {text} |"


def test_the_page_lists_every_metric_with_the_help_text_that_prometheus_gets() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| `sync_worker_")]
    assert rows == [row(metric.name, metric.labels, metric.help) for metric in METRICS]


async def test_every_series_name_is_exported_once_something_happened(
    box: Sandbox, sqlite_url: str, tmp_path: Path
) -> None:
    box.clerk.add_user("user_1")
    await box.lake.mutate([created("e1", "user_1", plan="pro")])
    async with working(box, sqlite_url) as parts:
        await parts.store.queue.enqueue([WorkItem("user:user_1")])
        await until(lambda: not wrong(box))
    async with web(box, sqlite_url) as client:
        await client.post("/webhooks/sanity", content=b"{}")
        assert (await run("reconcile", cwd=tmp_path, environment=settings_for(box, sqlite_url))).code == 0
        text = (await client.get("/metrics")).text
    reported = {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}
    assert reported == NAMES
    helps = {line.split(" ", 3)[2]: line.split(" ", 3)[3] for line in text.splitlines() if line.startswith("# HELP")}
    assert helps == {metric.name: metric.help for metric in METRICS}


async def test_a_web_process_exports_what_a_worker_did_even_after_a_restart(box: Sandbox, database_url: str) -> None:
    box.clerk.add_user("user_1")
    await box.lake.mutate([created("e1", "user_1", plan="pro")])
    async with web(box, database_url) as client:
        before = await scrape(client)
        async with working(box, database_url) as parts:
            await parts.store.queue.enqueue([WorkItem("user:user_1", expected=stored(box, "e1"))])
            await until(lambda: not wrong(box))
        after = await scrape(client)
    async with web(box, database_url) as client:
        again = await scrape(client)
    assert before['sync_worker_changes_total{kind="grant"}'] == 0
    assert before["sync_worker_publish_to_clerk_seconds_count"] == 0
    assert after['sync_worker_changes_total{kind="grant"}'] == 1
    assert after['sync_worker_calls_total{outcome="200",service="Clerk"}'] >= 2
    assert after['sync_worker_calls_total{outcome="200",service="Sanity"}'] >= 1
    assert after["sync_worker_publish_to_clerk_seconds_count"] == 1
    assert after['sync_worker_publish_to_clerk_seconds_bucket{le="+Inf"}'] == 1
    assert 0 < after["sync_worker_publish_to_clerk_seconds_sum"] < 30
    counters = [name for name in after if "_total" in name or "publish_to_clerk" in name]
    assert {name: again[name] for name in counters} == {name: after[name] for name in counters}


async def test_the_buckets_of_the_histogram_are_cumulative(box: Sandbox, sqlite_url: str) -> None:
    async with opened(box, sqlite_url) as parts:
        older = {"total:publish_to_clerk:0.1": 1, "total:publish_to_clerk:2.0": 10, "total:publish_to_clerk:inf": 100}
        await parts.store.queue.count(older)  # 2.0 is no longer a bound
    async with web(box, sqlite_url) as client:
        reported = await scrape(client)
    below = {
        bound: reported[f'sync_worker_publish_to_clerk_seconds_bucket{{le="{bound}"}}']
        for bound in ("0.1", "1.0", "2.5", "3600.0", "+Inf")
    }
    assert below == {"0.1": 1, "1.0": 1, "2.5": 11, "3600.0": 11, "+Inf": 111}


async def test_a_429_is_visible(box: Sandbox, sqlite_url: str) -> None:
    box.clerk.faults.next("rate_limited", retry_after=0)
    async with opened(box, sqlite_url) as parts:
        await parts.services.target.instance()
    async with web(box, sqlite_url) as client:
        reported = await scrape(client)
    assert reported['sync_worker_calls_total{outcome="429",service="Clerk"}'] == 1
    assert reported['sync_worker_calls_total{outcome="200",service="Clerk"}'] == 1


async def test_a_broken_connection_is_counted_by_its_error(box: Sandbox, sqlite_url: str) -> None:
    box.lake.faults.next("reset")
    async with opened(box, sqlite_url) as parts:
        await parts.services.source.everything("")
    async with web(box, sqlite_url) as client:
        reported = await scrape(client)
    assert reported['sync_worker_calls_total{outcome="ReadError",service="Sanity"}'] == 1


async def test_the_budget_is_shared_with_other_processes(box: Sandbox, database_url: str) -> None:
    async with web(box, database_url, clerk_budget=10) as client:
        assert (await scrape(client))["sync_worker_budget_left"] == 10
        async with opened(box, database_url, clerk_budget=10) as parts:
            await parts.services.budget.take()
            assert (await scrape(client))["sync_worker_budget_left"] == 9
            await parts.services.budget.pause(60)
        assert (await scrape(client))["sync_worker_budget_left"] == 0


async def test_issues_are_counted(box: Sandbox, database_url: str) -> None:
    async with opened(box, database_url) as parts, web(box, database_url) as client:
        queue = parts.store.queue
        codes = {"p1": PENDING, "p2": PENDING, "r1": REFUSED, "s1": AMBIGUOUS_ADDRESS}
        await queue.replace_notes({f"document:{d}": (code, "r") for d, code in codes.items()}, await queue.now())
        await queue.enqueue([WorkItem("user:user_1")])
        (claim,) = await queue.claim(0, 1, 30.0)
        await queue.complete([DeadLettered(claim, "no_such_subject", "it is gone")])
        await parts.store.approvals.hold("document:c1", [HeldChange("user:user_2", {"plan": "pro"}, {})], "many")
        reported = await scrape(client)
    names = ("pending", "refused", "failed", "held")
    assert [reported[f"sync_worker_{name}"] for name in names] == [2, 2, 1, 1]


async def test_the_reconcile_metrics_are_absent_before_the_first_reconcile(box: Sandbox, sqlite_url: str) -> None:
    async with web(box, sqlite_url) as client:
        reported = await scrape(client)
    assert [name for name in reported if "reconcile" in name] == []


async def test_a_failed_reconcile_is_reported_until_one_succeeds(box: Sandbox, sqlite_url: str, tmp_path: Path) -> None:
    await box.lake.mutate([created("e1", box.clerk.add_user("user_1"), plan="pro")])
    given = settings_for(box, sqlite_url)

    async def reconciled(*options: str, fault: Callable[[], None] = lambda: None) -> float | None:
        fault()
        await run("reconcile", *options, cwd=tmp_path, environment=given)
        box.clerk.faults.clear()
        box.lake.faults.clear()
        async with web(box, sqlite_url) as client:
            return (await scrape(client)).get("sync_worker_reconcile_ok")

    unread = lambda: box.lake.faults.some("unauthorized", 1.0)  # noqa: E731
    assert await reconciled("--dry-run", fault=unread) is None
    assert await reconciled(fault=unread) == 0
    assert await reconciled("--dry-run") == 0
    assert await reconciled(fault=lambda: box.clerk.faults.some("internal", 1.0, method="PATCH")) == 0
    assert await reconciled() == 1


async def test_a_cancelled_reconcile_counts_as_failed(box: Sandbox, sqlite_url: str) -> None:
    async with opened(box, sqlite_url) as parts:
        with pytest.raises(KeyboardInterrupt):
            async with judged(parts.store.runs):
                raise KeyboardInterrupt
        assert await parts.store.runs.ended_well() is False

"""Trouble that the table in docs/operations.md promises to report, each with the real parts."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from structlog.testing import capture_logs

from sync_worker.cli.processes import SECRET, settings_for
from sync_worker.runtime.service import running_worker
from sync_worker.runtime.wiring import installation_of, open_reconcile
from sync_worker.storage.work_items import WorkItem
from sync_worker.web.app import create_app
from sync_worker.webhooks.signatures import SANITY_HEADER, sign_sanity
from tests import builders
from tests.causes import cause_of
from tests.cli.terminal import Operator
from tests.clock import TIMINGS, ShiftedClock
from tests.oracle import until
from tests.parts import opened, poll_of, settings_of, working

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from sync_worker.sandbox.server import Sandbox

pytestmark = pytest.mark.anyio


KILLED = "from sync_worker.storage.process_identity import identity; print(identity())"
QUICK = replace(TIMINGS, listen_reconnect=0.05, heartbeat_interval=0.05, first_backoff=0.05)


@pytest.fixture
def operator(box: Sandbox, tmp_path: Path) -> Operator:
    return Operator(box, tmp_path, settings_for(box, f"sqlite:///{tmp_path / 'work.db'}"))


@dataclass
class Line:
    """A line of the log, once it has come."""

    event: str
    lines: list[Any]

    def __getitem__(self, name: str) -> Any:
        return next(line for line in self.lines if line["event"] == self.event)[name]

    async def comes(self) -> None:
        await until(lambda: any(line["event"] == self.event for line in self.lines))


@asynccontextmanager
async def reported(event: str) -> AsyncIterator[Line]:
    """Wait until the log has an event."""
    with capture_logs() as lines:
        line = Line(event, lines)
        yield line
        await line.comes()


async def publish(box: Sandbox, user: str, **fields: Any) -> None:
    await builders.publish(box, f"ent-{user}", user, **fields)


async def post(app: Any) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
        return await client.post("/webhooks/sanity", content=b"{}")


async def test_a_secret_that_is_not_set_is_named(box: Sandbox, sqlite_url: str) -> None:
    app = create_app(settings_of(box, sqlite_url, sanity_webhook_secret=""))
    async with app.router.lifespan_context(app), reported("webhook_secret_missing") as line:
        assert (await post(app)).status_code == 503
    assert line["next_step"] == "set SANITY_WEBHOOK_SECRET"


async def test_webhooks_that_the_database_cannot_keep_are_logged(box: Sandbox, sqlite_url: str) -> None:
    settings = settings_of(box, sqlite_url)
    app = create_app(settings)
    event = {"operation": "update", "id": "ent-1", "type": "entitlement", "after": {"clerkUserId": "user_1"}}
    managed = {"projectId": settings.sanity_project_id, "dataset": settings.sanity_dataset}
    body = json.dumps({**event, **managed}).encode()
    signed = {SANITY_HEADER: sign_sanity(body, SECRET, 1_767_225_600_000)}
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1")
    async with app.router.lifespan_context(app), client, reported("webhook_not_accepted") as line:
        await app.state.store.database.close()
        assert (await client.post("/webhooks/sanity", content=body, headers=signed)).status_code == 503
    assert line["code"] == "database_unavailable"


async def test_a_stream_that_breaks_goes_on(box: Sandbox, sqlite_url: str) -> None:
    async with working(box, sqlite_url, events="listen", timings=QUICK), reported("listener_reconnects"):
        await box.lake.listeners.wait_connected(1)
        box.lake.listeners.cut()


async def test_a_stream_that_is_refused_is_logged(box: Sandbox, sqlite_url: str) -> None:
    box.lake.faults.next("unauthorized", path_prefix="/v2025-02-19/data/listen")
    async with reported("listener_refused") as line, working(box, sqlite_url, events="listen", timings=QUICK):
        await line.comes()
    assert "sync-worker doctor" in line["next_step"]


async def test_a_transaction_log_that_cannot_be_read_is_logged(box: Sandbox, sqlite_url: str) -> None:
    async with opened(box, sqlite_url) as parts, reported("transaction_log_unavailable"):
        await poll_of(parts, ShiftedClock(-3600)).run()
        box.lake.faults.next("forbidden", path_prefix="/v2025-02-19/data/history")
        await poll_of(parts, ShiftedClock(1200)).run()


async def test_other_settings_than_the_database_remembers_pause_the_worker(box: Sandbox, sqlite_url: str) -> None:
    async with opened(box, sqlite_url, metadata_namespace="access") as parts:
        await installation_of(parts.settings, parts.store).record()
    box.clerk.add_user("user_1")
    await publish(box, "user_1")
    async with reported("worker_paused") as line, working(box, sqlite_url) as parts:
        await parts.store.queue.enqueue([WorkItem("user:user_1")])
        await line.comes()
    assert line["detail"].startswith("METADATA_NAMESPACE: this database belongs to 'access'")
    assert box.clerk.users["user_1"]["public_metadata"] == {}


@pytest.fixture
def of_a_dead_process() -> str:
    """Return the identity of a process that has ended."""
    done = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, text=True, check=True)
    return done.stdout.strip()


async def test_work_of_a_killed_process_is_reclaimed(
    box: Sandbox, sqlite_url: str, of_a_dead_process: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(box, sqlite_url, timings=QUICK) as parts:
        await parts.store.queue.enqueue([WorkItem("user:user_1")])
        with monkeypatch.context() as patched:
            patched.setattr("sync_worker.storage.queue.identity", lambda: of_a_dead_process)
            assert len(await parts.store.queue.claim(0, 10, 300.0)) == 1
        async with reported("orphans_reclaimed") as line, running_worker(parts.settings, parts.store):
            await line.comes()
    assert line["subjects"] == 1


async def test_a_service_that_is_down_is_logged(box: Sandbox, sqlite_url: str) -> None:
    box.clerk.add_user("user_1")
    await publish(box, "user_1")
    async with working(box, sqlite_url, timings=QUICK) as parts, reported("run_failed") as line:
        box.lake.faults.some("unavailable", 1.0)
        await parts.store.queue.enqueue([WorkItem("user:user_1", cause=cause_of("webhook:ent-user_1"))])
    assert line["code"] == "service_unavailable"


async def test_a_429_of_clerk_is_logged(box: Sandbox, sqlite_url: str) -> None:
    box.clerk.add_user("user_1")
    await publish(box, "user_1")
    async with working(box, sqlite_url, timings=QUICK) as parts, reported("rate_limited") as line:
        box.clerk.faults.next("rate_limited", path_prefix="/v1/users")
        await parts.store.queue.enqueue([WorkItem("user:user_1", cause=cause_of("webhook:ent-user_1"))])
    assert line["service"] == "Clerk"


async def test_a_write_that_clerk_refuses_is_logged(box: Sandbox, sqlite_url: str) -> None:
    box.clerk.add_user("user_1")
    await publish(box, "user_1", courses=[])
    async with working(box, sqlite_url, timings=QUICK) as parts, reported("subject_failed") as line:
        box.clerk.faults.next("conflict", method="PATCH")
        await parts.store.queue.enqueue([WorkItem("user:user_1", cause=cause_of("webhook:ent-user_1"))])
    assert line["subject"] == "user:user_1"


async def test_a_reconcile_in_which_everybody_loses_a_key_says_so(operator: Operator) -> None:
    plan = {"_id": "p1", "_type": "plan", "slug": {"current": "pro"}}
    await operator.box.lake.mutate([{"create": plan}])
    for user in ("user_1", "user_2", "user_3"):
        operator.box.clerk.add_user(user)
        await publish(operator.box, user, plan={"_type": "reference", "_ref": "p1"})
    assert (await operator.reconcile())[0] == 0
    await operator.box.lake.mutate([{"patch": {"id": "p1", "unset": ["slug"]}}])
    ended = await operator.run("reconcile")
    assert (ended.code, "Everybody who stays entitled would lose the same key" in ended.err) == (1, True)


async def test_losses_that_are_held_are_logged(box: Sandbox, sqlite_url: str) -> None:
    users = [box.clerk.add_user(f"user_{number}") for number in range(3)]
    for user in users:
        await publish(box, user)
    async with opened(box, sqlite_url, max_revocations="1") as parts:
        async with open_reconcile(parts.settings, parts.store, Counter()) as run:
            await run.apply(await run.find())
        await box.lake.mutate([{"delete": {"id": f"ent-{user}"}} for user in users[:2]])
        await publish(box, "user_2", role="member")
        once_more = open_reconcile(parts.settings, parts.store, Counter(), accept_fewer=True)
        async with once_more as run, reported("losses_held") as line:
            await run.apply(await run.find())
    assert line["next_step"] == f"sync-worker approve {line['changeset']}"


async def test_that_nothing_has_reconciled_yet_is_logged(box: Sandbox, sqlite_url: str) -> None:
    async with reported("never_reconciled") as line, working(box, sqlite_url):
        await line.comes()
    assert "sync-worker reconcile --dry-run" in line["next_step"]


async def test_after_a_good_reconcile_it_is_not_logged_that_there_was_none(box: Sandbox, sqlite_url: str) -> None:
    box.clerk.add_user("user_1")
    await publish(box, "user_1")
    async with opened(box, sqlite_url) as parts, open_reconcile(parts.settings, parts.store, Counter()) as run:
        await run.apply(await run.find())
    async with reported("worker_started") as line, working(box, sqlite_url):
        await line.comes()
    assert [entry["event"] for entry in line.lines if entry["event"] == "never_reconciled"] == []

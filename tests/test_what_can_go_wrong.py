"""Each row of the table in docs/operations.md is a test: what it promises to say is said.

TOLD ties a row, by its first cell, to a test that contains a word of the row's second cell.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from structlog.testing import capture_logs

from sync_worker.cli.processes import SECRET, settings_for
from sync_worker.diagnostics.issues import IssueKind
from sync_worker.diagnostics.metrics import NAMES
from sync_worker.errors import SyncWorkerError
from sync_worker.runtime.service import running_worker
from sync_worker.runtime.wiring import installation_of, open_reconcile
from sync_worker.storage.work_items import WorkItem
from sync_worker.triggers.poll import Poll
from sync_worker.web.app import create_app
from sync_worker.webhooks.receiver import REFUSALS
from sync_worker.webhooks.signatures import SANITY_HEADER, sign_sanity
from tests.causes import cause_of
from tests.cli.terminal import Operator
from tests.clock import TIMINGS, ShiftedClock
from tests.oracle import until
from tests.parts import opened, settings_of, working
from tests.test_docs import DOCS, commands
from tests.test_logs_documented import logged

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sync_worker.sandbox.server import Sandbox

pytestmark = pytest.mark.anyio
TESTS = Path(__file__).parent
HERE = "test_what_can_go_wrong.py"
KILLED = "from sync_worker.storage.process_identity import identity; print(identity())"
QUICK = replace(TIMINGS, listen_reconnect=0.05, heartbeat_interval=0.05, first_backoff=0.05)

TOLD = {
    "the webhook is off, or posts elsewhere": (
        "triggers/test_poll.py::test_a_publish_whose_webhook_was_lost_is_found_and_told",
        "missed_webhook_detected",
    ),
    "the webhook's URL has a wrong path": (
        "webhooks/test_receiver.py::test_a_webhook_to_a_wrong_path_is_logged_and_counted",
        "webhook_path_unknown",
    ),
    "the webhook's secret differs": (
        "webhooks/test_receiver.py::test_without_a_good_signature_nothing_is_marked",
        "bad_signature",
    ),
    "the webhook's secret is not set": (
        f"{HERE}::test_a_secret_that_is_not_set_is_named",
        "webhook_secret_missing",
    ),
    "Clerk's webhooks are of another instance": (
        "webhooks/test_clerk_events.py::test_events_of_another_instance_are_ignored",
        "webhook_ignored",
    ),
    "the listen stream breaks": (f"{HERE}::test_a_stream_that_breaks_goes_on", "listener_reconnects"),
    "Sanity refuses the listen stream": (f"{HERE}::test_a_stream_that_is_refused_is_told", "listener_refused"),
    "the transaction log cannot be read": (
        f"{HERE}::test_a_transaction_log_that_cannot_be_read_is_told",
        "transaction_log_unavailable",
    ),
    "the database is down, full or removed": (
        f"{HERE}::test_webhooks_that_the_database_cannot_keep_are_told",
        "webhook_not_accepted",
    ),
    "a key or token is refused, or a GROQ file is invalid": (
        "worker/test_loop.py::test_401_stops_the_work_loudly_and_it_goes_on_when_the_key_is_right_again",
        "worker_paused",
    ),
    "a process has other settings than the database remembers": (
        f"{HERE}::test_other_settings_than_the_database_remembers_pause_the_worker",
        "worker_paused",
    ),
    "another installation manages the same keys": (
        "cli/test_failed.py::test_everything_that_a_reconcile_refuses_is_listed_and_counted_until_it_is_repaired",
        "managed_elsewhere",
    ),
    "the app has a value where the namespace would be": (
        "sync/test_ownership.py::test_a_namespace_named_like_a_key_of_the_app_is_refused",
        "namespace_occupied",
    ),
    "the webhook's filter or projection, or a query, leaves something out": (
        "cli/test_verbs.py::test_release_finds_what_a_webhook_would_not_report",
        "release",
    ),
    "a field is empty in every row, or a plan is on no list": (
        "cli/test_verbs.py::test_empty_fields_and_plans_on_no_list_are_reported_before_anything_is_written",
        "release",
    ),
    "no worker runs": ("webhooks/test_receiver.py::test_readyz_says_that_no_worker_is_there", "/readyz"),
    "a process was killed": (f"{HERE}::test_work_of_a_killed_process_is_taken_over", "orphans_reclaimed"),
    "Sanity or Clerk is down": (f"{HERE}::test_a_service_that_is_down_is_told", "run_failed"),
    "Clerk answers 429": (f"{HERE}::test_a_429_of_clerk_is_told", "rate_limited"),
    "Clerk refuses a write": (f"{HERE}::test_a_write_that_clerk_refuses_is_told", "subject_failed"),
    "no entitlement is visible": (
        "worker/test_loop.py::test_where_nothing_is_visible_and_nothing_was_deleted_access_stays",
        "dataset_empty",
    ),
    "most entitlements are gone": (
        "cli/test_reconcile.py::test_fewer_than_half_of_the_last_good_run_takes_nothing_away",
        "Far fewer entitlements are visible",
    ),
    "everybody would lose one key": (
        f"{HERE}::test_a_reconcile_in_which_everybody_loses_a_key_says_so",
        "Everybody who stays entitled would lose the same key",
    ),
    "many would lose access": (f"{HERE}::test_losses_that_are_held_are_told", "losses_held"),
    "values of an old webhook handler stay": (
        f"{HERE}::test_that_nothing_has_reconciled_yet_is_told",
        "never_reconciled",
    ),
    "the reconcile is old or failed": (
        "diagnostics/test_situations.py::test_an_overdue_reconcile_is_news_every_day",
        "reconcile_overdue",
    ),
    "a document is invalid": ("worker/test_loop.py::test_no_address_and_no_key_is_in_the_log", "row_refused"),
    "references lead nowhere": (
        "diagnostics/test_explainer.py::test_unresolved_references_are_noted_until_they_resolve",
        "references_unresolved",
    ),
    "a subject's access is too large for a session": (
        "worker/test_loop.py::test_claims_that_would_not_fit_a_cookie_are_written_and_told_with_their_size",
        "claims_large",
    ),
    "a subject's access is larger than 8 KB": (
        "worker/test_loop.py::test_more_than_clerk_stores_is_refused_by_name_and_nothing_is_written",
        "access_too_large",
    ),
    "a bug": ("worker/test_loop.py::test_a_bug_tells_of_whom_but_no_address", "run_crashed"),
}


def rows() -> dict[str, str]:
    """Return what says so, by what can go wrong."""
    _, _, section = (DOCS / "operations.md").read_text().partition("\n## What can go wrong\n")
    table, _, _ = section.partition("\n## ")
    cells = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("| ")][1:]
    return {first.strip(): second.strip() for first, second, _ in cells}


def source_of(test: str) -> str:
    file, _, name = test.partition("::")
    text = (TESTS / file).read_text()
    found = [
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name
    ]
    assert found, f"there is no test {test}"
    return ast.get_source_segment(text, found[0]) or ""


def test_each_row_is_a_test_that_sees_what_the_row_says_is_told() -> None:
    table = rows()
    assert list(table) == list(TOLD)
    assert [row for row, (_, word) in TOLD.items() if word not in table[row]] == []
    assert [test for test, word in TOLD.values() if word not in source_of(test)] == []


def test_what_the_rows_name_is_in_the_product() -> None:
    errors = {re.sub(r"(?<!^)(?=[A-Z])", "_", one.__name__).lower() for one in _errors(SyncWorkerError)}
    known = logged() | NAMES | errors | {*REFUSALS, *map(str, IssueKind), "/readyz", "/status"}
    known |= {*commands(), *(f"sync-worker {name}" for name in commands())}
    named = {word for says_so in rows().values() for word in re.findall(r"`([^`]+)`", says_so)}
    assert {word for word in named - known if not _is_message(word)} == set()


def _errors(base: type[SyncWorkerError]) -> list[type[SyncWorkerError]]:
    return [one for sub in base.__subclasses__() for one in (sub, *_errors(sub))]


def _is_message(text: str) -> bool:
    return any(one.headline().startswith(text) for one in _errors(SyncWorkerError))


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
    row = {"_id": f"ent-{user}", "_type": "entitlement", "clerkUserId": user, "plan": "pro", **fields}
    await box.lake.mutate([{"createOrReplace": row}])


async def post(app: Any) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
        return await client.post("/webhooks/sanity", content=b"{}")


async def test_a_secret_that_is_not_set_is_named(box: Sandbox, sqlite_url: str) -> None:
    app = create_app(settings_of(box, sqlite_url, sanity_webhook_secret=""))
    async with app.router.lifespan_context(app), reported("webhook_secret_missing") as line:
        assert (await post(app)).status_code == 503
    assert line["next_step"] == "set SANITY_WEBHOOK_SECRET"


async def test_webhooks_that_the_database_cannot_keep_are_told(box: Sandbox, sqlite_url: str) -> None:
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


async def test_a_stream_that_is_refused_is_told(box: Sandbox, sqlite_url: str) -> None:
    box.lake.faults.next("unauthorized", path_prefix="/v2025-02-19/data/listen")
    async with reported("listener_refused") as line, working(box, sqlite_url, events="listen", timings=QUICK):
        await line.comes()
    assert "sync-worker doctor" in line["next_step"]


async def test_a_transaction_log_that_cannot_be_read_is_told(box: Sandbox, sqlite_url: str) -> None:
    async with opened(box, sqlite_url) as parts, reported("transaction_log_unavailable"):
        of = (parts.services.source, parts.store.queue, parts.store.access)
        await Poll(*of, ShiftedClock(-3600), TIMINGS, 36_000.0).run()
        box.lake.faults.next("forbidden", path_prefix="/v2025-02-19/data/history")
        await Poll(*of, ShiftedClock(1200), TIMINGS, 36_000.0).run()


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


async def test_work_of_a_killed_process_is_taken_over(
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


async def test_a_service_that_is_down_is_told(box: Sandbox, sqlite_url: str) -> None:
    box.clerk.add_user("user_1")
    await publish(box, "user_1")
    async with working(box, sqlite_url, timings=QUICK) as parts, reported("run_failed") as line:
        box.lake.faults.some("unavailable", 1.0)
        await parts.store.queue.enqueue([WorkItem("user:user_1", cause=cause_of("webhook:ent-user_1"))])
    assert line["code"] == "service_unavailable"


async def test_a_429_of_clerk_is_told(box: Sandbox, sqlite_url: str) -> None:
    box.clerk.add_user("user_1")
    await publish(box, "user_1")
    async with working(box, sqlite_url, timings=QUICK) as parts, reported("rate_limited") as line:
        box.clerk.faults.next("rate_limited", path_prefix="/v1/users")
        await parts.store.queue.enqueue([WorkItem("user:user_1", cause=cause_of("webhook:ent-user_1"))])
    assert line["service"] == "Clerk"


async def test_a_write_that_clerk_refuses_is_told(box: Sandbox, sqlite_url: str) -> None:
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


async def test_losses_that_are_held_are_told(box: Sandbox, sqlite_url: str) -> None:
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


async def test_that_nothing_has_reconciled_yet_is_told(box: Sandbox, sqlite_url: str) -> None:
    async with reported("never_reconciled") as line, working(box, sqlite_url):
        await line.comes()
    assert "sync-worker reconcile --dry-run" in line["next_step"]

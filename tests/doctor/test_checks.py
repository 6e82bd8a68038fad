"""`sync-worker doctor` on a healthy installation, and with one planted fault at a time."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from sync_worker.doctor import checks
from sync_worker.doctor.checks import CHECKS
from sync_worker.doctor.runner import Finding, Status, open_installation
from sync_worker.errors import MutationInDryRun
from sync_worker.runtime.wiring import open_store
from sync_worker.sanity.webhook_config import Hook, Repair
from sync_worker.storage.state import CONNECTED, FAILURE, LAST_EVENT
from tests.doctor.installations import Installation, having, installation
from tests.parts import RUNTIME, settings_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from sync_worker.sandbox.server import Sandbox

pytestmark = pytest.mark.anyio


async def test_a_healthy_installation_is_all_green(staging_box: Sandbox, database_url: str) -> None:
    async with installation(staging_box, database_url) as installed:
        findings = await installed.examine()
    assert {name: f.result for name, f in findings.items() if f.status is not Status.OK} == {}
    assert list(findings) == [check.name for check in CHECKS]


async def test_an_examination_changes_nothing(installed: Installation) -> None:
    box, before = installed.box, await installed.remembered()
    documents, users = dict(box.lake.documents), json.dumps(dict(box.clerk.users))
    hooks = dict(box.lake.webhooks.hooks)
    box.lake.requests.clear()
    box.clerk.requests.clear()
    installed.reconfigure(sanity_read_token=box.lake.token)
    await installed.examine()
    sent = Counter((r.method, r.path) for r in (*box.lake.requests.requests, *box.clerk.requests.requests))
    assert {one: n for one, n in sent.items() if one[0] != "GET"} == {("POST", "/v2025-02-19/data/mutate/staging"): 1}
    assert (dict(box.lake.documents), json.dumps(dict(box.clerk.users))) == (documents, users)
    assert (dict(box.lake.webhooks.hooks), await installed.remembered()) == (hooks, before)


async def test_requests_that_could_change_something_are_not_sent(installed: Installation) -> None:
    box = installed.box
    box.lake.requests.clear()
    box.clerk.requests.clear()
    async with open_installation(installed.settings, {}, RUNTIME, manage_token=box.lake.token) as installation:
        for client, url in (
            (installation.sanity, f"{box.sanity_url}/v2025-02-19/data/mutate/staging"),
            (installation.sanity, f"{box.sanity_url}/v2025-02-19/data/mutate/staging?dryRun=false"),
            (installation.clerk, f"{box.clerk_url}/v1/users/user_1/metadata"),
        ):
            with pytest.raises(MutationInDryRun):
                await client.post(url, json={})
        with pytest.raises(MutationInDryRun):
            await installation.hooks.apply(Repair(None, (), ()), Hook(url=f"{box.sanity_url}/x", dataset="*"))
    assert (box.lake.requests.count(), box.clerk.requests.count()) == (0, 0)


@dataclass(frozen=True)
class Fault:
    """A fault to plant in an installation, and the finding it must cause."""

    plant: Callable[[Installation], Any]
    check: str
    result: str
    fix: str


async def make_old(installed: Installation) -> None:
    async with open_store(installed.settings, RUNTIME) as store:
        await store.database.run(lambda tx: tx.execute("UPDATE state SET at = at - 48 * 3600 WHERE name = 'reconcile'"))


INSTALL = "sync-worker webhook install --url http://127.0.0.1"
FAULTS = {
    "a Clerk key that is wrong": Fault(
        lambda i: i.reconfigure(clerk_secret_key="sk_test_another"), "Clerk", "(CLERK_SECRET_KEY)", "under API keys"
    ),
    "a token that can write": Fault(
        lambda i: i.reconfigure(sanity_read_token=i.box.lake.token), "read-only token", "can write", "--role=viewer"
    ),
    "a hook that is disabled": Fault(
        lambda i: i.change_hook(is_disabled_by_user=True), "webhook", "state is disabled, expected enabled", INSTALL
    ),
    "a hook with another filter": Fault(
        lambda i: i.change_hook(filter='_type == "course"'),
        "webhook",
        "filter is different, expected webhook_filter.groq",
        INSTALL,
    ),
    "a hook for every dataset": Fault(
        lambda i: i.change_hook(dataset="*"), "webhook", "dataset is *, expected staging", INSTALL
    ),
    "a clock that is fast": Fault(lambda i: setattr(i, "ahead", 75.0), "clock", "s ahead of", "NTP"),
    "a clock that is slow": Fault(lambda i: setattr(i, "ahead", -75.0), "clock", "s behind", "NTP"),
    "a hook without our secret": Fault(
        lambda i: i.change_hook(secret=""), "webhook", "secret is none, expected SANITY_WEBHOOK_SECRET", INSTALL
    ),
    "a Sanity token that is gone": Fault(
        lambda i: i.reconfigure(sanity_read_token="sk-gone"), "Sanity", "Session not found", "--role=viewer"
    ),
    "a dataset that is not there": Fault(
        lambda i: i.reconfigure(sanity_dataset="stage"), "Sanity", 'Dataset "stage" not found', "Correct the setting"
    ),
    "a database that is not there": Fault(
        lambda i: i.reconfigure(database_url="postgres://u:planted@127.0.0.1:9/d"),
        "database",
        "PostgreSQL",
        "Check DATABASE_URL",
    ),
    "a folder without GROQ files": Fault(
        lambda i: i.reconfigure(groq_dir="/nowhere"), "GROQ files", "by_subject.groq cannot be read", "Correct"
    ),
    "a reconcile long ago": Fault(
        make_old,
        "reconcile",
        "the last successful run was 2 days ago",
        "every night",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_a_planted_fault_is_named_with_its_fix_and_is_the_only_problem(
    installed: Installation, name: str
) -> None:
    fault = FAULTS[name]
    planted = fault.plant(installed)
    if asyncio.iscoroutine(planted):
        await planted
    findings = await installed.examine()
    assert having(findings, Status.PROBLEM) == {fault.check}
    assert fault.result in findings[fault.check].result
    assert fault.fix in findings[fault.check].fix
    assert "planted" not in str(findings)


async def test_a_skipped_check_says_why(installed: Installation) -> None:
    installed.box.clerk.faults.some("reset", 1.0)
    findings = await installed.examine()
    assert findings["Clerk"].status is Status.PROBLEM
    assert findings["claims"] == Finding(Status.SKIPPED, "not checked until this passes: Clerk")
    assert findings["clock"].result == "within 60 s of Sanity"
    assert having(findings, Status.OK) == {check.name for check in CHECKS} - {"Clerk", "ownership", "claims"}


@pytest.mark.parametrize(("key", "dataset"), [("sk_live_1", "staging"), ("sk_test_1", "production")])
async def test_a_live_key_with_a_test_dataset_is_a_warning_and_the_reverse(
    installed: Installation, key: str, dataset: str
) -> None:
    installed.reconfigure(clerk_secret_key=key, sanity_dataset=dataset)
    finding = (await installed.examine())["live or test"]
    assert (finding.status, dataset in finding.result) == (Status.WARNING, True)


async def test_a_public_dataset_is_a_warning(installed: Installation) -> None:
    installed.box.lake.public = True
    finding = (await installed.examine())["private dataset"]
    assert (finding.status, finding.fix) == (Status.WARNING, "npx sanity datasets visibility set staging private")
    await installed.box.lake.mutate([{"delete": {"id": "ent-1"}}])
    assert (await installed.examine())["private dataset"].status is Status.SKIPPED


async def test_a_new_installation_gets_its_next_steps(box: Sandbox, bare_database_url: str) -> None:
    settings = settings_of(box, bare_database_url)
    findings = await Installation(box, settings).examine()
    assert having(findings, Status.PROBLEM) == set()
    assert having(findings, Status.WARNING) >= {
        "database",
        "projection",
        "last webhook",
        "Clerk webhook",
        "reconcile",
    }
    assert findings["database"].result == "there are no tables yet"
    assert "no entitlement is visible" in findings["projection"].result
    assert (await Installation(box, settings).examine())["database"].status is Status.WARNING, "nothing was made"


@pytest.mark.parametrize(
    ("sql", "status", "result"),
    [
        ("INSERT INTO schema_version VALUES (99, 1, 0)", Status.OK, "writable, schema version 99"),
        ("INSERT INTO schema_version VALUES (99, 99, 0)", Status.PROBLEM, "too new for this release"),
    ],
)
async def test_the_schema_of_another_release_is_reported(
    installed: Installation, sql: str, status: Status, result: str
) -> None:
    async with open_store(installed.settings, RUNTIME) as store:
        await store.database.run(lambda tx: tx.execute(sql))
    finding = (await installed.examine())["database"]
    assert (finding.status, result in finding.result) == (status, True)


async def test_the_schema_of_an_older_release_is_reported(
    installed: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "NEWEST", 2)
    finding = (await installed.examine())["database"]
    assert (finding.status, "its schema version is 1, not 2" in finding.result) == (Status.WARNING, True)


async def test_what_agents_can_read_is_said(installed: Installation) -> None:
    finding = (await installed.examine())["agents"]
    assert (finding.status, "addresses" in finding.result) == (Status.OK, False)
    await installed.publish("ent-2", clerkUserId=None, userEmail="ada@example.org", plan="pro")
    finding = (await installed.examine())["agents"]
    assert (
        "read all entitlements, some with e-mail addresses, unless their groqFilter leaves them out" in finding.result
    )
    assert finding.result.endswith("docs/go-live.md#agents-that-read-your-dataset")
    assert "ada" not in finding.result


async def test_a_listener_that_was_refused_is_a_problem_until_it_is_connected(installed: Installation) -> None:
    async def result_after(name: str) -> tuple[Status, str]:
        async with open_store(installed.settings, RUNTIME) as store:
            await store.queue.remember(name, "…")
        finding = (await installed.examine())["listener"]
        return finding.status, " ".join(finding.result.split()[:3])

    installed.reconfigure(events="listen")
    assert (await installed.examine())["listener"].status is Status.WARNING
    assert await result_after(FAILURE) == (Status.PROBLEM, "Sanity refused it")
    assert await result_after(CONNECTED) == (Status.OK, "it was connected")
    assert await result_after(LAST_EVENT) == (Status.OK, "it last received")


async def test_documents_that_are_refused_are_counted_and_the_first_is_named(installed: Installation) -> None:
    await installed.publish("ent-2", status=7)
    await installed.publish("ent-3", status="active")
    finding = (await installed.examine())["projection"]
    assert finding.status is Status.WARNING
    assert "1 of 3 rows are refused; the first is ent-2: status:" in finding.result

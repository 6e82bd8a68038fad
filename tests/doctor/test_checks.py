"""`sync-worker doctor` on a healthy installation, and with one planted fault at a time."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from sync_worker.cli.processes import SECRET, install_clerk_hook, install_hook, settings_for
from sync_worker.doctor import checks, people_checks
from sync_worker.doctor.checks import CHECKS
from sync_worker.doctor.people_checks import SAMPLE
from sync_worker.doctor.runner import Finding, Status, examine, open_installation
from sync_worker.errors import MutationInDryRun
from sync_worker.runtime.wiring import Runtime, open_reconcile, open_store
from sync_worker.sandbox.server import Sandbox, Server
from sync_worker.sanity.client import Queries
from sync_worker.sanity.webhook_config import Hook, Repair
from sync_worker.settings import packaged_groq
from sync_worker.storage.state import CONNECTED, FAILURE, LAST_EVENT
from sync_worker.web.app import create_app
from sync_worker.webhooks.clerk_events import INSTANCE
from sync_worker.webhooks.receiver import BODY_LIMIT
from tests.clock import TIMINGS, ShiftedClock
from tests.nursery import Ended, run
from tests.parts import RUNTIME, settings_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from sync_worker.sandbox.webhooks import Hook as Configured
    from sync_worker.settings import Settings

pytestmark = pytest.mark.anyio


def webhook_projection() -> str:
    return Queries.load(packaged_groq()).webhook_projection


@dataclass
class Installation:
    """A web process against the local services. `ahead` is how many seconds its clock is fast."""

    box: Sandbox
    settings: Settings
    manage_token: str = ""
    ahead: float = 0.0
    invalid: dict[str, str] = field(default_factory=dict)

    @property
    def hook(self) -> Configured:
        return next(iter(self.box.lake.webhooks.hooks.values()))

    def reconfigure(self, **given: Any) -> None:
        """Examine it with other settings."""
        changed = settings_of(self.box, **{"database_url": self.settings.database_url, **given})
        self.settings = self.settings.model_copy(update={name: getattr(changed, name) for name in given})

    async def change_hook(self, **settings: Any) -> None:
        await self.box.lake.webhooks.change(self.hook.id, **settings)

    async def publish(self, document: str, **fields: Any) -> None:
        row = {"_id": document, "_type": "entitlement", "clerkUserId": "user_1", **fields}
        await self.box.lake.mutate([{"createOrReplace": row}])
        await self.box.lake.hooks_idle()

    async def examine(self, url: str = "") -> dict[str, Finding]:
        runtime = Runtime(ShiftedClock(self.ahead), TIMINGS)
        async with open_installation(
            self.settings, self.invalid, runtime, url=url, manage_token=self.manage_token
        ) as installation:
            return await examine(installation, CHECKS)

    async def remembered(self) -> list[Any]:
        async with open_store(self.settings, RUNTIME) as store:
            return await store.database.read(lambda tx: tx.execute("SELECT name, value, at FROM state ORDER BY name"))


@asynccontextmanager
async def installation(box: Sandbox, database_url: str) -> AsyncIterator[Installation]:
    """Run a healthy installation: a working webhook, an entitlement in Clerk, a successful reconcile."""
    settings = settings_of(box, database_url)
    one = Installation(box, settings, manage_token=box.lake.token)
    async with listening(settings) as url:
        install_hook(box, url)
        install_clerk_hook(box, url)
        box.clerk.add_user("user_1")
        await box.clerk.webhooks.deliveries.idle()
        await one.publish("ent-1", plan="pro")
        await reconcile(settings)
        yield one


@asynccontextmanager
async def listening(settings: Settings) -> AsyncIterator[str]:
    """Run the web application in this process, and yield its address."""
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        server = Server(app, 0)
        running = asyncio.create_task(server.run_until_stopped())
        yield server.url
        server.stop()
        await running


async def reconcile(settings: Settings) -> None:
    async with open_store(settings, RUNTIME) as store, open_reconcile(settings, store, Counter()) as run_:
        await run_.apply(await run_.find())


@pytest.fixture
async def installed(staging_box: Sandbox, sqlite_url: str) -> AsyncIterator[Installation]:
    async with installation(staging_box, sqlite_url) as one:
        yield one


def having(findings: dict[str, Finding], status: Status) -> set[str]:
    return {name for name, finding in findings.items() if finding.status is status}


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


async def test_without_permission_to_read_webhooks_their_checks_are_skipped_with_a_fix(
    installed: Installation,
) -> None:
    installed.manage_token = ""
    findings = await installed.examine()
    assert having(findings, Status.SKIPPED) == {"webhook", "deliveries"}
    assert "SANITY_MANAGE_TOKEN" in findings["webhook"].fix
    assert having(findings, Status.PROBLEM) == set()


async def test_without_a_secret_every_webhook_is_answered_503(installed: Installation) -> None:
    installed.reconfigure(sanity_webhook_secret=())
    finding = (await installed.examine())["settings"]
    assert (finding.status, "answered 503" in finding.result, "openssl rand" in finding.fix) == (
        Status.PROBLEM,
        True,
        True,
    )


async def test_the_old_secret_is_accepted_during_rotation(installed: Installation) -> None:
    installed.reconfigure(sanity_webhook_secret=f"another-webhook-secret,{SECRET}")
    assert (await installed.examine())["webhook"].status is Status.OK


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


async def test_a_hook_with_another_url_is_ignored(installed: Installation) -> None:
    finding = (await installed.examine(url="https://sync.example.com/webhooks/sanity"))["webhook"]
    assert finding.status is Status.PROBLEM
    assert finding.result == (
        f"no webhook posts to https://sync.example.com/webhooks/sanity; the nearest posts to {installed.hook.url}"
    )
    await installed.box.lake.webhooks.remove(installed.hook.id)
    assert "https://your-host/webhooks/sanity" in (await installed.examine())["webhook"].fix


@pytest.mark.parametrize("path", ["/webhook/sanity", "/webhooks/santiy", "/webhooks/sanity/v1"])
async def test_a_hook_whose_url_nearly_matches_is_named(installed: Installation, path: str) -> None:
    url = installed.hook.url.replace("/webhooks/sanity", path)
    await installed.change_hook(url=url)
    finding = (await installed.examine())["webhook"]
    assert finding.status is Status.PROBLEM
    assert finding.result == f"no webhook posts to https://your-host/webhooks/sanity; the nearest posts to {url}"


async def test_the_hook_of_another_dataset_is_ignored(installed: Installation) -> None:
    other = install_hook(installed.box, "https://production.example.com")
    await installed.box.lake.webhooks.change(other.id, dataset="production")
    assert (await installed.examine())["webhook"].status is Status.OK


async def test_a_second_hook_for_the_same_events_is_a_warning(installed: Installation) -> None:
    other = install_hook(installed.box, "https://old.example.com")
    finding = (await installed.examine())["webhook"]
    assert (finding.status, other.id in finding.result) == (Status.WARNING, True)


@pytest.mark.parametrize(
    ("change", "result", "fix"),
    [
        ({"secret": "another"}, "was answered 401 by us: bad_signature", "The secrets differ"),
        ({"http_method": "PUT"}, "was answered 405", "It must POST"),
        ({"projection": "{_id}"}, "was answered 400 by us: bad_body", "Its projection is not ours"),
        (
            {"projection": webhook_projection().replace('"v": 1,', '"v": 1, "padding": after().padding,')},
            "was answered 413 by us: body_too_large",
            "Its projection sends whole documents",
        ),
    ],
)
async def test_refused_deliveries_are_a_problem_with_their_cause(
    installed: Installation, change: dict[str, Any], result: str, fix: str
) -> None:
    await installed.change_hook(**change)
    await installed.publish("ent-2", padding="x" * (BODY_LIMIT + 1))
    finding = (await installed.examine())["deliveries"]
    assert (finding.status, result in finding.result, fix in finding.fix) == (Status.PROBLEM, True, True)


async def test_deliveries_that_failed_a_while_ago_are_a_warning(installed: Installation) -> None:
    await installed.change_hook(secret="another")
    await installed.publish("ent-2")
    await installed.change_hook(secret=SECRET)
    await installed.publish("ent-3")
    finding = (await installed.examine())["deliveries"]
    assert (finding.status, "1 of the last 3 deliveries failed" in finding.result) == (Status.WARNING, True)
    installed.ahead = 25 * 3600.0
    assert (await installed.examine())["deliveries"].status is Status.OK


async def test_a_publish_with_a_missed_webhook_is_named(installed: Installation) -> None:
    await installed.change_hook(is_disabled_by_user=True)
    real, installed.box.lake.clock = installed.box.lake.clock, lambda: time.time() + 600
    await installed.publish("ent-2")
    installed.box.lake.clock = real
    installed.ahead = 630.0
    assert (await installed.examine())["last webhook"].status is Status.OK, "it may still come"
    installed.ahead = 1200.0
    finding = (await installed.examine())["last webhook"]
    assert (finding.status, "but ent-2 was published at" in finding.result) == (Status.PROBLEM, True)


async def test_people_named_by_address_need_the_webhook_of_clerk(installed: Installation) -> None:
    installed.reconfigure(clerk_webhook_secret="")
    assert (await installed.examine())["Clerk webhook"].status is Status.OK
    await installed.publish("ent-2", clerkUserId=None, userEmail="ada@example.com")
    finding = (await installed.examine())["Clerk webhook"]
    assert (finding.status, "set CLERK_WEBHOOK_SECRET" in finding.fix) == (Status.WARNING, True)
    assert "ada@" not in str(await installed.examine())


async def test_events_of_another_clerk_instance_are_a_problem(installed: Installation) -> None:
    async with open_store(installed.settings, RUNTIME) as store:
        await store.queue.remember(INSTANCE, "ins_another")
    async with listening(installed.settings) as url:
        installed.box.clerk.webhooks.endpoints.clear()
        install_clerk_hook(installed.box, url)
        installed.box.clerk.add_user("user_2")
        await installed.box.clerk.webhooks.deliveries.idle()
    finding = (await installed.examine())["Clerk webhook"]
    assert finding.status is Status.PROBLEM
    assert finding.result.startswith("an event of another Clerk instance was ignored")


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


async def test_a_jwt_template_that_no_app_can_read_is_a_problem(installed: Installation) -> None:
    template = {"id": "jtmp_1", "name": "convex", "lifetime": 60, "allowed_clock_skew": 5}
    claims = {"aud": "convex", "plan": "{{organization.public_metadata.plan}}"}
    installed.box.clerk.templates["jtmp_1"] = {**template, "claims": claims}
    finding = (await installed.examine())["claims"]
    assert finding == Finding(
        Status.PROBLEM,
        "JWT template convex, claim plan: {{organization.public_metadata.plan}} stays in the token as text",
        "Write {{org.public_metadata.plan}}.",
    )


async def test_a_jwt_template_that_misses_a_key_which_somebody_has_is_a_problem(installed: Installation) -> None:
    template = {"id": "jtmp_1", "name": "api", "lifetime": 60, "allowed_clock_skew": 5}
    installed.box.clerk.templates["jtmp_1"] = {**template, "claims": {"plan": "{{user.public_metadata.tier}}"}}
    finding = (await installed.examine())["claims"]
    assert (finding.status, finding.fix) == (Status.PROBLEM, "Write {{user.public_metadata.plan}}.")


async def test_access_near_the_claims_budget_is_a_warning(installed: Installation) -> None:
    installed.reconfigure(claims_budget=30)
    finding = (await installed.examine())["claims"]
    assert finding.status is Status.WARNING
    assert "the most has user:user_1" in finding.result
    assert "of 30 bytes" in finding.result
    assert "PRIVATE_FIELDS" in finding.fix


async def test_the_last_reconcile_says_how_many_are_over_the_budget_and_who_has_most(installed: Installation) -> None:
    installed.reconfigure(claims_budget=100)
    for number in range(3):
        user, courses = f"user_large_{number}", [f"course-{number}-{n}" for n in range(10 + number)]
        installed.box.clerk.add_user(user)
        await installed.box.lake.load([{"_id": c, "_type": "course", "slug": {"current": c}} for c in courses])
        references = [{"_key": c, "_type": "reference", "_ref": c} for c in courses]
        await installed.publish(f"ent-{number}", clerkUserId=user, courses=references)
    await reconcile(installed.settings)
    for number in range(SAMPLE):  # nobody above is among the users updated last any more
        installed.box.clerk.add_user(f"user_new_{number}")
    finding = (await installed.examine())["claims"]
    assert finding.status is Status.WARNING
    assert finding.result.startswith(
        "3 people were over 100 bytes at the last reconcile; the most has user:user_large_2"
    )
    installed.reconfigure(claims_budget=1000)
    finding = (await installed.examine())["claims"]
    assert (finding.status, "people were over" in finding.result) == (Status.OK, False)
    installed.box.clerk.delete_user("user_large_2")
    finding = (await installed.examine())["claims"]  # who has most now may not be among the ten
    assert (finding.status, "user_large_2" in finding.result) == (Status.OK, False)


async def test_others_than_the_users_updated_last_are_rendered_too(installed: Installation) -> None:
    installed.box.clerk.add_user("user_old", public_metadata={"plan": "pro"}, created_at=1, updated_at=1)
    await installed.publish("ent-old", clerkUserId="user_old", role="student")
    await reconcile(installed.settings)
    installed.box.clerk.update_user("user_1", public_metadata={"plan": "pro"})
    for number in range(SAMPLE):
        installed.box.clerk.add_user(f"user_new_{number}")
    async with open_installation(installed.settings, {}, RUNTIME) as examined:
        seen = {
            person.observed["user"].subject.id
            for seed in range(20)
            for person in await people_checks.some_people(examined, Random(seed))
        }
    assert seen == {"user_old", "user_1"}


@pytest.fixture
def groq(installed: Installation, tmp_path: Path) -> Path:
    """The installation's own folder of queries."""
    folder = tmp_path / "groq"
    shutil.copytree(packaged_groq(), folder)
    installed.reconfigure(groq_dir=folder)
    return folder


@pytest.mark.parametrize(
    ("file", "change", "result"),
    [
        ("entitlement", ("  role,", '  "rolle": role,'), '"role" is missing'),
        ("entitlement", ("  role,", '  "role": [role],'), '"role" is a list, but must be a single value'),
        ("entitlement", ("  role,", "  role,,"), "Sanity answered 400"),
        ("by_subject", ("clerkUserId in $users", "clerkId in $users"), "by_subject.groq does not find it"),
        ("by_subject", ("clerkUserId in $users", "defined(clerkUserId)"), "for an empty list of subjects"),
        ("by_subject", ('"visible"', '"seen"'), 'did not return "visible" as a number'),
        ("everything", ('"remaining"', '"left"'), 'did not return "remaining" as a number'),
        ("changed", ('"changed"', '"rows"'), 'did not return "changed" as a list'),
        ("affected", ("*[", "*[["), "affected.groq: Sanity answered 400"),
        ("webhook_filter", ('"entitlement", ', ""), "webhook_filter.groq, line 1: it does not let ent-1 through"),
        (
            "webhook_projection",
            ('"after": after(){_type, clerkUserId,', '"after": after(){_type, clerkId,'),
            'webhook_projection.groq, line 13: "after" lacks clerkUserId, which ent-1 has',
        ),
        (
            "webhook_projection",
            ('"type": coalesce(after()._type, before()._type)', '"type": "access"'),
            'webhook_projection.groq, line 9: "type" of ent-1 is access, expected entitlement',
        ),
        ("webhook_projection", ('"v": 1,', '"v": 1,,'), "webhook_projection.groq: Sanity answered 400"),
    ],
)
async def test_a_query_with_the_wrong_result_is_named(
    installed: Installation, groq: Path, file: str, change: tuple[str, str], result: str
) -> None:
    text = (groq / f"{file}.groq").read_text()
    assert change[0] in text
    (groq / f"{file}.groq").write_text(text.replace(*change))
    findings = await installed.examine()
    assert "projection" in having(findings, Status.PROBLEM)
    assert result in findings["projection"].result


async def test_the_webhooks_files_do_not_matter_to_an_installation_that_listens(
    installed: Installation, groq: Path
) -> None:
    (groq / "webhook_projection.groq").write_text('{"v": 1}')
    assert (await installed.examine())["projection"].status is Status.PROBLEM
    installed.reconfigure(events="listen")
    assert (await installed.examine())["projection"].status is Status.OK


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
    assert await result_after(LAST_EVENT) == (Status.OK, "it last heard")


async def test_a_filter_that_only_a_webhook_can_evaluate_is_left_to_it(installed: Installation, groq: Path) -> None:
    text = (groq / "webhook_filter.groq").read_text()
    (groq / "webhook_filter.groq").write_text(f"({text}) && delta::changedAny((plan, courses))")
    assert (await installed.examine())["projection"].status is Status.OK


async def test_documents_that_are_refused_are_counted_and_the_first_is_named(installed: Installation) -> None:
    await installed.publish("ent-2", status=7)
    await installed.publish("ent-3", status="active")
    finding = (await installed.examine())["projection"]
    assert finding.status is Status.WARNING
    assert "1 of 3 rows are refused; the first is ent-2: status:" in finding.result


async def doctor(installed: Installation, folder: Path, *arguments: str, **environment: str) -> Ended:
    given = settings_for(installed.box, installed.settings.database_url)
    given["SANITY_MANAGE_TOKEN"] = installed.box.lake.token
    return await run("doctor", *arguments, cwd=folder, environment={**given, **environment})


async def test_the_command_exits_with_0_when_all_is_well(installed: Installation, tmp_path: Path) -> None:
    ended = await doctor(installed, tmp_path, "--json")
    report = json.loads(ended.out)
    assert (ended.code, report["ok"], {check["status"] for check in report["checks"]}) == (0, True, {"ok"})
    assert [set(check) for check in report["checks"]] == [{"check", "status", "result", "fix"}] * len(CHECKS)


async def test_the_command_exits_with_1_on_a_problem_and_prints_the_fix(
    installed: Installation, tmp_path: Path
) -> None:
    await installed.change_hook(dataset="*")
    ended = await doctor(installed, tmp_path, COLUMNS="200")
    assert ended.code == 1
    assert "dataset is *, expected staging" in ended.out
    assert f"→ Run: SANITY_MANAGE_TOKEN=… sync-worker webhook install --url {installed.hook.url}" in ended.out


async def test_every_invalid_variable_is_named_and_the_rest_is_checked(installed: Installation, tmp_path: Path) -> None:
    wrong = {"PORT": "ninety", "SANITY_READ_TOKEN": "", "EXTRA_FIELDS": "features", "DYNO": "web.1", "DATABASE_URL": ""}
    ended = await doctor(installed, tmp_path, "--json", **wrong)
    checks = {check["check"]: check for check in json.loads(ended.out)["checks"]}
    assert ended.code == 1
    for variable in ("PORT", "SANITY_READ_TOKEN is not set", "EXTRA_FIELDS", "DATABASE_URL is not set"):
        assert variable in checks["settings"]["result"]
    assert checks["Clerk"]["status"] == "ok"
    assert checks["Sanity"]["result"] == "not checked: SANITY_READ_TOKEN is not set"
    assert "DATABASE_URL" in checks["database"]["result"]
    assert "Traceback" not in ended.err


async def test_without_any_setting_the_command_says_so(tmp_path: Path) -> None:
    ended = await run("doctor", cwd=tmp_path)
    assert ended.code == 1
    assert "CLERK_SECRET_KEY is not" in " ".join(ended.out.split())


async def test_no_secret_is_printed(installed: Installation, tmp_path: Path) -> None:
    await installed.change_hook(secret="planted-secret")
    ended = await doctor(installed, tmp_path, CLERK_SECRET_KEY="sk_test_planted")
    for secret in ("planted", SECRET, installed.box.lake.token, installed.box.clerk.secret_key):
        assert secret not in ended.out + ended.err


async def test_a_variable_that_is_no_setting_is_a_warning(installed: Installation, tmp_path: Path) -> None:
    ended = await doctor(installed, tmp_path, "--json", PLAN_ODER="free,pro")
    (check,) = [one for one in json.loads(ended.out)["checks"] if one["check"] == "settings"]
    assert (check["status"], check["result"]) == ("warning", "PLAN_ODER is not a setting; did you mean PLAN_ORDER?")

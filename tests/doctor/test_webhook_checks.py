"""What doctor says of the webhooks of Sanity and Clerk, and of what they delivered."""

from __future__ import annotations

import time
from typing import Any

import pytest

from sync_worker.cli.processes import SECRET, install_clerk_hook, install_hook
from sync_worker.doctor.runner import Status
from sync_worker.runtime.wiring import open_store
from sync_worker.sanity.client import Queries
from sync_worker.settings import packaged_groq
from sync_worker.webhooks.clerk_events import INSTANCE
from sync_worker.webhooks.receiver import BODY_LIMIT
from tests.doctor.installations import Installation, having, listening
from tests.parts import RUNTIME

pytestmark = pytest.mark.anyio


def webhook_projection() -> str:
    return Queries.load(packaged_groq()).webhook_projection


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

"""From a change of access back to the very webhook that led to it, on real processes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from sync_worker.cli.processes import install_clerk_hook
from sync_worker.sandbox.documents import AUTHOR
from sync_worker.transport import ssl_context
from tests import nursery
from tests.builders import publish
from tests.oracle import until, until_idle, wrong

if TYPE_CHECKING:
    from pathlib import Path

    from sync_worker.sandbox.server import Sandbox
    from tests.blackbox.conftest import Deployment

pytestmark = pytest.mark.anyio


def logged(deployment: Deployment, event: str, **given: Any) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in deployment.log.read_text().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event and given.items() <= line.items()]


async def changed(deployment: Deployment, subject: str) -> dict[str, Any]:
    """Wait until a change of the subject is in the log; return the newest one's line."""
    await until(lambda: bool(logged(deployment, "access_changed", subject=subject)))
    return logged(deployment, "access_changed", subject=subject)[-1]


def told_by(box: Sandbox, document: str) -> str:
    """Return the id of the newest message that Sanity sent about a document; empty before there is one."""
    messages = [m for m in box.lake.webhooks.deliveries.messages if json.loads(m.body)["id"] == document]
    return messages[-1].id if messages else ""


async def test_a_change_names_the_delivery_that_led_to_it_and_so_does_the_history(
    box: Sandbox, deployment: Deployment, tmp_path: Path
) -> None:
    box.clerk.add_user("user_1")
    await publish(box, "e1", clerkUserId="user_1")
    line = await changed(deployment, "user:user_1")
    delivery = told_by(box, "e1")
    assert (line["cause"], line["delivery"]) == ("webhook:e1", delivery)
    (accepted,) = logged(deployment, "webhook_accepted", delivery=delivery)
    assert (accepted["source"], accepted["document"], accepted["operation"]) == ("sanity", "e1", "create")
    ended = await nursery.run("history", "--json", cwd=tmp_path, environment=deployment.environment)
    (entry,) = json.loads(ended.out)
    assert (entry["cause"], entry["delivery"], entry["by"]) == ("webhook:e1", delivery, AUTHOR)


async def test_the_way_over_an_address_keeps_the_delivery_and_counts_from_its_receipt(
    box: Sandbox, deployment: Deployment
) -> None:
    box.clerk.add_user("user_1", email="ada@example.org")
    box.clerk.faults.latency = 0.3  # to look the address up, and to read the user
    await publish(box, "e1", userEmail="ada@example.org")
    line = await changed(deployment, "user:user_1")
    assert (line["cause"], line["delivery"]) == ("webhook:e1", told_by(box, "e1"))
    assert line["queue_seconds"] > 0.85
    assert line["publish_latency_seconds"] >= line["queue_seconds"]


async def test_everybody_whom_a_changed_course_reaches_is_traced_to_its_delivery(
    box: Sandbox, deployment: Deployment
) -> None:
    course = {"_id": "c1", "_type": "course", "slug": {"current": "old"}}
    await box.lake.mutate([{"create": course}])
    for user in ("user_1", "user_2"):
        box.clerk.add_user(user)
        await publish(box, f"e-{user}", clerkUserId=user, courses=[{"_type": "reference", "_ref": "c1", "_key": "c1"}])
    await until(lambda: not wrong(box))
    await box.lake.hooks_idle()
    await until_idle(deployment.environment["DATABASE_URL"])
    created = told_by(box, "c1")
    await box.lake.mutate([{"patch": {"id": "c1", "set": {"slug.current": "new"}}}])
    await until(lambda: told_by(box, "c1") != created)
    led_to = {"cause": "document:c1", "delivery": told_by(box, "c1")}
    await until(lambda: len(logged(deployment, "access_changed", **led_to)) == 2)
    await until(lambda: bool(logged(deployment, "document_fanned_out", document="c1", delivery=led_to["delivery"])))


async def test_a_sign_up_is_traced_to_clerks_delivery(box: Sandbox, deployment: Deployment) -> None:
    install_clerk_hook(box, deployment.url)
    await publish(box, "e1", userEmail="ada@example.org")
    await until(lambda: bool(logged(deployment, "entitlement_pending", delivery=told_by(box, "e1"))))
    ada = box.clerk.add_user(email="ada@example.org")
    line = await changed(deployment, f"user:{ada}")
    assert line["cause"].startswith("clerk:user.")
    assert logged(deployment, "webhook_accepted", source="clerk", delivery=line["delivery"])


async def test_what_no_webhook_led_to_names_no_delivery(box: Sandbox, deployment: Deployment, tmp_path: Path) -> None:
    box.clerk.add_user("user_1")
    await publish(box, "e1", clerkUserId="user_1")
    await changed(deployment, "user:user_1")
    box.clerk.users["user_1"]["public_metadata"]["plan"] = "edited by hand"
    await nursery.run("sync", "user:user_1", cwd=tmp_path, environment=deployment.environment)
    ended = await nursery.run("history", "--json", cwd=tmp_path, environment=deployment.environment)
    reported = [(entry["cause"], entry["delivery"]) for entry in json.loads(ended.out)]
    assert reported == [("sync", ""), ("webhook:e1", told_by(box, "e1"))]


async def test_a_refused_webhook_is_traced_too_and_gets_no_reason(deployment: Deployment) -> None:
    async with httpx.AsyncClient(verify=ssl_context()) as client:
        response = await client.post(
            f"{deployment.url}/webhooks/sanity", content=b"{}", headers={"idempotency-key": '"quoted-1"'}
        )
    assert (response.status_code, response.json()) == (401, {"error": "bad_signature"})
    await until(lambda: bool(logged(deployment, "webhook_refused", delivery="quoted-1", source="sanity")))

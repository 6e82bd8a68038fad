from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sync_worker.sandbox.groq import GroqError
from sync_worker.sandbox.webhooks import POLICY, sign
from tests.oracle import GUARD, until

if TYPE_CHECKING:
    from sync_worker.sandbox.server import Sandbox
    from tests.sandbox.conftest import Receiver

FILTER = 'coalesce(after()._type, before()._type) == "entitlement"'
PROJECTION = """{
  "operation": delta::operation(), "dataset": sanity::dataset(), "id": coalesce(after()._id, before()._id),
  "before": before(){plan}, "after": after(){plan, "courses": courses[]->slug.current}
}"""
ENTITLEMENT = {"_id": "e", "_type": "entitlement", "plan": "pro"}
VECTORS = json.loads((Path(__file__).parents[1] / "data" / "sanity-signature.json").read_text())["vectors"]


def bodies(receiver: Receiver) -> list[Any]:
    return [json.loads(received.body) for received in receiver.received]


async def settled(box: Sandbox) -> None:
    async with asyncio.timeout(GUARD):
        await box.lake.hooks_idle()


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: str(vector["name"]))
def test_the_signature_is_what_sanitys_own_toolkit_makes(vector: dict[str, Any]) -> None:
    assert sign(vector["payload"].encode(), vector["secret"], vector["timestamp"]) == vector["header"]


@pytest.mark.anyio
async def test_a_change_is_projected_signed_and_sent_with_sanitys_headers(box: Sandbox, receiver: Receiver) -> None:
    hook = box.lake.add_hook(receiver.url, secret="s3cret", filter=FILTER, projection=PROJECTION)
    transaction_id = await box.lake.mutate([{"create": ENTITLEMENT}])
    await settled(box)
    (received,) = receiver.received
    assert json.loads(received.body) == {
        "operation": "create",
        "dataset": "production",
        "id": "e",
        "before": None,
        "after": {"plan": "pro", "courses": None},
    }
    signature = received.headers["sanity-webhook-signature"]
    assert sign(received.body, "s3cret", int(signature[2:15])) == signature
    assert received.headers.pop("idempotency-key")
    assert received.headers.pop("host")
    assert received.headers.pop("sanity-transaction-time").endswith("Z")
    assert received.headers == {
        "content-type": "application/json",
        "content-length": str(len(received.body)),
        "connection": "close",
        "accept-encoding": "gzip",
        "user-agent": "Sanity.io webhook delivery",
        "sanity-transaction-id": transaction_id,
        "sanity-dataset": "production",
        "sanity-project-id": "sandbox",
        "sanity-document-id": "e",
        "sanity-webhook-id": hook.id,
        "sanity-operation": "create",
        "sanity-webhook-signature": signature,
    }


@pytest.mark.anyio
async def test_a_delete_reports_what_was_before(box: Sandbox, receiver: Receiver) -> None:
    await box.lake.mutate([{"create": ENTITLEMENT}])
    box.lake.add_hook(receiver.url, filter=FILTER, projection=PROJECTION)
    await box.lake.mutate([{"delete": {"id": "e"}}])
    await settled(box)
    (body,) = bodies(receiver)
    assert (body["operation"], body["id"], body["before"], body["after"]) == ("delete", "e", {"plan": "pro"}, None)


@pytest.mark.anyio
async def test_without_a_projection_the_document_after_the_change_is_sent(box: Sandbox, receiver: Receiver) -> None:
    box.lake.add_hook(receiver.url)
    await box.lake.mutate([{"create": ENTITLEMENT}])
    await box.lake.mutate([{"delete": {"id": "e"}}])
    await settled(box)
    assert bodies(receiver)[0]["plan"] == "pro"
    assert bodies(receiver)[1] is None


@pytest.mark.anyio
async def test_bare_fields_are_those_of_the_document(box: Sandbox, receiver: Receiver) -> None:
    box.lake.add_hook(receiver.url, filter='_type == "entitlement" && plan == "pro"', projection="{_id, plan}")
    await box.lake.mutate([{"create": ENTITLEMENT}, {"create": {**ENTITLEMENT, "_id": "f", "plan": "free"}}])
    await settled(box)
    assert bodies(receiver) == [{"_id": "e", "plan": "pro"}]


@pytest.mark.anyio
async def test_each_document_of_a_transaction_is_one_message_with_the_same_transaction(
    box: Sandbox, receiver: Receiver
) -> None:
    box.lake.add_hook(receiver.url, projection="_id")
    await box.lake.mutate([{"create": {"_id": id_, "_type": "t"}} for id_ in "abc"])
    await settled(box)
    assert bodies(receiver) == ["a", "b", "c"]
    assert len({received.headers["sanity-transaction-id"] for received in receiver.received}) == 1
    assert len({received.headers["idempotency-key"] for received in receiver.received}) == 3


@pytest.mark.anyio
async def test_drafts_and_versions_are_sent_only_to_hooks_that_include_them(box: Sandbox, receiver: Receiver) -> None:
    box.lake.add_hook(receiver.url, projection="_id")
    await box.lake.mutate([{"create": {"_id": id_, "_type": "t"}} for id_ in ("drafts.a", "versions.r.a", "a")])
    await settled(box)
    assert bodies(receiver) == ["a"]
    box.lake.add_hook(receiver.url, projection="_id", on=["delete"], include_drafts=True)
    await box.lake.mutate([{"delete": {"id": "drafts.a"}}])
    await settled(box)
    assert bodies(receiver) == ["a", "drafts.a"]


@pytest.mark.anyio
async def test_a_hook_of_another_dataset_hears_nothing(box: Sandbox, receiver: Receiver) -> None:
    for dataset in ("staging", "*", "production"):
        box.lake.webhooks.add(url=receiver.url, dataset=dataset, projection=f'"{dataset}"')
    await box.lake.mutate([{"create": ENTITLEMENT}])
    await settled(box)
    assert sorted(bodies(receiver)) == ["*", "production"]


@pytest.mark.anyio
async def test_only_the_operations_of_the_trigger_are_sent(box: Sandbox, receiver: Receiver) -> None:
    box.lake.add_hook(receiver.url, projection="delta::operation()", on=["update"])
    await box.lake.mutate([{"create": ENTITLEMENT}])
    await box.lake.mutate([{"patch": {"id": "e", "set": {"plan": "x"}}}])
    await box.lake.mutate([{"delete": {"id": "e"}}])
    await settled(box)
    assert bodies(receiver) == ["update"]


@pytest.mark.anyio
async def test_the_webhook_is_out_before_the_index_has_the_change(box: Sandbox, receiver: Receiver) -> None:
    box.lake.add_hook(receiver.url, projection="_id")
    box.lake.lag = 30
    await box.lake.mutate([{"create": ENTITLEMENT}])
    await settled(box)
    assert bodies(receiver) == ["e"]
    assert await box.lake.query("count(*)") == 0


@pytest.mark.anyio
@pytest.mark.parametrize(("status", "tries"), [(400, 1), (401, 1), (404, 1), (301, 1), (429, 3), (500, 3), (503, 3)])
async def test_a_4xx_is_final_and_429_and_5xx_are_repeated(
    box: Sandbox, receiver: Receiver, status: int, tries: int
) -> None:
    box.lake.webhooks.deliveries.policy = replace(POLICY, retry_delays=(0.01, 0.01))
    receiver.statuses = [status] * 5
    box.lake.add_hook(receiver.url)
    await box.lake.mutate([{"create": ENTITLEMENT}])
    await settled(box)
    assert len(receiver.received) == tries
    assert len({received.headers["idempotency-key"] for received in receiver.received}) == 1
    assert box.lake.webhooks.deliveries.messages[-1].status == "failure"


@pytest.mark.anyio
async def test_a_receiver_that_is_away_is_tried_again(box: Sandbox) -> None:
    box.lake.webhooks.deliveries.policy = replace(POLICY, retry_delays=(0.01,))
    box.lake.add_hook("http://127.0.0.1:9/nobody")
    await box.lake.mutate([{"create": ENTITLEMENT}])
    await settled(box)
    attempts = box.lake.webhooks.deliveries.attempts
    assert [attempt["failureReason"] for attempt in attempts] == ["network", "network"]


def test_repetitions_go_on_for_half_an_hour() -> None:
    assert sum(POLICY.retry_delays) == 30 * 60


@pytest.mark.anyio
async def test_a_message_that_got_through_is_a_success(box: Sandbox, receiver: Receiver) -> None:
    box.lake.webhooks.deliveries.policy = replace(POLICY, retry_delays=(0.01,))
    receiver.statuses = [503]
    box.lake.add_hook(receiver.url)
    await box.lake.mutate([{"create": ENTITLEMENT}])
    await settled(box)
    (message,) = box.lake.webhooks.deliveries.messages
    assert (message.status, message.failures, message.result_code) == ("success", 1, 202)


@pytest.mark.anyio
async def test_one_request_of_a_hook_is_in_flight_at_a_time(box: Sandbox, receiver: Receiver) -> None:
    receiver.hold.clear()
    box.lake.add_hook(receiver.url, projection="_id")
    await box.lake.mutate([{"create": {"_id": id_, "_type": "t"}} for id_ in "abcd"])
    await box.lake.webhooks.matched()
    async with asyncio.timeout(GUARD):
        await receiver.arrived.wait()
    statuses = [message.status for message in box.lake.webhooks.deliveries.messages]
    assert statuses == ["sending", "queued", "queued", "queued"]
    receiver.hold.set()
    await settled(box)
    assert bodies(receiver) == ["a", "b", "c", "d"]


@pytest.mark.anyio
async def test_a_hook_can_send_several_requests_at_once(box: Sandbox, receiver: Receiver) -> None:
    receiver.hold.clear()
    box.lake.webhooks.deliveries.faults.at_once = 3
    box.lake.add_hook(receiver.url, projection="_id")
    await box.lake.mutate([{"create": {"_id": id_, "_type": "t"}} for id_ in "abcd"])
    await until(lambda: len(receiver.received) == 3)
    assert [message.status for message in box.lake.webhooks.deliveries.messages][-1] == "queued"
    receiver.hold.set()
    await settled(box)
    assert sorted(bodies(receiver)) == ["a", "b", "c", "d"]


@pytest.mark.anyio
async def test_disabling_a_hook_cancels_what_waits(box: Sandbox, receiver: Receiver) -> None:
    hook = box.lake.add_hook(receiver.url)
    box.lake.webhooks.deliveries.pause()
    await box.lake.mutate([{"create": ENTITLEMENT}])
    await box.lake.webhooks.matched()
    await box.lake.webhooks.change(hook.id, is_disabled_by_user=True)
    box.lake.webhooks.deliveries.resume()
    await settled(box)
    assert receiver.received == []
    assert box.lake.webhooks.deliveries.messages[-1].status == "failure"


@pytest.mark.anyio
async def test_paused_deliveries_go_out_on_resume(box: Sandbox, receiver: Receiver) -> None:
    box.lake.add_hook(receiver.url, projection="_id")
    box.lake.webhooks.deliveries.pause()
    await box.lake.mutate([{"create": ENTITLEMENT}])
    await box.lake.webhooks.matched()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await box.lake.hooks_idle()
    assert receiver.received == []
    box.lake.webhooks.deliveries.resume()
    await settled(box)
    assert bodies(receiver) == ["e"]


async def names_received(box: Sandbox, receiver: Receiver) -> list[str]:
    box.lake.add_hook(receiver.url, projection="_id")
    for number in range(40):
        await box.lake.mutate([{"create": {"_id": f"{number:02}", "_type": "t"}}])
    await settled(box)
    return bodies(receiver)


ALL = [f"{number:02}" for number in range(40)]


@pytest.mark.anyio
async def test_some_messages_can_be_dropped(box: Sandbox, receiver: Receiver) -> None:
    box.lake.webhooks.deliveries.faults.drop = 0.5
    got = await names_received(box, receiver)
    assert 5 < len(got) < 35
    assert got == sorted(set(got))


@pytest.mark.anyio
async def test_some_messages_can_come_twice_with_the_same_key(box: Sandbox, receiver: Receiver) -> None:
    box.lake.webhooks.deliveries.faults.duplicate = 0.5
    got = await names_received(box, receiver)
    assert 45 < len(got) < 75
    assert sorted(set(got)) == ALL
    assert len({received.headers["idempotency-key"] for received in receiver.received}) == 40


@pytest.mark.anyio
async def test_some_messages_can_be_late_and_so_out_of_order(box: Sandbox, receiver: Receiver) -> None:
    box.lake.webhooks.deliveries.faults.delay = 0.5
    got = await names_received(box, receiver)
    assert got != ALL
    assert sorted(got) == ALL


@pytest.mark.anyio
async def test_a_filter_that_cannot_be_evaluated_is_not_silent(box: Sandbox, receiver: Receiver) -> None:
    box.lake.add_hook(receiver.url, filter="_type ==")
    await box.lake.mutate([{"create": ENTITLEMENT}])
    with pytest.raises(GroqError, match="Syntax error"):
        await settled(box)

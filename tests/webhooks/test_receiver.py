"""POST /webhooks/sanity, over ASGI and a real database."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from structlog.testing import capture_logs

from sync_worker.domain.revisions import Ambiguous, Deleted
from sync_worker.formatting import rfc3339
from sync_worker.storage.liveness import note_of
from sync_worker.webhooks.receiver import BODY_LIMIT, SANITY_ID
from sync_worker.webhooks.signatures import SANITY_HEADER, sign_sanity
from tests.clock import CLOCK
from tests.webhooks.receiver import MOMENT, SECRET, Web, delivery, serving

pytestmark = pytest.mark.anyio


async def test_both_people_of_a_move_are_enqueued_before_the_answer(web: Web) -> None:
    response = await web.post(delivery())
    assert (response.status_code, response.json()) == (202, {"ok": True})
    assert await web.enqueued() == ["user:user_a", "user:user_b"]


async def test_the_item_carries_what_a_later_read_must_reflect(web: Web) -> None:
    await web.post(delivery(operation="delete", after=None, updatedAt=rfc3339(CLOCK.now())))
    (claim,) = await web.queue.claim(0, 10, 30.0)
    (expected,) = claim.expected_revisions
    assert isinstance(expected, Deleted)
    assert (expected.document, expected.revision) == ("ent-1", "r2")


async def test_of_a_publish_whose_time_is_far_from_its_arrival_the_document_store_decides(web: Web) -> None:
    await web.post(delivery(after=None, updatedAt="2020-01-01T00:00:00Z"))
    (claim,) = await web.queue.claim(0, 10, 30.0)
    (expected,) = claim.expected_revisions
    assert isinstance(expected, Ambiguous)


async def test_a_document_that_changes_into_another_type_is_gone_for_its_former_owner(web: Web) -> None:
    before = {"_type": "entitlement", "clerkUserId": "user_a"}
    await web.post(delivery(type="plan", before=before, after={"_type": "plan"}))
    assert await web.enqueued() == ["document:ent-1", "user:user_a"]


@pytest.mark.parametrize("given", ["6f1c-A_9", '"6f1c-A_9"'])
async def test_the_item_carries_the_senders_id_of_the_delivery(web: Web, given: str) -> None:
    await web.post(delivery(), **{SANITY_ID: given})
    claims = await web.queue.claim(0, 10, 30.0)
    assert {(str(claim.cause), claim.delivery) for claim in claims} == {("webhook:ent-1", "6f1c-A_9")}


@pytest.mark.parametrize(
    "given",
    ["", '""', "a" * 65, "ada@example.com", "two words", "a#b", "ä", "sk_live_aB3", "whsec_aB3", "sk" + "a1" * 60],
)
async def test_an_id_that_is_not_fit_for_a_log_is_replaced_by_one_of_our_own(web: Web, given: str) -> None:
    await web.post(delivery(after=None), **{SANITY_ID: given.encode()})  # type: ignore[arg-type]  # httpx takes bytes
    (claim,) = await web.queue.claim(0, 10, 30.0)
    assert re.fullmatch(r"[0-9a-f]{16}", claim.delivery)


async def test_two_deliveries_without_an_id_get_different_ones(web: Web) -> None:
    with capture_logs() as logs:
        await web.post(delivery())
        await web.post(delivery())
    reported = [line["delivery"] for line in logs if line["event"] == "webhook_accepted"]
    assert len(set(reported)) == 2


async def test_a_changed_course_enqueues_one_row_however_many_hold_it(web: Web) -> None:
    await web.post(delivery(id="course-1", type="course", before={}, after={}))
    assert await web.enqueued() == ["document:course-1"]


@pytest.mark.parametrize("user", ["../organizations/org_1", "", None, 7, "user_1 user_2"])
async def test_an_entitlement_that_names_nobody_is_enqueued_as_a_document(web: Web, user: object) -> None:
    response = await web.post(delivery(before=None, after={"clerkUserId": user}))
    assert response.status_code == 202
    assert await web.enqueued() == ["document:ent-1"]


@pytest.mark.parametrize("fields", [{"userEmail": "a\0b@example.org"}, {"userExternalId": "crm\0-7"}])
async def test_an_address_with_a_character_that_no_database_takes_names_nobody(
    web: Web, fields: dict[str, str]
) -> None:
    response = await web.post(delivery(operation="delete", before=fields, after=None))
    assert response.status_code == 202
    assert await web.enqueued() == ["document:ent-1"]


@pytest.mark.parametrize(
    "unmanaged",
    [{"projectId": "p2"}, {"dataset": "staging"}, {"id": "drafts.ent-1"}, {"id": "versions.r1.ent-1"}],
)
async def test_what_is_not_for_this_installation_is_accepted_and_enqueues_nothing(
    web: Web, unmanaged: dict[str, Any]
) -> None:
    assert (await web.post(delivery(**unmanaged))).status_code == 202
    assert await web.enqueued() == []


async def test_a_delivery_that_comes_twice_is_enqueued_once(web: Web) -> None:
    await web.post(delivery())
    await web.post(delivery())
    assert await web.enqueued() == ["user:user_a", "user:user_b"]


async def test_the_time_of_sanitys_last_webhook_is_noted(web: Web) -> None:
    await web.post(delivery(), secret="another-secret")
    await web.post(delivery(dataset="staging"))
    assert await web.queue.recall(note_of("sanity")) is None
    await web.post(delivery())
    assert await web.queue.recall(note_of("sanity")) is not None


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {SANITY_HEADER: ""},
        {SANITY_HEADER: "t=1767225600000,v1=" + "A" * 43},
        {SANITY_HEADER: sign_sanity(json.dumps(delivery()).encode(), "another-secret", MOMENT)},
        {SANITY_HEADER: sign_sanity(b"another body", SECRET, MOMENT)},
    ],
)
async def test_without_a_good_signature_nothing_is_enqueued(web: Web, headers: dict[str, str]) -> None:
    response = await web.client.post("/webhooks/sanity", content=json.dumps(delivery()).encode(), headers=headers)
    assert (response.status_code, response.json()) == (401, {"error": "bad_signature"})
    assert await web.enqueued() == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"7",
        b"{",
        b"\xff",
        b"[" * 100_000,
        json.dumps(delivery(operation="publish")).encode(),
        json.dumps({k: v for k, v in delivery().items() if k != "id"}).encode(),
        json.dumps(delivery(before="x")).encode(),
    ],
)
async def test_a_signed_body_of_another_shape_is_400(web: Web, body: bytes) -> None:
    response = await web.post(body)
    assert (response.status_code, response.json()) == (400, {"error": "bad_body"})
    assert await web.enqueued() == []


async def test_a_body_over_the_limit_is_413_before_its_signature_is_looked_at(web: Web) -> None:
    response = await web.post(b" " * (BODY_LIMIT + 1), secret="wrong")
    assert (response.status_code, response.json()) == (413, {"error": "body_too_large"})


async def test_a_body_at_the_limit_is_read(web: Web) -> None:
    raw = json.dumps(delivery()).encode()
    assert (await web.post(raw + b" " * (BODY_LIMIT - len(raw)))).status_code == 202


async def test_other_methods_are_405(web: Web) -> None:
    assert (await web.client.get("/webhooks/sanity")).status_code == 405


async def test_without_a_secret_it_is_our_trouble_and_sanity_repeats(database_url: str) -> None:
    async with serving(database_url) as web:
        response = await web.client.post("/webhooks/sanity", content=b"{}")
    assert (response.status_code, response.headers["retry-after"]) == (503, "5")


async def test_a_closed_database_is_503_and_not_an_accepted_webhook(web: Web) -> None:
    await web.app.state.store.database.close()
    response = await web.post(delivery())
    assert (response.status_code, response.json()) == (503, {"error": "unavailable"})
    assert "retry-after" in response.headers


@pytest.mark.parametrize("path", ["/webhooks/sanity/", "/webhooks/clerk/"])
async def test_a_trailing_slash_is_the_same_route(web: Web, path: str) -> None:
    assert (await web.client.post(path, content=b"{}")).status_code != 404


async def test_a_webhook_to_a_wrong_path_is_logged_and_counted(web: Web) -> None:
    with capture_logs() as logs:
        assert (await web.client.post("/webhooks/santiy", content=b"{}")).status_code == 404
    assert [line["event"] for line in logs] == ["webhook_path_unknown"]


async def test_a_document_that_is_no_entitlement_any_more_takes_its_access_along(web: Web) -> None:
    await web.post(delivery(type="course"))
    assert await web.enqueued() == ["document:ent-1", "user:user_a", "user:user_b"]


async def test_an_entitlement_that_named_nobody_before_is_looked_at_as_a_document_too(web: Web) -> None:
    await web.post(delivery(before={"clerkUserId": "ada"}, after={"clerkUserId": "user_b"}))
    assert await web.enqueued() == ["document:ent-1", "user:user_b"]


@pytest.mark.parametrize("field", ["id", "rev", "updatedAt"])
async def test_a_nul_in_a_signed_body_is_400(web: Web, field: str) -> None:
    assert (await web.post(delivery(**{field: "x\x00y"}))).status_code == 400

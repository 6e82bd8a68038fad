"""POST /webhooks/sanity, /healthz and /readyz, over ASGI and a real database."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from structlog.testing import capture_logs

from sync_worker.domain.revisions import Ambiguous, Deleted
from sync_worker.formatting import rfc3339
from sync_worker.settings import Settings
from sync_worker.storage.liveness import note_of
from sync_worker.storage.reconcile_runs import GOOD
from sync_worker.storage.state import STOPPED
from sync_worker.web.app import create_app
from sync_worker.webhooks.receiver import BODY_LIMIT, SANITY_ID
from sync_worker.webhooks.signatures import SANITY_HEADER, sign_sanity
from tests.clock import CLOCK

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.applications import Starlette

    from sync_worker.storage.database import Row, Transaction
    from sync_worker.storage.queue import WorkQueue

pytestmark = pytest.mark.anyio
SECRET, MOMENT = "secret-of-a-webhook", 1_767_225_600_000


@dataclass(frozen=True)
class Web:
    """The application with its database, as a client sees it."""

    app: Starlette
    client: httpx.AsyncClient

    @property
    def queue(self) -> WorkQueue:
        found: WorkQueue = self.app.state.store.queue
        return found

    async def post(self, body: bytes | dict[str, Any], *, secret: str = SECRET, **headers: str) -> httpx.Response:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        signed = {SANITY_HEADER: sign_sanity(raw, secret, MOMENT), **headers}
        return await self.client.post("/webhooks/sanity", content=raw, headers=signed)

    async def marked(self) -> list[str]:
        claims = [
            claim
            for lane in (0, 1)
            for claim_some in (self.queue.claim, self.queue.claim_lookups)
            for claim in await claim_some(lane, 100, 30.0)
        ]
        return sorted(claim.key for claim in claims)


def settings(database_url: str, **given: Any) -> Settings:
    return Settings(
        _env_file=None,
        sanity_project_id="p1",
        sanity_read_token="t",
        sanity_webhook_secret=given.get("secrets", SECRET),
        clerk_secret_key="sk_test_1",
        database_url=database_url,
    )


@pytest.fixture
async def web(database_url: str) -> AsyncIterator[Web]:
    app = create_app(settings(database_url))
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            yield Web(app, client)


def delivery(**fields: Any) -> dict[str, Any]:
    return {
        "v": 1,
        "operation": "update",
        "projectId": "p1",
        "dataset": "production",
        "id": "ent-1",
        "type": "entitlement",
        "rev": "r2",
        "updatedAt": "2026-05-01T12:00:00Z",
        "before": {"clerkUserId": "user_a"},
        "after": {"clerkUserId": "user_b"},
        **fields,
    }


async def test_both_people_of_a_move_are_marked_before_the_answer(web: Web) -> None:
    response = await web.post(delivery())
    assert (response.status_code, response.json()) == (202, {"ok": True})
    assert await web.marked() == ["user:user_a", "user:user_b"]


async def test_the_mark_carries_what_a_later_read_must_show(web: Web) -> None:
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
    assert await web.marked() == ["document:ent-1", "user:user_a"]


@pytest.mark.parametrize("given", ["6f1c-A_9", '"6f1c-A_9"'])
async def test_the_mark_carries_the_senders_id_of_the_delivery(web: Web, given: str) -> None:
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


async def test_two_deliveries_without_an_id_are_told_apart(web: Web) -> None:
    with capture_logs() as logs:
        await web.post(delivery())
        await web.post(delivery())
    reported = [line["delivery"] for line in logs if line["event"] == "webhook_accepted"]
    assert len(set(reported)) == 2


async def test_a_changed_course_marks_one_row_however_many_hold_it(web: Web) -> None:
    await web.post(delivery(id="course-1", type="course", before={}, after={}))
    assert await web.marked() == ["document:course-1"]


@pytest.mark.parametrize("user", ["../organizations/org_1", "", None, 7, "user_1 user_2"])
async def test_an_entitlement_that_names_nobody_is_marked_as_a_document(web: Web, user: object) -> None:
    response = await web.post(delivery(before=None, after={"clerkUserId": user}))
    assert response.status_code == 202
    assert await web.marked() == ["document:ent-1"]


@pytest.mark.parametrize("fields", [{"userEmail": "a\0b@example.org"}, {"userExternalId": "crm\0-7"}])
async def test_an_address_with_a_character_that_no_database_takes_names_nobody(
    web: Web, fields: dict[str, str]
) -> None:
    response = await web.post(delivery(operation="delete", before=fields, after=None))
    assert response.status_code == 202
    assert await web.marked() == ["document:ent-1"]


@pytest.mark.parametrize(
    "unmanaged",
    [{"projectId": "p2"}, {"dataset": "staging"}, {"id": "drafts.ent-1"}, {"id": "versions.r1.ent-1"}],
)
async def test_what_is_not_for_this_installation_is_accepted_and_enqueues_nothing(
    web: Web, unmanaged: dict[str, Any]
) -> None:
    assert (await web.post(delivery(**unmanaged))).status_code == 202
    assert await web.marked() == []


async def test_a_delivery_that_comes_twice_is_marked_once(web: Web) -> None:
    await web.post(delivery())
    await web.post(delivery())
    assert await web.marked() == ["user:user_a", "user:user_b"]


async def test_it_is_noted_when_sanity_was_last_heard(web: Web) -> None:
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
async def test_without_a_good_signature_nothing_is_marked(web: Web, headers: dict[str, str]) -> None:
    response = await web.client.post("/webhooks/sanity", content=json.dumps(delivery()).encode(), headers=headers)
    assert (response.status_code, response.json()) == (401, {"error": "bad_signature"})
    assert await web.marked() == []


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
    assert await web.marked() == []


async def test_a_body_over_the_limit_is_413_before_its_signature_is_looked_at(web: Web) -> None:
    response = await web.post(b" " * (BODY_LIMIT + 1), secret="wrong")
    assert (response.status_code, response.json()) == (413, {"error": "body_too_large"})


async def test_a_body_at_the_limit_is_read(web: Web) -> None:
    raw = json.dumps(delivery()).encode()
    assert (await web.post(raw + b" " * (BODY_LIMIT - len(raw)))).status_code == 202


async def test_other_methods_are_405(web: Web) -> None:
    assert (await web.client.get("/webhooks/sanity")).status_code == 405


async def test_without_a_secret_it_is_our_trouble_and_sanity_repeats(database_url: str) -> None:
    app = create_app(settings(database_url, secrets=()))
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1")
    async with app.router.lifespan_context(app), client:
        response = await client.post("/webhooks/sanity", content=b"{}")
    assert (response.status_code, response.headers["retry-after"]) == (503, "5")


async def test_a_closed_database_is_503_and_not_an_accepted_webhook(web: Web) -> None:
    await web.app.state.store.database.close()
    response = await web.post(delivery())
    assert (response.status_code, response.json()) == (503, {"error": "unavailable"})
    assert "retry-after" in response.headers


async def test_healthz_needs_no_database(web: Web) -> None:
    await web.app.state.store.database.close()
    assert (await web.client.get("/healthz")).status_code == 200


async def test_readyz_says_that_no_worker_is_there(web: Web) -> None:
    response = await web.client.get("/readyz")
    checks = response.json()["checks"]
    assert response.status_code == 503
    assert {name: check["ok"] for name, check in checks.items()} == {
        "database": True,
        "worker": False,
        "reconcile": False,
    }


async def test_readyz_is_503_until_a_first_reconcile_has_succeeded(web: Web) -> None:
    await web.queue.remember("heartbeat", "w1")
    assert (await web.client.get("/readyz")).status_code == 503
    await web.queue.remember(GOOD, "{}")
    assert (await web.client.get("/readyz")).status_code == 200


async def test_readyz_is_503_while_a_refused_key_stops_the_worker(web: Web) -> None:
    for name, value in (("heartbeat", "w1"), (GOOD, "{}"), (STOPPED, "credentials_refused")):
        await web.queue.remember(name, value)
    checks = (await web.client.get("/readyz")).json()["checks"]
    assert (checks["worker"]["ok"], checks["worker"]["reason"]) == (False, "credentials_refused")


@pytest.mark.parametrize("path", ["/webhooks/sanity/", "/webhooks/clerk/"])
async def test_a_trailing_slash_is_the_same_route(web: Web, path: str) -> None:
    assert (await web.client.post(path, content=b"{}")).status_code != 404


async def test_a_webhook_to_a_wrong_path_is_logged_and_counted(web: Web) -> None:
    with capture_logs() as logs:
        assert (await web.client.post("/webhooks/santiy", content=b"{}")).status_code == 404
    assert [line["event"] for line in logs] == ["webhook_path_unknown"]


async def test_a_request_of_readyz_writes_nothing(web: Web) -> None:
    def rows(tx: Transaction) -> list[Row]:
        return tx.execute("SELECT name, value, at FROM state ORDER BY name")

    before = await web.app.state.store.database.read(rows)
    await web.client.get("/readyz")
    assert await web.app.state.store.database.read(rows) == before


async def test_readyz_tries_a_write_after_one_has_failed(web: Web) -> None:
    web.app.state.store.database.write_failed = True
    for _ in range(2):
        await web.client.get("/readyz")
    written = await web.queue.recall("readyz")
    assert written is not None
    await web.client.get("/readyz")
    assert await web.queue.recall("readyz") == written


async def test_readyz_says_when_the_database_is_gone(web: Web) -> None:
    await web.app.state.store.database.close()
    response = await web.client.get("/readyz")
    assert response.status_code == 503
    assert response.json()["checks"]["database"]["ok"] is False


async def test_a_document_that_is_no_entitlement_any_more_takes_its_access_along(web: Web) -> None:
    await web.post(delivery(type="course"))
    assert await web.marked() == ["document:ent-1", "user:user_a", "user:user_b"]


async def test_an_entitlement_that_named_nobody_before_is_looked_at_as_a_document_too(web: Web) -> None:
    await web.post(delivery(before={"clerkUserId": "ada"}, after={"clerkUserId": "user_b"}))
    assert await web.marked() == ["document:ent-1", "user:user_b"]


@pytest.mark.parametrize("field", ["id", "rev", "updatedAt"])
async def test_a_nul_in_a_signed_body_is_400(web: Web, field: str) -> None:
    assert (await web.post(delivery(**{field: "x\x00y"}))).status_code == 400


async def test_other_paths_are_404_by_name(web: Web) -> None:
    response = await web.client.get("/nothing")
    assert (response.status_code, response.json()) == (404, {"error": "not_found"})


async def test_metrics_tell_what_was_answered_and_what_waits(web: Web) -> None:
    await web.post(delivery())
    await web.post(delivery(), secret="wrong")
    await web.queue.count({"missed_webhooks": 2})
    await web.queue.count({"missed_webhooks": 1})
    lines = (await web.client.get("/metrics")).text.splitlines()
    assert 'sync_worker_webhooks_total{answer="accepted",source="sanity"} 1.0' in lines
    assert 'sync_worker_webhooks_total{answer="bad_signature",source="sanity"} 1.0' in lines
    assert 'sync_worker_due{lane="0"} 2.0' in lines
    assert "sync_worker_missed_webhooks 3.0" in lines


async def test_metrics_of_a_database_that_is_gone_are_503(web: Web) -> None:
    await web.app.state.store.database.close()
    assert (await web.client.get("/metrics")).status_code == 503

"""/healthz, /readyz and /metrics, over ASGI and a real database."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sync_worker.storage.reconcile_runs import GOOD
from sync_worker.storage.state import STOPPED
from tests.webhooks.receiver import Web, delivery

if TYPE_CHECKING:
    from sync_worker.storage.database import Row, Transaction

pytestmark = pytest.mark.anyio


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


async def test_other_paths_are_404_by_name(web: Web) -> None:
    response = await web.client.get("/nothing")
    assert (response.status_code, response.json()) == (404, {"error": "not_found"})


async def test_metrics_count_what_was_answered_and_what_waits(web: Web) -> None:
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

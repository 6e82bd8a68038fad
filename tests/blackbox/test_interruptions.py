"""Processes that are killed or stopped in the middle, and a database that goes away: nothing accepted is lost."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from typing import TYPE_CHECKING

import httpx
import pytest

from sync_worker.cli.processes import SECRET, free_port, install_hook, settings_for
from sync_worker.webhooks.signatures import SANITY_HEADER, sign_sanity
from tests.builders import created, reference
from tests.nursery import listening, process, until_up
from tests.oracle import GUARD, until, wrong

if TYPE_CHECKING:
    from pathlib import Path

    from sync_worker.sandbox.server import Sandbox
    from tests.postgres_server import PostgresServer

pytestmark = pytest.mark.anyio


on_each_database = pytest.mark.parametrize(
    "database_url",
    ["sqlite_url", pytest.param("postgres_url", marks=pytest.mark.full("the same on PostgreSQL"))],
    indirect=True,
)


@pytest.mark.full("tests/crash/test_matrix.py leaves accepted work to the next process in the quick run")
async def test_what_a_web_process_accepted_is_done_by_the_next_one(
    box: Sandbox, database_url: str, tmp_path: Path
) -> None:
    environment, log = settings_for(box, database_url), tmp_path / "log"
    box.clerk.add_user("user_1")
    async with listening("web", environment, log) as url:
        install_hook(box, url)
        await box.lake.mutate([created("e1", "user_1", plan="pro")])
        await box.lake.hooks_idle()
    assert wrong(box) == ["user_1"]
    async with process("worker", environment, log):
        await until(lambda: not wrong(box))


@pytest.mark.full("300 people; tests/crash/test_matrix.py kills at each effect of a fan-out in the quick run")
async def test_a_worker_killed_in_the_middle_of_a_fan_out_leaves_nobody_behind(
    box: Sandbox, database_url: str, tmp_path: Path
) -> None:
    environment = {**settings_for(box, database_url), "CLERK_BUDGET": "100000"}
    log = tmp_path / "log"
    users = [box.clerk.add_user(f"user_{n:04}") for n in range(300)]
    await box.lake.mutate(
        [
            {"create": {"_id": "course-0", "_type": "course", "slug": {"current": "old"}}},
            *(created(f"ent-{u}", u, courses=[reference("course-0")]) for u in users),
        ]
    )
    async with listening("web", environment, log) as url:
        install_hook(box, url)
        await box.lake.mutate([{"patch": {"id": "course-0", "set": {"slug.current": "new"}}}])
        await box.lake.hooks_idle()
        box.clerk.faults.hold(method="PATCH")
        async with process("worker", environment, log) as first:
            await until(lambda: box.clerk.faults.held > 0)
            first.kill()
            await first.wait()
        box.clerk.faults.release()
        assert wrong(box)
        async with process("worker", environment, log):
            await until(lambda: not wrong(box))


@on_each_database
async def test_a_worker_that_is_stopped_finishes_what_is_in_flight(
    box: Sandbox, database_url: str, tmp_path: Path
) -> None:
    environment, log = settings_for(box, database_url), tmp_path / "log"
    box.clerk.add_user("user_1")
    box.clerk.faults.hold(method="PATCH")
    async with listening("web", environment, log) as url:
        install_hook(box, url)
        async with process("worker", environment, log) as worker:
            await box.lake.mutate([created("e1", "user_1", plan="pro")])
            await until(lambda: box.clerk.faults.held == 1)
            worker.send_signal(signal.SIGTERM)
            await until(lambda: '"draining"' in log.read_text())
            box.clerk.faults.release()
            assert await asyncio.wait_for(worker.wait(), GUARD) == 0
    assert not wrong(box)


@pytest.mark.full("waits as long as requests in flight may take at a stop")
async def test_a_stop_ends_with_0_even_while_a_request_hangs(box: Sandbox, sqlite_url: str, tmp_path: Path) -> None:
    log, port = tmp_path / "log", free_port()
    async with process("serve", settings_for(box, sqlite_url), log, "--port", str(port)) as running:
        await until_up(f"http://127.0.0.1:{port}", running, log)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            b"POST /webhooks/sanity HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\nabc"
        )
        assert b"100 Continue" in await reader.readline()  # it waits for the rest
        running.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(running.wait(), GUARD) == 0
        writer.close()


async def test_a_database_that_is_gone_is_503_and_the_delivery_works_when_it_is_back(
    box: Sandbox, own_server: PostgresServer, tmp_path: Path
) -> None:
    body = json.dumps(
        {
            "operation": "create",
            "projectId": box.lake.project_id,
            "dataset": box.lake.dataset,
            "id": "e1",
            "type": "entitlement",
            "rev": "r1",
            "updatedAt": "2026-05-01T12:00:00Z",
            "before": None,
            "after": {"clerkUserId": "user_1"},
        }
    ).encode()
    headers = {SANITY_HEADER: sign_sanity(body, SECRET, int(time.time() * 1000))}
    environment = settings_for(box, own_server.url)
    async with listening("serve", environment, tmp_path / "log") as web, httpx.AsyncClient(timeout=GUARD) as client:

        async def deliver() -> httpx.Response:
            return await client.post(f"{web}/webhooks/sanity", content=body, headers=headers)

        assert (await deliver()).status_code == 202
        own_server.stop()
        refused = await deliver()
        assert (refused.status_code, "retry-after" in refused.headers) == (503, True)
        assert (await client.get(f"{web}/readyz")).status_code == 503
        own_server.start()
        assert (await deliver()).status_code == 202


@pytest.mark.full("a mistake of an operator, which costs nobody anything")
async def test_two_processes_on_one_port_are_distinguished(box: Sandbox, sqlite_url: str, tmp_path: Path) -> None:
    log, port = tmp_path / "log", str(free_port())
    environment = settings_for(box, sqlite_url)
    async with process("web", environment, log, "--port", port) as first:
        await until_up(f"http://127.0.0.1:{port}", first, log)
        async with process("web", environment, tmp_path / "second", "--port", port) as second:
            assert await asyncio.wait_for(second.wait(), GUARD) == 1
        assert first.returncode is None

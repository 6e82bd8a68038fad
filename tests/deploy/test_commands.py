"""What the kits start does the work: their own commands as processes, with the environment that a platform gives."""

from __future__ import annotations

import asyncio
import json
import signal
from typing import TYPE_CHECKING

import httpx
import pytest

from sync_worker.cli.processes import free_port, install_hook, settings_for
from sync_worker.transport import ssl_context
from tests import kits
from tests.nursery import process, run
from tests.oracle import GUARD, until

if TYPE_CHECKING:
    from pathlib import Path

    from sync_worker.sandbox.server import Sandbox

pytestmark = pytest.mark.anyio
LOOPBACK = ("--host", "127.0.0.1")  # the last one counts: a test listens to this machine alone


async def answers(url: str) -> None:
    async with httpx.AsyncClient(verify=ssl_context(), timeout=5) as client:
        for _ in range(400):
            try:
                if (await client.get(url)).is_success:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.05)
    pytest.fail(f"{url} does not answer")


PLATFORMS = ("heroku", "render", "fly", "compose", "kubernetes")


def commands(platform: str) -> dict[str, list[str]]:
    """Return what a platform starts, by verb."""
    return {start.arguments[0]: start.arguments for start in kits.starts() if start.kit.startswith(platform)}


def test_every_platform_with_two_kinds_of_processes_starts_the_same() -> None:
    pairs = [(commands(platform)["web"], commands(platform)["worker"]) for platform in PLATFORMS]
    assert pairs == [pairs[0]] * len(PLATFORMS)
    assert commands("render")["reconcile"] == commands("kubernetes")["reconcile"]


async def test_release_web_worker_and_reconcile_bring_a_publish_to_clerk_and_end_well(
    box: Sandbox, postgres_url: str, tmp_path: Path
) -> None:
    started = {**commands("heroku"), **commands("render")}
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environment = {
        **settings_for(box, postgres_url.replace("postgresql://", "postgres://")),  # as Heroku writes it
        "PORT": str(port),
        "DYNO": "web.1",
    }
    released = await run(*started["release"], cwd=tmp_path, environment=environment)
    assert released.code == 0, released.err
    user = box.clerk.users[box.clerk.add_user("user_ada")]
    async with (
        process("web", environment, tmp_path / "web.log", *started["web"][1:], *LOOPBACK) as web,
        process("worker", environment, tmp_path / "worker.log", *started["worker"][1:]) as worker,
    ):
        await answers(f"{url}/healthz")
        install_hook(box, url)
        row = {"_id": "e", "_type": "entitlement", "clerkUserId": "user_ada", "plan": "pro"}
        await box.lake.mutate([{"create": row}])
        await until(lambda: user["public_metadata"].get("plan") == "pro")
        reconciled = await run(*started["reconcile"], cwd=tmp_path, environment=environment)
        assert reconciled.code == 0, reconciled.err
        assert json.loads(reconciled.out)["unchanged"] == 1
        await answers(f"{url}/readyz")
        for running in (web, worker):
            running.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(running.wait(), GUARD) == 0

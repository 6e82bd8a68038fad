"""Runs `sync-worker` processes against the sandbox, for the demo, the tests and the benchmarks."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import sys
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import httpx

from sync_worker.cli.output import CommandFailed
from sync_worker.sandbox.clerk_webhooks import Endpoint
from sync_worker.sanity.client import Queries
from sync_worker.settings import packaged_groq

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from sync_worker.domain.clock import Clock
    from sync_worker.sandbox.server import Sandbox
    from sync_worker.sandbox.webhooks import Hook

SECRET = "sandbox-webhook-secret"  # noqa: S105 - only for servers on this machine
CLERK_SECRET = "whsec_c2FuZGJveC1jbGVyay13ZWJob29rLXNlY3JldA=="  # noqa: S105 - likewise
FIRST_PORT, PORTS = 20_000, 12_000
"""Below the ephemeral ports of every system: Linux's begin at 32768."""
START_SECONDS = 20.0
STOP_SECONDS = 30.0


def settings_for(box: Sandbox, database_url: str) -> dict[str, str]:
    """Return the environment that points a worker at the sandbox."""
    return {
        "SANITY_PROJECT_ID": box.lake.project_id,
        "SANITY_DATASET": box.lake.dataset,
        "SANITY_READ_TOKEN": box.lake.viewer_token,
        "SANITY_WEBHOOK_SECRET": SECRET,
        "SANITY_API_URL": box.sanity_url,
        "CLERK_SECRET_KEY": box.clerk.secret_key,
        "CLERK_API_URL": box.clerk_url,
        "CLERK_WEBHOOK_SECRET": CLERK_SECRET,
        "DATABASE_URL": database_url,
    }


def install_hook(box: Sandbox, url: str, secret: str = SECRET) -> Hook:
    """Create the webhook that `sync-worker webhook show` prints."""
    queries = Queries.load(packaged_groq())
    return box.lake.add_hook(
        url=f"{url}/webhooks/sanity",
        secret=secret,
        filter=queries.webhook_filter,
        projection=queries.webhook_projection,
    )


def install_clerk_hook(box: Sandbox, url: str) -> None:
    """Subscribe the worker to Clerk's events."""
    box.clerk.webhooks.endpoints.append(Endpoint(f"{url}/webhooks/clerk", CLERK_SECRET))


def free_port() -> int:
    """Return a port that nobody uses now. The system gives none of these to a program that asks for any port."""
    while True:
        port = FIRST_PORT + secrets.randbelow(PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@asynccontextmanager
async def process(
    verb: str, environment: Mapping[str, str], log: Path, *arguments: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run one `sync-worker` process. At the end of the block it is terminated, and killed if it does not stop."""
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    with log.open("a") as output:
        running = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "sync_worker", verb, *arguments),
            env={**inherited, "LOG_FORMAT": "json", **environment},
            stdout=output,
            stderr=output,
            cwd=log.parent,
        )
    try:
        yield running
    finally:
        await _stop(running)


@asynccontextmanager
async def listening(verb: str, environment: Mapping[str, str], log: Path, clock: Clock) -> AsyncIterator[str]:
    """Run `serve` or `web`, and yield its URL once it responds."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    async with process(verb, environment, log, "--port", str(port)) as running:
        await _until_up(url, running, log, clock)
        yield url


async def _stop(running: asyncio.subprocess.Process) -> None:
    if running.returncode is not None:
        return
    running.terminate()
    try:
        await asyncio.wait_for(running.wait(), STOP_SECONDS)
    except TimeoutError:
        running.kill()
        await running.wait()


async def _until_up(url: str, running: asyncio.subprocess.Process, log: Path, clock: Clock) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(START_SECONDS), httpx.AsyncClient(trust_env=False) as client:
            while running.returncode is None:
                try:
                    if (await client.get(f"{url}/healthz")).is_success:
                        return
                except httpx.TransportError:
                    await clock.sleep(0.02)
    raise CommandFailed(f"the worker did not start; the last line of its log: {_last_line(log)}")


def _last_line(log: Path) -> str:
    return log.read_text().strip().rpartition("\n")[2] or "nothing"

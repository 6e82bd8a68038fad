"""The sandbox as its own process, as `python -m sync_worker.sandbox` starts it."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE

import httpx
import pytest

from sync_worker.transport import ssl_context
from tests.oracle import GUARD


@pytest.mark.anyio
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_shows_its_addresses_serves_and_ends_on_a_signal(number: signal.Signals) -> None:
    command = [sys.executable, "-m", "sync_worker.sandbox", "--sample"]
    process = await asyncio.create_subprocess_exec(*command, stdin=DEVNULL, stdout=PIPE)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(GUARD):
            where = json.loads(await process.stdout.readline())
            async with httpx.AsyncClient(verify=ssl_context(), trust_env=False) as client:
                rows = await client.get(
                    f"{where['sanity_url']}/v2025-02-19/data/query/{where['dataset']}",
                    params={"query": 'count(*[_type == "entitlement"])'},
                    headers={"authorization": f"Bearer {where['sanity_read_token']}"},
                )
                users = await client.get(
                    f"{where['clerk_url']}/v1/users",
                    headers={"authorization": f"Bearer {where['clerk_secret_key']}"},
                )
            process.send_signal(number)
            code = await process.wait()
            rest = await process.stdout.read()
    finally:
        if process.returncode is None:
            process.kill()
    assert rows.json()["result"] > 5
    assert len(users.json()) == 5
    assert (code, rest) == (0, b"")

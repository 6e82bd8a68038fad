"""`make demo-studio`: it says where everything is, and Ctrl-C ends all of it."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx
import pytest

from sync_worker.cli.processes import free_port
from tests.deploy.stage import STUDIO, VITE
from tests.kits import ROOT
from tests.oracle import GUARD

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.kit,
    pytest.mark.full("a sandbox, a worker and the server of a Studio"),
    pytest.mark.skipif(not VITE.exists(), reason="Sanity's packages are not installed; run npm ci in deploy/studio"),
]


@asynccontextmanager
async def played(port: int) -> AsyncIterator[Process]:
    demo = await asyncio.create_subprocess_exec(
        *(sys.executable, STUDIO / "demo" / "play.py"),
        env={"PORT": str(port), "PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield demo
    finally:
        if demo.returncode is None:
            demo.terminate()
            await demo.wait()


async def test_it_says_where_all_is_and_ends_with_ctrl_c() -> None:
    port = free_port()
    async with played(port) as demo:
        assert demo.stdout is not None
        async with asyncio.timeout(GUARD):
            said = (await demo.stdout.readuntil(b"Ctrl-C ends everything.\n")).decode()
        assert said.startswith(f"Studio: http://localhost:{port}\n")
        worker = re.search(r"Worker: (http\S+)/status", said)
        assert worker is not None
        async with httpx.AsyncClient() as browser:
            assert (await browser.get(f"http://127.0.0.1:{port}/ports")).status_code == 200
            assert (await browser.get(f"{worker[1]}/healthz")).status_code == 200
        demo.send_signal(signal.SIGINT)
        _, errors = await asyncio.wait_for(demo.communicate(), GUARD)
        assert (demo.returncode, errors) == (0, b"")
    for where in (port, int(worker[1].rpartition(":")[2])):
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", where)


async def test_a_port_in_use_is_said_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with played(port) as demo:
            said, errors = await asyncio.wait_for(demo.communicate(), GUARD)
    assert (demo.returncode, said) == (1, b"")
    assert errors.decode() == f"Port {port} is in use. Choose another one: make demo-studio PORT=3336\n"

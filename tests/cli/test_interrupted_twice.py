"""A second Ctrl-C ends `serve` at once, and without a trace."""

from __future__ import annotations

import asyncio
import signal
import socket
from typing import TYPE_CHECKING

import pytest

from sync_worker.cli.processes import free_port, process, settings_for
from tests.oracle import GUARD, until

if TYPE_CHECKING:
    from pathlib import Path

    from sync_worker.sandbox.server import Sandbox

pytestmark = pytest.mark.anyio
SLOW = b"POST /webhooks/sanity HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"


def is_open(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


async def test_a_second_interrupt_leaves_no_trace(box: Sandbox, sqlite_url: str, tmp_path: Path) -> None:
    log, port = tmp_path / "log", free_port()
    async with process("serve", settings_for(box, sqlite_url), log, "--port", str(port)) as running:
        await until(lambda: "worker_started" in log.read_text())
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(SLOW)  # the first stop waits for its end
        await writer.drain()
        running.send_signal(signal.SIGINT)
        await until(lambda: not is_open(port))
        running.send_signal(signal.SIGINT)
        await asyncio.wait_for(running.wait(), GUARD)
        writer.close()
    assert "Traceback" not in log.read_text()

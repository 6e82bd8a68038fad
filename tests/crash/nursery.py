"""Starts `sync-worker` processes that have imported everything already: they are forked from one that has.

Why it exists: tests here start processes by the hundred, and two thirds of a second of imports each would be most of
their time. A child is a process of its own in every other way: its environment, its log, its folder, its end.
"""

from __future__ import annotations

import asyncio
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from tests.crash.trouble import Trouble

ROOT = Path(__file__).parents[2]
START_SECONDS = 20.0
STOP_SECONDS = 30.0


@dataclass
class Child:
    """A process of the nursery; `returncode` is None while it lives, and minus the signal when one ended it."""

    pid: int
    returncode: int | None = None
    _ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def watch(self, reader: asyncio.StreamReader) -> None:
        """Learn how it ended from the nursery, which is its parent."""
        self.returncode = int(await reader.readline())
        self._ended.set()

    async def wait(self) -> int:
        await self._ended.wait()
        assert self.returncode is not None
        return self.returncode

    def send(self, signal_: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal_)

    def kill(self) -> None:
        self.send(signal.SIGKILL)

    async def stop(self) -> None:
        """Ask it to end; kill it when it does not."""
        if self.returncode is not None:
            return
        self.send(signal.SIGTERM)
        try:
            await asyncio.wait_for(self.wait(), STOP_SECONDS)
        except TimeoutError:
            self.kill()
            await self.wait()


class Nursery:
    """The process that forks, as long as the test session lives."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="nursery"))
        self._socket = self._folder / "socket"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.nursery", self._socket],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
        )
        deadline = time.monotonic() + START_SECONDS
        while not self._socket.exists():
            assert self._process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def close(self) -> None:
        self._process.communicate()
        shutil.rmtree(self._folder)

    @asynccontextmanager
    async def child(
        self, arguments: list[str], environment: Mapping[str, str], log: Path, trouble: Trouble
    ) -> AsyncIterator[Child]:
        """Run one process; it is asked to stop at the end."""
        order = {
            "arguments": arguments,
            "environment": {"PATH": os.environ["PATH"], "LOG_FORMAT": "json", **environment},
            "log": str(log),
            "trouble": asdict(trouble),
        }
        reader, writer = await asyncio.open_unix_connection(self._socket)
        writer.write(json.dumps(order).encode() + b"\n")
        child = Child(int(await reader.readline()))
        watching = asyncio.create_task(child.watch(reader))
        try:
            yield child
        finally:
            await child.stop()
            await watching
            writer.close()
            await writer.wait_closed()


class Forks:
    """The other side: forks a child for each order that comes, and tells how it ended."""

    def __init__(self, path: str) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen()
        self._children: dict[int, tuple[int, socket.socket]] = {}

    def serve(self) -> dict[str, Any]:
        """Return the order, in each child. All end once whoever started this has closed our standard input, or died."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(sys.stdin, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fileobj is sys.stdin:
                        self._end()
                    elif key.fileobj is self._listener:
                        connection, _ = self._listener.accept()
                        with connection.makefile() as lines:
                            order: dict[str, Any] = json.loads(lines.readline())
                        pid = os.fork()
                        if pid == 0:
                            return order
                        handle = os.pidfd_open(pid)
                        self._children[handle] = pid, connection
                        selector.register(handle, selectors.EVENT_READ)
                        connection.sendall(b"%d\n" % pid)
                    else:
                        selector.unregister(key.fileobj)
                        self._reap(key.fd)

    def _reap(self, handle: int) -> None:
        os.close(handle)
        pid, connection = self._children.pop(handle)
        _, status = os.waitpid(pid, 0)
        with suppress(OSError), connection:
            connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))

    def _end(self) -> NoReturn:
        for pid, _ in self._children.values():
            os.kill(pid, signal.SIGKILL)
        sys.exit()


def main() -> None:
    """Load what every process needs, then become one of them again and again."""
    from clerk_backend_api import models  # noqa: PLC0415 - only the nursery needs it
    from uvicorn.protocols.http import httptools_impl  # noqa: PLC0415

    from sync_worker import cli  # noqa: PLC0415
    from tests.crash.trouble import Trouble, plant  # noqa: PLC0415

    _ = models.User, httptools_impl
    order = Forks(sys.argv[1]).serve()
    os.closerange(3, 1024)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    log = os.open(order["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for standard in (1, 2):
        os.dup2(log, standard)
    os.chdir(Path(order["log"]).parent)
    os.environ.clear()
    os.environ.update(order["environment"])
    plant(Trouble(**order["trouble"]))
    sys.argv = ["sync-worker", *order["arguments"]]
    cli.main()


if __name__ == "__main__":
    main()

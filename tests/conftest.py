"""What every test may use: one event loop, both stand-ins, and real databases.

A worker process of the run has one event loop and one sandbox, which is emptied between tests: starting a Node process
and two servers for each test would take longer than most tests do. One PostgreSQL server serves the whole run.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from psycopg.conninfo import conninfo_to_dict

from sync_worker.runtime.wiring import open_database
from sync_worker.sandbox.server import Sandbox
from sync_worker.settings import packaged_groq
from tests.clock import CLOCK, TIMINGS
from tests.garbage import collect_rarely
from tests.nursery import close_nursery, end_of
from tests.postgres_server import Migrated, PostgresServer, new_database, shared_server, stop_shared_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator, Iterator

# The same examples for every commit and in CI, so that a red test is about the change at hand. By hand the full run
# draws new ones.
settings.register_profile("quick", deadline=None, derandomize=True, max_examples=50, print_blob=True)
settings.register_profile("full", deadline=None, derandomize="CI" in os.environ, print_blob=True)

POSTGRES_FOLDER = pytest.StashKey[Path]()


def pytest_configure(config: pytest.Config) -> None:
    """Let all processes of a run know where their PostgreSQL server is, or will be when one of them needs it."""
    settings.load_profile("quick" if config.getoption("markexpr") == "not full" else "full")
    given = getattr(config, "workerinput", None)
    config.stash[POSTGRES_FOLDER] = Path(given["postgres_folder"] if given else tempfile.mkdtemp(prefix="pg"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the full run draw more examples, also for tests that every commit runs with a few."""
    for item in items:
        if isinstance(item, pytest.Function) and hasattr(item.obj, "hypothesis"):
            item.add_marker("drawn")


def pytest_collection_finish() -> None:
    collect_rarely()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Two a core: a test waits for processes and databases for about half of its time."""
    return 2 * (os.cpu_count() or 1)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    node.workerinput["postgres_folder"] = str(node.config.stash[POSTGRES_FOLDER])


def pytest_unconfigure(config: pytest.Config) -> None:
    close_nursery()
    if not hasattr(config, "workerinput"):
        stop_shared_server(config.stash[POSTGRES_FOLDER])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let a test that failed show what its processes logged last."""
    report = yield
    folder = getattr(item, "funcargs", {}).get("tmp_path")
    if report.failed and folder is not None:
        logs = [log for log in (folder / "log", folder / "second") if log.is_file()]
        report.sections += [(f"end of {log}", end_of(log)) for log in logs]
    return report


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
async def shared_box() -> AsyncIterator[Sandbox]:
    """Both stand-ins, for as long as this process runs tests."""
    async with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture(scope="session")
async def shared_staging_box() -> AsyncIterator[Sandbox]:
    """Stand-ins of another dataset, for as long as this process runs tests."""
    async with Sandbox(dataset="staging") as sandbox:
        yield sandbox


@pytest.fixture
async def staging_box(shared_staging_box: Sandbox) -> AsyncIterator[Sandbox]:
    """Stand-ins of a dataset that is not called production, empty, for one test."""
    yield shared_staging_box
    await shared_staging_box.reset()


@pytest.fixture
async def box(shared_box: Sandbox) -> AsyncIterator[Sandbox]:
    """Both stand-ins, empty, for one test."""
    yield shared_box
    await shared_box.reset()


@pytest.fixture(scope="session")
def postgres_server_url(request: pytest.FixtureRequest) -> str:
    """The server of `DATABASE_URL_TEST`, or else one of our own that all worker processes of the run share."""
    return os.environ.get("DATABASE_URL_TEST") or shared_server(request.config.stash[POSTGRES_FOLDER])


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server that the test may stop and start."""
    server = PostgresServer()
    server.start()
    yield server
    server.remove()


@pytest.fixture(scope="session")
def migrated_template(postgres_server_url: str) -> Iterator[str]:
    """The name of a database with our tables; a copy of it is made faster than the tables are."""
    with new_database(postgres_server_url) as url:
        with ThreadPoolExecutor(1) as beside:  # the loop of the tests may be running here
            beside.submit(asyncio.run, _migrate(url)).result()
        yield str(conninfo_to_dict(url)["dbname"])


async def _migrate(url: str) -> None:
    database = open_database(url, CLOCK, TIMINGS)
    await database.start()
    await database.close()


@pytest.fixture(scope="session")
def migrated(postgres_server_url: str, migrated_template: str) -> Iterator[Migrated]:
    """PostgreSQL databases with our tables, for as long as this process runs tests."""
    databases = Migrated(postgres_server_url, migrated_template)
    yield databases
    databases.drop()


@pytest.fixture
def postgres_url(migrated: Migrated) -> Iterator[str]:
    """A PostgreSQL database with our tables, empty, for one test."""
    with migrated.one() as url:
        yield url


@pytest.fixture
def bare_postgres_url(postgres_server_url: str) -> Iterator[str]:
    """A PostgreSQL database without tables, for one test."""
    with new_database(postgres_server_url) as url:
        yield url


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A SQLite file that does not exist yet."""
    return f"sqlite:///{tmp_path}/work.db"


@pytest.fixture(params=["sqlite_url", "postgres_url"])
def database_url(request: pytest.FixtureRequest) -> str:
    """Each of the two databases in turn, new and empty."""
    return str(request.getfixturevalue(request.param))


@pytest.fixture(params=["sqlite_url", "bare_postgres_url"])
def bare_database_url(request: pytest.FixtureRequest) -> str:
    """Each of the two databases in turn, without tables."""
    return str(request.getfixturevalue(request.param))


@pytest.fixture
def groq_with_features(tmp_path: Path) -> str:
    """A folder of queries whose rows carry two further fields, as a team makes it: a copy with one file edited."""
    folder = tmp_path / "groq"
    shutil.copytree(packaged_groq(), folder)
    mapping = folder / "entitlement.groq"
    mapping.write_text(mapping.read_text().replace("  role,\n", "  role,\n  features,\n  onboardingStep,\n"))
    return str(folder)

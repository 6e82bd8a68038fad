"""What every test may use: the asyncio backend of anyio, both stand-ins, and real databases."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from sync_worker.sandbox.server import Sandbox
from sync_worker.settings import packaged_groq
from tests.postgres_server import PostgresServer, new_database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def box() -> AsyncIterator[Sandbox]:
    """Both stand-ins, empty, for one test."""
    async with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture(scope="session")
def postgres_server_url() -> Iterator[str]:
    """The server of `DATABASE_URL_TEST`, or else one of our own that lives as long as the session."""
    given = os.environ.get("DATABASE_URL_TEST")
    if given:
        yield given
        return
    server = PostgresServer()
    try:
        server.start()
        yield server.url
    finally:
        server.remove()


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server that the test may stop and start."""
    server = PostgresServer()
    server.start()
    yield server
    server.remove()


@pytest.fixture
def postgres_url(postgres_server_url: str) -> Iterator[str]:
    """A new, empty PostgreSQL database for one test."""
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


@pytest.fixture
def groq_with_features(tmp_path: Path) -> str:
    """A folder of queries whose rows carry two further fields, as a team makes it: a copy with one file edited."""
    folder = tmp_path / "groq"
    shutil.copytree(packaged_groq(), folder)
    mapping = folder / "entitlement.groq"
    mapping.write_text(mapping.read_text().replace("  role,\n", "  role,\n  features,\n  onboardingStep,\n"))
    return str(folder)

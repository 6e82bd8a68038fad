"""Real processes, started as operators start them, against the stand-ins."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from sync_worker.cli.processes import install_hook, settings_for
from tests.nursery import listening, process

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from sync_worker.sandbox.server import Sandbox


@dataclass(frozen=True)
class Deployment:
    """A running worker, its address, its environment and its log."""

    url: str
    environment: dict[str, str]
    log: Path


SQLITE, POSTGRES = "serve on SQLite", "web and worker on PostgreSQL"
ON_BOTH = pytest.mark.parametrize("deployment", [SQLITE, POSTGRES], indirect=True)
"""For the few tests that every commit runs on both."""


@pytest.fixture(params=[SQLITE, pytest.param(POSTGRES, marks=pytest.mark.full("the same on PostgreSQL"))])
async def deployment(request: pytest.FixtureRequest, box: Sandbox, tmp_path: Path) -> AsyncIterator[Deployment]:
    log = tmp_path / "log"
    async with AsyncExitStack() as stack:
        if request.param == SQLITE:
            environment = settings_for(box, f"sqlite:///{tmp_path / 'work.db'}")
            environment["CLERK_BUDGET"] = "100000"
            url = await stack.enter_async_context(listening("serve", environment, log))
        else:
            environment = settings_for(box, request.getfixturevalue("postgres_url"))
            environment["CLERK_BUDGET"] = "100000"
            url = await stack.enter_async_context(listening("web", environment, log))
            await stack.enter_async_context(process("worker", environment, log))
        install_hook(box, url)
        yield Deployment(url, environment, log)

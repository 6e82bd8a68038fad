"""The installation that is mistreated, on each database in turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.crash.nursery import Nursery
from tests.crash.site import Site

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sync_worker.sandbox.server import Sandbox


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    nursery = Nursery()
    yield nursery
    nursery.close()


@pytest.fixture
def site(nursery: Nursery, box: Sandbox, database_url: str, tmp_path: Path) -> Site:
    return Site(nursery, box, database_url, tmp_path)

"""The installation that is mistreated, on each database in turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.crash.site import Site

if TYPE_CHECKING:
    from pathlib import Path

    from sync_worker.sandbox.server import Sandbox


@pytest.fixture
def site(box: Sandbox, database_url: str, tmp_path: Path) -> Site:
    return Site(box, database_url, tmp_path)

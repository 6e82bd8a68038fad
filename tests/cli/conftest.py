from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sync_worker.cli.processes import settings_for
from tests.cli.terminal import Operator

if TYPE_CHECKING:
    from pathlib import Path

    from sync_worker.sandbox.server import Sandbox


@pytest.fixture
def operator(box: Sandbox, tmp_path: Path) -> Operator:
    environment = settings_for(box, f"sqlite:///{tmp_path / 'work.db'}")
    return Operator(box, tmp_path, {**environment, "CLERK_BUDGET": "100000"})

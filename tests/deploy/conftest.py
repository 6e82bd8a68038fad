"""What checks a kit: the tools and packages of its platform, which `make full-kits` installs."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    Absent = Callable[[str], None]


@pytest.fixture
def absent(request: pytest.FixtureRequest) -> Absent:
    """Say that something is not installed: the run that installs it fails, and any other skips the test."""

    def end(what: str) -> None:
        end = pytest.fail if request.config.getoption("markexpr") == "kit" else pytest.skip
        end(f"{what} is not installed; `make full-kits` installs it")

    return end


@pytest.fixture
def tool(absent: Absent) -> Callable[[str], str]:
    """Return where a program is that comes as a wheel."""

    def find(name: str) -> str:
        found = shutil.which(name, path=Path(sys.executable).parent)
        if found is None:
            absent(name)
        return str(found)

    return find

"""Each bug that is planted into the worker is caught by the simulation, or the simulation would prove nothing."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest

from tests.sim.bugs import BUGS, broken_by
from tests.sim.run import HASHES

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def process() -> Iterator[ProcessPoolExecutor]:
    """A process in which a seed happens the same way every time, whatever the tests beside it have done."""
    with patch.dict(os.environ, HASHES), ProcessPoolExecutor(1, get_context("spawn")) as process:
        process.submit(os.getpid).result()
        yield process


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_caught(process: ProcessPoolExecutor, name: str) -> None:
    broken = process.submit(broken_by, name).result()
    assert broken in BUGS[name].rules, "python -m tests.sim --bugs searches for a seed to record instead"

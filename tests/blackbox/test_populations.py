"""Whole populations that nobody synced yet: right after one reconcile, and right under edits by webhook."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest

from sync_worker.cli.processes import install_clerk_hook, install_hook, settings_for
from tests import nursery
from tests.nursery import listening
from tests.oracle import until_right, wrong
from tests.populations import POPULATIONS
from tests.sizes import the_rest

if TYPE_CHECKING:
    from pathlib import Path

    from sync_worker.sandbox.server import Sandbox

pytestmark = pytest.mark.anyio
EDITS = 50


@pytest.mark.parametrize("name", the_rest(POPULATIONS, quick=("messy data", "a mix")))
async def test_a_population_is_right_after_one_reconcile_and_stays_right_under_edits(
    name: str, box: Sandbox, sqlite_url: str, tmp_path: Path
) -> None:
    population, random = POPULATIONS[name](), Random(name)
    await population.seed(random, box)
    assert wrong(box)
    environment = {**settings_for(box, sqlite_url), "CLERK_BUDGET": "100000", "MAX_REVOCATIONS": "1000"}
    ended = await nursery.run("reconcile", cwd=tmp_path, environment=environment)
    assert (ended.code, wrong(box)) == (0, []), ended.err
    async with listening("serve", environment, tmp_path / "log") as url:
        install_hook(box, url)
        install_clerk_hook(box, url)
        for _ in range(EDITS):
            await population.edit(random, box)
        await box.lake.hooks_idle()
        await until_right(box)

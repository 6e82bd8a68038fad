"""Every process and command compares its settings with those that the database remembers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sync_worker.cli.processes import settings_for
from tests.nursery import run

if TYPE_CHECKING:
    from pathlib import Path

    from sync_worker.sandbox.server import Sandbox

pytestmark = pytest.mark.anyio
OTHERS = {
    "SANITY_PROJECT_ID": "another",
    "SANITY_DATASET": "another",
    "METADATA_NAMESPACE": "access",
    "PRIVATE_FIELDS": "plan",
    "EXTRA_FIELDS": "features=union",
}


@pytest.mark.parametrize("variable", OTHERS)
async def test_a_receiver_with_other_settings_does_not_start_and_names_the_variable(
    box: Sandbox, sqlite_url: str, tmp_path: Path, variable: str
) -> None:
    environment = settings_for(box, sqlite_url)
    assert (await run("release", cwd=tmp_path, environment=environment)).code == 0
    for _ in range(2):  # neither the first attempt nor the second records anything
        other = {**environment, variable: OTHERS[variable], "PORT": "0"}
        ended = await run("web", cwd=tmp_path, environment=other)
        assert ended.code == 1
        assert f"{variable}: this database belongs to" in ended.err
        assert "Traceback" not in ended.err

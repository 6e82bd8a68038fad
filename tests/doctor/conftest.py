"""A healthy installation for doctor to examine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.doctor.installations import Installation, installation

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sync_worker.sandbox.server import Sandbox


@pytest.fixture
async def installed(staging_box: Sandbox, sqlite_url: str) -> AsyncIterator[Installation]:
    async with installation(staging_box, sqlite_url) as one:
        yield one

"""The real parts, for explanations and reports."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.parts import opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sync_worker.sandbox.server import Sandbox
    from tests.parts import Parts


@pytest.fixture
async def parts(box: Sandbox, sqlite_url: str) -> AsyncIterator[Parts]:
    async with opened(box, sqlite_url, plan_order="basic,pro", max_revocations="1") as parts:
        yield parts

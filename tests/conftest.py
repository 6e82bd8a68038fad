"""What every test may use: the asyncio backend of anyio."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sync_worker.sandbox.server import Sandbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def box() -> AsyncIterator[Sandbox]:
    """Both stand-ins, empty, for one test."""
    async with Sandbox() as sandbox:
        yield sandbox

"""One event loop for a module, so that a hundred hostile requests meet the same server."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"

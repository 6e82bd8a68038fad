"""The application, on a new installation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.web.pages import Web, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sync_worker.sandbox.server import Sandbox


@pytest.fixture
async def web(box: Sandbox, sqlite_url: str) -> AsyncIterator[Web]:
    async with serving(box, sqlite_url, max_revocations="1") as web:
        yield web

"""The web application, without a worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.webhooks.receiver import SECRET, Web, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def web(database_url: str) -> AsyncIterator[Web]:
    async with serving(database_url, sanity_webhook_secret=SECRET) as web:
        yield web

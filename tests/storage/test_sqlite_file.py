"""The place of the SQLite file: what cannot be one is refused, and a file that is gone is not written to."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from sync_worker.doctor.database_probe import inspect
from sync_worker.errors import ConfigurationError, DatabaseUnavailable
from sync_worker.storage.queue_admin import QueueAdmin
from sync_worker.storage.sqlite import SqliteDatabase
from tests.clock import CLOCK, TIMINGS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

pytestmark = pytest.mark.anyio


@pytest.fixture
def read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that this user may not write to. The tests may run as root, who may write everywhere."""
    folder = tmp_path / "read-only"
    folder.mkdir()
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) != str(folder) and real(path, mode))
    return folder


async def start(path: Path) -> None:
    db = SqliteDatabase(str(path), CLOCK, TIMINGS)
    await db.start()
    await db.close()


async def look(path: Path) -> None:
    await inspect(f"sqlite:///{path}", CLOCK, TIMINGS)


@pytest.mark.parametrize("attempt", [start, look])
async def test_a_file_that_cannot_be_made_is_refused_with_the_reason(
    tmp_path: Path, read_only: Path, attempt: Callable[[Path], Awaitable[None]]
) -> None:
    places = {
        tmp_path / "nowhere" / "work.db": "the folder of .* does not exist",
        read_only / "work.db": "is not writable",
        tmp_path: "is a folder, not a file",
    }
    for place, reason in places.items():
        with pytest.raises(ConfigurationError, match=f"DATABASE_URL.*{reason}"):
            await attempt(place)


@pytest.mark.parametrize("replaced", [False, True])
async def test_a_file_that_is_gone_is_not_written_to_until_it_is_back(tmp_path: Path, *, replaced: bool) -> None:
    path, away = tmp_path / "work.db", tmp_path / "away.db"
    db = SqliteDatabase(str(path), CLOCK, TIMINGS)
    await db.start()
    admin = QueueAdmin(db, TIMINGS)
    try:
        await admin.remember("one", "")
        path.rename(away)
        if replaced:
            path.touch()
        for _ in range(2):
            with pytest.raises(DatabaseUnavailable, match="removed or replaced"):
                await admin.check_writable()
            with pytest.raises(DatabaseUnavailable, match="removed or replaced"):
                await admin.recall("one")
        away.rename(path)
        assert await admin.recall("one") is not None
        await admin.check_writable()
    finally:
        await db.close()

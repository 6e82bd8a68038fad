"""`sync` ends with the reason when nothing can be done, instead of waiting for it."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from sync_worker.cli.processes import settings_for
from sync_worker.settings import packaged_groq
from tests.nursery import run

if TYPE_CHECKING:
    from pathlib import Path

    from sync_worker.sandbox.server import Sandbox

pytestmark = pytest.mark.anyio


async def test_a_refused_key_ends_it(box: Sandbox, sqlite_url: str, tmp_path: Path) -> None:
    environment = {**settings_for(box, sqlite_url), "CLERK_SECRET_KEY": "sk_test_wrong"}
    ended = await run("sync", "user_1", cwd=tmp_path, environment=environment)
    assert (ended.code, "error: The service rejected our credentials." in ended.err) == (1, True), ended.err
    assert ended.out == ""


async def test_a_wrong_file_ends_it(box: Sandbox, sqlite_url: str, tmp_path: Path) -> None:
    folder = tmp_path / "groq"
    shutil.copytree(packaged_groq(), folder)
    (folder / "everything.groq").write_text("*[")
    environment = {**settings_for(box, sqlite_url), "GROQ_DIR": str(folder)}
    ended = await run("sync", "user_1", cwd=tmp_path, environment=environment)
    assert (ended.code, "error: A GROQ file is wrong. everything.groq" in ended.err) == (1, True), ended.err

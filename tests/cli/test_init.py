"""`init` sets up a directory, and the sandbox writes its settings to a file: neither overwrites anything."""

from __future__ import annotations

import asyncio
import signal
import stat
from typing import TYPE_CHECKING

import pytest

from sync_worker.cli.processes import process
from sync_worker.runtime.environment import load_settings
from sync_worker.sanity.client import Queries
from sync_worker.settings import packaged_groq
from tests.nursery import run
from tests.oracle import until

if TYPE_CHECKING:
    from pathlib import Path

    from sync_worker.sandbox.server import Sandbox
    from tests.nursery import Ended

pytestmark = pytest.mark.anyio


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def init(box: Sandbox, folder: Path, *arguments: str, **environment: str) -> Ended:
    given = {
        "SANITY_API_URL": box.sanity_url,
        "CLERK_API_URL": box.clerk_url,
        "SANITY_READ_TOKEN": box.lake.viewer_token,
        "CLERK_SECRET_KEY": box.clerk.secret_key,
        **environment,
    }
    options = ("--project-id", box.lake.project_id, "--dataset", box.lake.dataset, *arguments)
    return await run("init", *options, cwd=folder, environment=given)


async def test_it_writes_settings_and_queries_that_work(
    box: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = await init(box, tmp_path, "--plan-order", "basic,pro")
    assert ended.code == 0, ended.err
    monkeypatch.chdir(tmp_path)
    settings = load_settings()
    assert (settings.sanity_project_id, settings.plan_order) == (box.lake.project_id, ("basic", "pro"))
    assert len(settings.sanity_webhook_secret[0].get_secret_value()) == 64
    assert Queries.load(settings.groq_folder) == Queries.load(packaged_groq())
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600
    assert "sync-worker reconcile --dry-run" in ended.out
    assert box.clerk.secret_key not in ended.out + ended.err
    assert (await run("reconcile", "--dry-run", "--accept-fewer", cwd=tmp_path)).code == 0


async def test_an_existing_file_is_never_overwritten(box: Sandbox, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PLAN_ORDER=mine\n")
    ended = await init(box, tmp_path)
    assert (ended.code, "exists already" in ended.err) == (1, True)
    assert (tmp_path / ".env").read_text() == "PLAN_ORDER=mine\n"
    assert not (tmp_path / "groq").exists()


async def test_an_edited_query_is_kept(box: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "groq").mkdir()
    (tmp_path / "groq" / "entitlement.groq").write_text("{mine}")
    ended = await init(box, tmp_path)
    assert (ended.code, "kept groq/entitlement.groq" in ended.out) == (0, True)
    assert (tmp_path / "groq" / "entitlement.groq").read_text() == "{mine}"
    assert (tmp_path / "groq" / "everything.groq").exists()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("CLERK_SECRET_KEY", "sk_test_another", "Clerk: "),
        ("SANITY_READ_TOKEN", "sk-another-token", "Sanity: "),
        ("CLERK_SECRET_KEY", "pk_test_another", "CLERK_SECRET_KEY must start with sk_live_ or sk_test_"),
    ],
)
async def test_a_key_that_is_refused_is_named_and_nothing_is_written(
    box: Sandbox, tmp_path: Path, name: str, value: str, said: str
) -> None:
    ended = await init(box, tmp_path, **{name: value})
    assert (ended.code, said in ended.err) == (1, True), ended.err
    assert names_in(tmp_path) == []
    assert value not in ended.out + ended.err


async def test_without_a_terminal_it_names_the_options(tmp_path: Path) -> None:
    ended = await run("init", cwd=tmp_path)
    assert (ended.code, names_in(tmp_path)) == (1, [])
    assert "Pass --project-id and set SANITY_READ_TOKEN and set CLERK_SECRET_KEY." in ended.err


async def test_the_sandbox_writes_its_settings_to_a_file_that_must_not_exist(tmp_path: Path) -> None:
    file, ports = tmp_path / ".env", ("--sanity-port", "0", "--clerk-port", "0")
    async with process("sandbox", {}, tmp_path / "log", *ports, "--env-file", str(file)) as running:
        await until(file.exists)
        await until(lambda: "DATABASE_URL=sqlite" in file.read_text())
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        running.send_signal(signal.SIGTERM)
        await asyncio.wait_for(running.wait(), 60)
    ended = await run("sandbox", *ports, "--env-file", str(file), cwd=tmp_path)
    assert (ended.code, "exists already" in ended.err) == (1, True)


async def test_the_queries_alone_are_copied_beside_settings_that_exist_already(box: Sandbox, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("SANITY_PROJECT_ID=mine\n")
    refused = await init(box, tmp_path)
    assert (refused.code, "sync-worker init --groq-only" in refused.err) == (1, True)
    ended = await init(box, tmp_path, "--groq-only")
    assert (ended.code, "GROQ_DIR=groq" in ended.out) == (0, True)
    assert Queries.load(tmp_path / "groq") == Queries.load(packaged_groq())
    assert (tmp_path / ".env").read_text() == "SANITY_PROJECT_ID=mine\n"

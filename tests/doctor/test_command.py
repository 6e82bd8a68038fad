"""The command `sync-worker doctor`: its exit codes, and what it prints."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from sync_worker.cli.processes import SECRET, settings_for
from sync_worker.doctor.checks import CHECKS
from tests.nursery import Ended, run

if TYPE_CHECKING:
    from pathlib import Path

    from tests.doctor.installations import Installation

pytestmark = pytest.mark.anyio


async def doctor(installed: Installation, folder: Path, *arguments: str, **environment: str) -> Ended:
    given = settings_for(installed.box, installed.settings.database_url)
    given["SANITY_MANAGE_TOKEN"] = installed.box.lake.token
    return await run("doctor", *arguments, cwd=folder, environment={**given, **environment})


async def test_the_command_exits_with_0_when_all_is_well(installed: Installation, tmp_path: Path) -> None:
    ended = await doctor(installed, tmp_path, "--json")
    report = json.loads(ended.out)
    assert (ended.code, report["ok"], {check["status"] for check in report["checks"]}) == (0, True, {"ok"})
    assert [set(check) for check in report["checks"]] == [{"check", "status", "result", "fix"}] * len(CHECKS)


async def test_the_command_exits_with_1_on_a_problem_and_prints_the_fix(
    installed: Installation, tmp_path: Path
) -> None:
    await installed.change_hook(dataset="*")
    ended = await doctor(installed, tmp_path, COLUMNS="200")
    assert ended.code == 1
    assert "dataset is *, expected staging" in ended.out
    assert f"→ Run: SANITY_MANAGE_TOKEN=… sync-worker webhook install --url {installed.hook.url}" in ended.out


async def test_every_invalid_variable_is_named_and_the_rest_is_checked(installed: Installation, tmp_path: Path) -> None:
    wrong = {"PORT": "ninety", "SANITY_READ_TOKEN": "", "EXTRA_FIELDS": "features", "DYNO": "web.1", "DATABASE_URL": ""}
    ended = await doctor(installed, tmp_path, "--json", **wrong)
    checks = {check["check"]: check for check in json.loads(ended.out)["checks"]}
    assert ended.code == 1
    for variable in ("PORT", "SANITY_READ_TOKEN is not set", "EXTRA_FIELDS", "DATABASE_URL is not set"):
        assert variable in checks["settings"]["result"]
    assert checks["Clerk"]["status"] == "ok"
    assert checks["Sanity"]["result"] == "not checked: SANITY_READ_TOKEN is not set"
    assert "DATABASE_URL" in checks["database"]["result"]
    assert "Traceback" not in ended.err


async def test_without_any_setting_the_command_says_so(tmp_path: Path) -> None:
    ended = await run("doctor", cwd=tmp_path)
    assert ended.code == 1
    assert "CLERK_SECRET_KEY is not" in " ".join(ended.out.split())


async def test_no_secret_is_printed(installed: Installation, tmp_path: Path) -> None:
    await installed.change_hook(secret="planted-secret")
    ended = await doctor(installed, tmp_path, CLERK_SECRET_KEY="sk_test_planted")
    for secret in ("planted", SECRET, installed.box.lake.token, installed.box.clerk.secret_key):
        assert secret not in ended.out + ended.err


async def test_a_variable_that_is_no_setting_is_a_warning(installed: Installation, tmp_path: Path) -> None:
    ended = await doctor(installed, tmp_path, "--json", PLAN_ODER="free,pro")
    (check,) = [one for one in json.loads(ended.out)["checks"] if one["check"] == "settings"]
    assert (check["status"], check["result"]) == ("warning", "PLAN_ODER is not a setting; did you mean PLAN_ORDER?")

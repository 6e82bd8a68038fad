"""What can be said of the image without building it: its parts exist, are locked, and its health check is true."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from fnmatch import fnmatch
from typing import TYPE_CHECKING

import pytest

from sync_worker.cli.processes import free_port, listening, settings_for
from tests import kits
from tests.clock import CLOCK
from tests.kits import DEPLOY, ROOT
from tests.oracle import GUARD

if TYPE_CHECKING:
    from pathlib import Path

    from sync_worker.sandbox.server import Sandbox

STEPS = kits.dockerfile()


def test_both_stages_stand_on_the_same_python_of_a_named_patch_release() -> None:
    images = {rest.split()[0] for word, rest in STEPS if word == "FROM"}
    assert [re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", image) for image in images].count(None) == 0
    assert len(images) == 1


def test_what_is_copied_is_there_and_reaches_the_builder() -> None:
    copied = [
        source
        for word, rest in STEPS
        if word == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    ]
    assert {"requirements.txt", "pyproject.toml", "sync_worker", "groq"} <= set(copied)
    assert [source for source in copied if not (ROOT / source).exists() or not is_sent(source)] == []


@pytest.mark.parametrize("kept_back", [".env", "deploy/.env", ".git/config", "sync-worker.db", ".venv/bin/python"])
def test_secrets_and_history_never_reach_the_builder(kept_back: str) -> None:
    assert not is_sent(kept_back)


def is_sent(path: str) -> bool:
    """Return what .dockerignore says of a path: the last line that fits it, or a folder above it, wins."""
    sent = True
    parts = path.split("/")
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!")
        if (
            line
            and not line.startswith("#")
            and any(fnmatch("/".join(parts[: n + 1]), pattern) for n in range(len(parts)))
        ):
            sent = line.startswith("!")
    return sent


def test_everything_that_is_installed_is_locked_by_hash() -> None:
    parts = [set(part.split()) for word, rest in STEPS if word == "RUN" for part in rest.split("&&") if "pip" in part]
    installs, builds = ([part for part in parts if verb in part] for verb in ("install", "wheel"))
    assert len(installs) == 3
    assert all("--require-hashes" in part or {"--no-deps", "--no-index"} <= part for part in installs)
    assert [{"--no-deps", "--no-build-isolation"} <= part for part in builds] == [True]


def test_the_wheel_is_built_with_the_versions_that_it_is_developed_with() -> None:
    build, developed = pins(DEPLOY / "requirements-build.txt"), pins(ROOT / "requirements-dev.txt")
    assert "hatchling" in build
    assert build.items() <= developed.items()


def test_the_tools_of_the_full_run_change_no_version_that_the_tests_run_with() -> None:
    tools, developed = pins(ROOT / "requirements-tools.txt"), pins(ROOT / "requirements-dev.txt")
    shared = tools.keys() & developed.keys()
    assert "certifi" in shared
    assert {name: tools[name] for name in shared} == {name: developed[name] for name in shared}


def pins(lock: Path) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)==([^\s;]+)", lock.read_text(), re.MULTILINE))


@pytest.mark.anyio
async def test_the_health_check_passes_while_the_process_answers_and_fails_when_it_does_not(
    box: Sandbox, sqlite_url: str, tmp_path: Path
) -> None:
    async with listening("web", settings_for(box, sqlite_url), tmp_path / "log", CLOCK) as url:
        assert await health_check(url.rpartition(":")[2]) == 0
    assert await health_check(str(free_port())) == 1


async def health_check(port: str) -> int | None:
    """Run the image's HEALTHCHECK as the container would."""
    (rest,) = (rest for word, rest in STEPS if word == "HEALTHCHECK")
    program, *arguments = json.loads(rest[rest.index("CMD ") + len("CMD ") :])
    assert program == "python"
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, env={"PORT": port, "PATH": os.environ["PATH"]}, stderr=asyncio.subprocess.DEVNULL
    )
    return await asyncio.wait_for(process.wait(), GUARD)

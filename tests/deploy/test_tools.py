"""The kits in the eyes of the platforms' own tools, where this machine has them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.kits import DEPLOY, kubernetes_objects

if TYPE_CHECKING:
    from pathlib import Path

EXPOSURE = 15
"""What `systemd-analyze security` may find at most, in tenths; an ordinary service has 96."""


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    done = run(tool("hadolint"), str(DEPLOY / "Dockerfile"))
    assert (done.returncode, done.stdout) == (0, "")


def test_kubectl_puts_the_kubernetes_files_together() -> None:
    done = run(tool("kubectl"), "kustomize", str(DEPLOY / "kubernetes"))
    assert done.returncode == 0, done.stderr
    built = list(yaml.safe_load_all(done.stdout))
    assert sorted(o["kind"] for o in built) == sorted(o["kind"] for o in kubernetes_objects())
    images = set(re.findall(r"image: (\S+)", done.stdout))
    assert images == {"registry.example.com/sync-worker:latest"}


def test_kubernetes_own_schemas_fit_every_object(tmp_path: Path) -> None:
    file = tmp_path / "objects.yaml"
    file.write_text(yaml.safe_dump_all(kubernetes_objects()))
    example = DEPLOY / "kubernetes" / "secret.example.yaml"
    done = run(tool("kubernetes-validate"), "--strict", str(file), str(example))
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_compose_file_fits_the_specification() -> None:
    schema = ("--builtin-schema", "vendor.compose-spec")
    done = run(tool("check-jsonschema"), *schema, str(DEPLOY / "compose.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", sorted((DEPLOY / "systemd").glob("*.service")), ids=lambda f: f.name)
def test_systemd_finds_little_that_a_service_could_still_reach(file: Path) -> None:
    done = run(tool("systemd-analyze"), "security", "--offline=true", f"--threshold={EXPOSURE}", str(file))
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_takes_the_alerts_and_they_fire_as_specified() -> None:
    promtool = tool("promtool")
    done = run(promtool, "test", "rules", str(DEPLOY / "prometheus" / "alerts_test.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_can_read_every_query_of_the_dashboard(tmp_path: Path) -> None:
    queries = [
        target["expr"].replace("$__rate_interval", "5m")
        for panel in json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())["panels"]
        for target in panel["targets"]
    ]
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries)]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = run(tool("promtool"), "check", "rules", str(file))
    assert done.returncode == 0, done.stdout + done.stderr

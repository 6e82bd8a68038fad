"""The kits in the eyes of the platforms' own tools, which the full run installs."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.deploy.test_metrics import alerts, dashboard
from tests.kits import DEPLOY, kubernetes_objects

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.deploy.conftest import Absent

    Tool = Callable[[str], str]

pytestmark = [pytest.mark.kit, pytest.mark.full("the full run installs the tools")]

EXPOSURE = 15
"""What `systemd-analyze security` may find at most, in tenths; an ordinary service has 96."""


def of_this_machine(name: str) -> str:
    """Return where a program is that no package brings."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not on this machine, and no package has it")
    return found


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_hadolint_finds_nothing_in_the_dockerfile(tool: Tool) -> None:
    done = run(tool("hadolint"), str(DEPLOY / "Dockerfile"))
    assert (done.returncode, done.stdout) == (0, "")


def test_kubectl_puts_the_kubernetes_files_together(tool: Tool) -> None:
    done = run(tool("kubectl"), "kustomize", str(DEPLOY / "kubernetes"))
    assert done.returncode == 0, done.stderr
    built = list(yaml.safe_load_all(done.stdout))
    assert sorted(o["kind"] for o in built) == sorted(o["kind"] for o in kubernetes_objects())
    images = set(re.findall(r"image: (\S+)", done.stdout))
    assert images == {"registry.example.com/sync-worker:latest"}


def test_kubernetes_own_schemas_fit_every_object(tool: Tool, tmp_path: Path) -> None:
    file = tmp_path / "objects.yaml"
    file.write_text(yaml.safe_dump_all(kubernetes_objects()))
    example = DEPLOY / "kubernetes" / "secret.example.yaml"
    done = run(tool("kubernetes-validate"), "--strict", str(file), str(example))
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_compose_file_fits_the_specification(tool: Tool) -> None:
    schema = ("--builtin-schema", "vendor.compose-spec")
    done = run(tool("check-jsonschema"), *schema, str(DEPLOY / "compose.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", sorted((DEPLOY / "systemd").glob("*.service")), ids=lambda f: f.name)
def test_systemd_finds_little_that_a_service_could_still_reach(file: Path) -> None:
    done = run(of_this_machine("systemd-analyze"), "security", "--offline=true", f"--threshold={EXPOSURE}", str(file))
    assert done.returncode == 0, done.stdout + done.stderr


def queries() -> list[str]:
    """Return all queries of the alerts and of the dashboard."""
    shown = [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]
    return [rule["expr"] for rule in alerts()] + [query.replace("$__rate_interval", "5m") for query in shown]


def test_prometheus_can_read_every_query_of_the_alerts_and_of_the_dashboard(absent: Absent) -> None:
    if importlib.util.find_spec("promql_parser") is None:
        absent("promql-parser")
    promql = importlib.import_module("promql_parser")
    for query in queries():
        promql.parse(query)
    for wrong in ("max(sync_worker_held[5m])", 'sync_worker_calls_total{outcome=~"["}', "sync_worker_held >"):
        with pytest.raises(ValueError, match=r"vector|regex|query"):
            promql.parse(wrong)


def test_prometheus_takes_the_alerts_and_they_fire_as_specified() -> None:
    done = run(of_this_machine("promtool"), "test", "rules", str(DEPLOY / "prometheus" / "alerts_test.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr

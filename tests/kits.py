"""What the deploy kits start: every command of every platform, with the environment that it gets there."""

from __future__ import annotations

import configparser
import json
import re
import shlex
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from sync_worker.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

SETTINGS = {name.upper(): field for name, field in Settings.model_fields.items()}
REQUIRED = frozenset(name for name, field in SETTINGS.items() if field.is_required())
ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"


@dataclass(frozen=True)
class Start:
    """One command of a kit. `environment` has the names it may read; `grace` is seconds from SIGTERM to the kill."""

    kit: str
    argv: tuple[str, ...]
    environment: frozenset[str]
    grace: float | None = None

    @property
    def arguments(self) -> list[str]:
        """What follows the program, however the kit names that."""
        for program in (("sync-worker",), ("python", "-m", "sync_worker"), ("/opt/sync-worker/bin/sync-worker",)):
            if self.argv[: len(program)] == program:
                return list(self.argv[len(program) :])
        raise AssertionError(f"{self.kit} starts something else: {self.argv}")

    def __str__(self) -> str:
        return f"{self.kit}: {shlex.join(self.arguments)}"


def starts() -> list[Start]:
    """Return everything that any kit starts."""
    return [*image(), *compose(), *heroku(), *render(), *fly(), *kubernetes(), *systemd()]


def example() -> frozenset[str]:
    """Return the names that every installation with an environment file has."""
    return names_of((DEPLOY / "env.example").read_text())


def names_of(text: str) -> frozenset[str]:
    """Return the names of an environment file."""
    return frozenset(re.findall(r"^([A-Z_]+)=", text, re.MULTILINE))


def dockerfile() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions, continuation lines joined."""
    text = re.sub(r"^\s*#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in text.splitlines() if line)]


def image() -> Iterator[Start]:
    (command,) = (rest for word, rest in dockerfile() if word == "CMD")
    given = re.findall(r"--env ([A-Z_]+)=", (DEPLOY / "README.md").read_text())  # by `docker run`
    (fixed,) = (rest for word, rest in dockerfile() if word == "ENV" and "PORT=" in rest)
    yield Start("image", tuple(json.loads(command)), example() | set(given) | {n for n in SETTINGS if f"{n}=" in fixed})


def compose_services() -> dict[str, Any]:
    services: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    return services


def compose() -> Iterator[Start]:
    for name, service in compose_services().items():
        if service["image"].startswith("sync-worker"):
            names = example() | set(service["environment"])
            grace = float(service["stop_grace_period"].removesuffix("s"))
            yield Start(f"compose {name}", tuple(service["command"]), names, grace)


def heroku() -> Iterator[Start]:
    manifest = json.loads((ROOT / "app.json").read_text())
    assert manifest["addons"][0]["plan"].startswith("heroku-postgresql:")  # it sets DATABASE_URL
    names = frozenset({*manifest["env"], "DATABASE_URL", "PORT"})  # the router sets PORT
    for line in (ROOT / "Procfile").read_text().splitlines():
        name, command = line.split(": ", 1)
        yield Start(f"heroku {name}", tuple(shlex.split(command)), names, 30)


def render_services() -> list[dict[str, Any]]:
    services: list[dict[str, Any]] = yaml.safe_load((DEPLOY / "render.yaml").read_text())["services"]
    return services


def render_group() -> dict[str, Any]:
    """Return the group of settings that all services on Render share."""
    (group,) = yaml.safe_load((DEPLOY / "render.yaml").read_text())["envVarGroups"]
    assert isinstance(group, dict)
    return group


def render() -> Iterator[Start]:
    for service in render_services():
        names = frozenset(variable["key"] for variable in service["envVars"] if "key" in variable)
        if render_group()["name"] in [variable.get("fromGroup") for variable in service["envVars"]]:
            # Whatever is added to the group reaches the service; the kit itself sets what must differ.
            names |= frozenset(SETTINGS) - {"DATABASE_URL", "PORT", "RECONCILE_AT", *REQUIRED}
        grace = service.get("maxShutdownDelaySeconds")
        yield Start(f"render {service['type']}", tuple(shlex.split(service["dockerCommand"])), names, grace)
        if "preDeployCommand" in service:
            yield Start(f"render {service['type']}", tuple(shlex.split(service["preDeployCommand"])), names)


def fly_toml() -> dict[str, Any]:
    return tomllib.loads((DEPLOY / "fly.toml").read_text())


def fly() -> Iterator[Start]:
    machine = fly_toml()
    names = example() | set(machine["env"]) | {"DATABASE_URL"}
    grace = float(machine["kill_timeout"].removesuffix("s"))
    yield Start("fly release", tuple(shlex.split(machine["deploy"]["release_command"])), names)
    for name, command in machine["processes"].items():
        yield Start(f"fly {name}", tuple(shlex.split(command)), names, grace)


def kubernetes_objects() -> list[dict[str, Any]]:
    """Return every object of the files that kustomization.yaml names."""
    folder = DEPLOY / "kubernetes"
    files = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
    return [found for file in files for found in yaml.safe_load_all((folder / file).read_text())]


def pods() -> list[dict[str, Any]]:
    """Return the pod templates, each with one container."""
    specs = [
        o["spec"].get("jobTemplate", o)["spec"] for o in kubernetes_objects() if o["kind"] in {"Deployment", "CronJob"}
    ]
    return [spec["template"]["spec"] for spec in specs]


def kubernetes() -> Iterator[Start]:
    secret = yaml.safe_load((DEPLOY / "kubernetes" / "secret.example.yaml").read_text())
    for pod in pods():
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            assert container["envFrom"] == [{"secretRef": {"name": secret["metadata"]["name"]}}]
            names = frozenset({*secret["stringData"], *(variable["name"] for variable in container["env"])})
            grace = pod.get("terminationGracePeriodSeconds")
            yield Start(f"kubernetes {container['name']}", tuple(container["command"]), names, grace)


def units() -> dict[str, configparser.ConfigParser]:
    """Return the systemd units by name. Of a directive that is there twice, the last is kept."""
    read = {}
    for file in sorted((DEPLOY / "systemd").iterdir()):
        unit = configparser.ConfigParser(strict=False, interpolation=None)
        unit.optionxform = str  # type: ignore[assignment,method-assign]  # systemd's names have capitals
        unit.read_string(file.read_text())
        read[file.name] = unit
    return read


def systemd() -> Iterator[Start]:
    for name, unit in units().items():
        if "Service" in unit:
            service = unit["Service"]
            names = example() | names_of("\n".join(service["Environment"].split()))
            grace = float(service.get("TimeoutStopSec", "90"))
            for key in ("ExecStartPre", "ExecStart"):
                if key in service:
                    command = tuple(shlex.split(service[key].removeprefix("-")))
                    yield Start(f"systemd {name}", command, names, grace)

"""The deploy kits are true: the commands and settings they name exist, and platforms request routes that exist."""

from __future__ import annotations

import json
import re
from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest
import typer.main
import yaml

from sync_worker.cli import app
from sync_worker.settings import Settings
from sync_worker.web.app import create_app
from tests import kits
from tests.clock import TIMINGS
from tests.kits import DEPLOY, REQUIRED, ROOT, SETTINGS, Start

if TYPE_CHECKING:
    from typing import Any

STARTS = kits.starts()
IN_CONTAINERS = [start for start in STARTS if not start.kit.startswith("systemd")]


def routes() -> set[str]:
    settings = Settings(_env_file=None, sanity_project_id="p", sanity_read_token="t", clerk_secret_key="sk_test_x")
    return {getattr(route, "path", "") for route in create_app(settings).routes}


def test_no_platform_is_forgotten() -> None:
    platforms = {"image", "compose", "heroku", "render", "fly", "kubernetes", "systemd"}
    assert {start.kit.split()[0] for start in STARTS} == platforms


@pytest.mark.parametrize("start", STARTS, ids=str)
def test_each_command_is_a_verb_with_options_that_it_has(start: Start) -> None:
    verb, *options = start.arguments
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]  # click's group, typed as a command
    commands[verb].make_context(verb, options)  # raises on an option that is not there


@pytest.mark.parametrize("start", STARTS, ids=str)
def test_each_command_gets_only_settings_that_exist_and_all_that_it_needs(start: Start) -> None:
    assert start.environment - set(SETTINGS) == set()
    needed = REQUIRED | {"DATABASE_URL"}
    if start.arguments[0] in {"web", "serve"}:
        needed |= {"SANITY_WEBHOOK_SECRET", "CLERK_WEBHOOK_SECRET"}
    assert needed - start.environment == set()


@pytest.mark.parametrize("start", STARTS, ids=str)
def test_each_process_can_be_given_every_setting_that_it_reads(start: Start) -> None:
    listens, schedules = start.arguments[0] in {"web", "serve"}, start.arguments[0] in {"worker", "serve"}
    unread = set() if listens else {"PORT"}
    unread |= set() if schedules else {"RECONCILE_AT"}
    assert set(SETTINGS) - start.environment - unread == set()


def test_every_kit_with_a_database_of_its_own_runs_release() -> None:
    released = {start.kit.split()[0] for start in STARTS if start.arguments[0] == "release"}
    assert released == {start.kit.split()[0] for start in STARTS} - {
        "image"
    }  # there, the start of `serve` is a release


def test_in_kubernetes_a_new_pod_starts_only_after_release() -> None:
    for pod in kits.pods():
        (container,) = pod["containers"]
        first = [one["command"] for one in pod.get("initContainers", ())]
        assert first == ([] if container["name"] == "reconcile" else [["sync-worker", "release"]])
        for one in pod.get("initContainers", ()):
            assert one["securityContext"] == container["securityContext"]


def test_where_the_port_is_public_the_metrics_need_a_token() -> None:
    shared = {variable["key"]: variable for variable in kits.render_group()["envVars"]}
    assert shared["METRICS_TOKEN"]["generateValue"]
    assert json.loads((ROOT / "app.json").read_text())["env"]["METRICS_TOKEN"]["generator"] == "secret"
    guide = (DEPLOY / "README.md").read_text()
    for command in ("fly secrets set", "heroku config:set"):
        lines = re.search(rf"^    {command}(?:.*\\\n)*.*$", guide, re.MULTILINE)
        assert lines is not None
        assert {"METRICS_TOKEN=$", "ADMIN_TOKEN=$", "CLERK_WEBHOOK_SECRET="} <= set(
            re.findall(r"[A-Z_]+=\$?", lines.group())
        )


def test_ports_are_published_on_this_machine_alone_and_the_database_nowhere() -> None:
    published = {name: service["ports"] for name, service in kits.compose_services().items() if "ports" in service}
    assert published == {"web": ["127.0.0.1:8000:8000"]}
    assert [d["ipAllowList"] for d in yaml.safe_load((DEPLOY / "render.yaml").read_text())["databases"]] == [[]]
    services = [o["spec"] for o in kits.kubernetes_objects() if o["kind"] == "Service"]
    assert [spec.get("type", "ClusterIP") for spec in services] == ["ClusterIP"]
    assert "metrics" not in kits.fly_toml()
    assert kits.fly_toml()["http_service"]["processes"] == ["web"]


@pytest.mark.parametrize("start", [s for s in STARTS if s.kit.startswith("systemd")], ids=str)
def test_on_one_machine_it_listens_to_that_machine_alone(start: Start) -> None:
    assert "--host" not in start.arguments


def test_the_proxies_of_each_platform_are_trusted_and_nobody_else() -> None:
    trusted = [
        kits.compose_services()["web"]["environment"]["TRUSTED_PROXIES"],
        kits.fly_toml()["env"]["TRUSTED_PROXIES"],
        json.loads((ROOT / "app.json").read_text())["env"]["TRUSTED_PROXIES"]["value"],
        next(v["value"] for v in kits.render_group()["envVars"] if v["key"] == "TRUSTED_PROXIES"),
        yaml.safe_load((DEPLOY / "kubernetes" / "secret.example.yaml").read_text())["stringData"]["TRUSTED_PROXIES"],
    ]
    networks = [ip_network(network) for given in trusted for network in given.split(",")]
    assert len(networks) >= len(trusted)
    assert [str(network) for network in networks if not network.is_private] == []


@pytest.mark.parametrize("start", [s for s in IN_CONTAINERS if s.arguments[0] in {"web", "serve"}], ids=str)
def test_inside_a_container_it_listens_on_every_address(start: Start) -> None:
    assert start.arguments[1:] == ["--host", "0.0.0.0"]


@pytest.mark.parametrize(
    "start", [s for s in STARTS if s.arguments[0] in {"web", "serve", "worker"} and s.grace], ids=str
)
def test_each_platform_waits_until_work_in_flight_has_ended(start: Start) -> None:
    assert start.grace is not None
    assert start.grace >= TIMINGS.request_drain + TIMINGS.run_deadline


def test_an_environment_file_holds_nothing_that_its_readers_read_differently() -> None:
    lines = [line for line in (DEPLOY / "env.example").read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[A-Z_]+=[^\s\"'#$]*", line)] == []


def test_platforms_send_traffic_by_liveness_because_a_web_process_without_a_worker_still_keeps_webhooks() -> None:
    (web,) = (pod for pod in kits.pods() if pod["containers"][0]["name"] == "web")
    probes = [web["containers"][0][f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")]
    requested = {
        *probes,
        *(check["path"] for check in kits.fly_toml()["http_service"]["checks"]),
        *(service["healthCheckPath"] for service in kits.render_services() if service["type"] == "web"),
    }
    assert requested == {"/healthz"}
    assert {*requested, "/metrics", "/readyz"} <= routes()


def test_every_port_is_the_one_that_the_process_listens_on() -> None:
    exposed = {rest for word, rest in kits.dockerfile() if word == "EXPOSE"}
    (environment,) = (rest for word, rest in kits.dockerfile() if word == "ENV" and "PORT=" in rest)
    reported = set(re.findall(r"PORT=(\d+)", environment))
    web = kits.compose_services()["web"]
    reported |= {web["environment"]["PORT"]}
    exposed |= {web["ports"][0].split(":")[-1]}
    machine = kits.fly_toml()
    reported |= {machine["env"]["PORT"]}
    exposed |= {str(machine["http_service"]["internal_port"])}
    (container,) = (c for pod in kits.pods() for c in pod["containers"] if c["name"] == "web")
    reported |= {v["value"] for v in container["env"] if v["name"] == "PORT"}
    exposed |= {str(container["ports"][0]["containerPort"])}
    reported |= {v["value"] for s in kits.render_services() for v in s["envVars"] if v.get("key") == "PORT"}
    assert reported == exposed == {str(SETTINGS["PORT"].default)}


def test_nothing_that_runs_it_needs_root_or_a_writable_disk() -> None:
    (user,) = (rest for word, rest in kits.dockerfile() if word == "USER")
    uid = int(user.split(":")[0])
    assert uid > 0
    for pod in kits.pods():
        (container,) = pod["containers"]
        assert (pod["securityContext"]["runAsNonRoot"], pod["securityContext"]["runAsUser"]) == (True, uid)
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert pod["automountServiceAccountToken"] is False
    for name, service in kits.compose_services().items():
        if name != "postgres":
            assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])


def test_in_kubernetes_selectors_find_their_pods() -> None:
    found = kits.kubernetes_objects()
    labels = [o["spec"]["template"]["metadata"]["labels"] for o in found if o["kind"] == "Deployment"]
    selectors = [
        o["spec"]["selector"].get("matchLabels", o["spec"]["selector"])
        for o in found
        if o["kind"] in {"Deployment", "Service", "PodDisruptionBudget"}
    ]
    assert len(selectors) == 5
    for selector in selectors:
        assert sum(selector.items() <= own.items() for own in labels) == 1


def test_in_kubernetes_a_reconcile_never_runs_twice_at_once_and_does_not_repeat_what_the_brake_holds() -> None:
    (job,) = (o for o in kits.kubernetes_objects() if o["kind"] == "CronJob")
    assert job["spec"]["concurrencyPolicy"] == "Forbid"
    (rule,) = job["spec"]["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]
    assert (rule["action"], rule["onExitCodes"]["values"]) == ("FailJob", [3])


def test_one_process_reconciles_each_night_on_platforms_without_a_scheduler_of_ours() -> None:
    assert kits.compose_services()["worker"]["environment"]["RECONCILE_AT"]
    assert kits.fly_toml()["env"]["RECONCILE_AT"]
    assert json.loads((ROOT / "app.json").read_text())["env"]["RECONCILE_AT"]["value"]


def test_on_fly_nothing_sleeps_and_the_files_it_names_are_there() -> None:
    machine = kits.fly_toml()
    assert machine["http_service"]["auto_stop_machines"] == "off"
    assert (DEPLOY / machine["build"]["dockerfile"]).is_file()
    groups = set(machine["processes"])
    assert set(machine["http_service"]["processes"]) == {"web"} <= groups


def test_on_render_each_reference_leads_somewhere() -> None:
    services = {(s["type"], s["name"]): {v["key"] for v in s["envVars"] if "key" in v} for s in kits.render_services()}
    databases = {d["name"] for d in yaml.safe_load((DEPLOY / "render.yaml").read_text())["databases"]}
    for service in kits.render_services():
        assert (ROOT / service["dockerfilePath"]).is_file()
        for variable in service["envVars"]:
            assert_leads_somewhere(variable, services, databases)


def assert_leads_somewhere(
    variable: dict[str, Any], services: dict[tuple[str, str], set[str]], databases: set[str]
) -> None:
    if "fromService" in variable:
        source = variable["fromService"]
        assert source["envVarKey"] in services[source["type"], source["name"]]
    elif "fromGroup" in variable:
        assert variable["fromGroup"] == kits.render_group()["name"]
    elif "fromDatabase" in variable:
        assert variable["fromDatabase"]["name"] in databases
    else:
        assert set(variable) & {"value", "sync", "generateValue"}


def test_heroku_shows_what_each_variable_is_for() -> None:
    manifest = json.loads((ROOT / "app.json").read_text())
    assert [name for name, variable in manifest["env"].items() if not variable.get("description")] == []
    assert set(manifest["formation"]) | {"release"} == {
        line.split(":")[0] for line in (ROOT / "Procfile").read_text().splitlines()
    }


@pytest.mark.parametrize("name", ["sync-worker.service", "sync-worker-reconcile.service"])
def test_both_systemd_services_are_one_user_with_one_folder_and_the_same_walls(name: str) -> None:
    services = {name: dict(unit["Service"]) for name, unit in kits.units().items() if "Service" in unit}
    service = services[name]
    walls = [key for key in service if key.startswith(("Protect", "Private", "Restrict", "SystemCall"))]
    assert len(walls) >= 15
    for key in [
        *walls,
        "User",
        "DynamicUser",
        "StateDirectory",
        "NoNewPrivileges",
        "MemoryDenyWriteExecute",
        "Environment",
    ]:
        assert service[key] == services["sync-worker.service"][key]
    assert (service["ProtectSystem"], service["DynamicUser"], service["CapabilityBoundingSet"]) == ("strict", "yes", "")


def test_the_systemd_timer_starts_the_reconcile_service() -> None:
    timer = kits.units()["sync-worker-reconcile.timer"]
    assert timer["Timer"]["Persistent"] == "yes"
    assert timer["Timer"].get("Unit", "sync-worker-reconcile.service") in kits.units()

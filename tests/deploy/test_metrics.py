"""The alerts and the dashboard query metrics that exist, and every alert says what to do."""

from __future__ import annotations

import json
import re
from itertools import combinations
from typing import Any

import typer.main
import yaml

from sync_worker.cli import app
from sync_worker.diagnostics.metrics import NAMES
from tests.kits import DEPLOY


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    board: dict[str, Any] = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())
    return board


def requested(expressions: list[str]) -> set[str]:
    return {name for expression in expressions for name in re.findall(r"sync_worker_\w+", expression)}


def test_alerts_ask_only_for_metrics_that_the_worker_tells() -> None:
    assert requested([rule["expr"] for rule in alerts()]) - NAMES == set()


def test_the_dashboard_shows_every_metric() -> None:
    shown = requested([t["expr"] for panel in dashboard()["panels"] for t in panel["targets"]])
    assert {name for name in NAMES if not name.endswith(("_sum", "_count"))} == shown


def test_what_every_web_process_reports_is_never_added_up_over_processes() -> None:
    queries = [rule["expr"] for rule in alerts()]
    queries += [t["expr"] for panel in dashboard()["panels"] for t in panel["targets"]]
    added_up = [query for query in queries if re.search(r"sum(?: by \([^)]*\))? ?\((?!max)", query)]
    assert [query for query in added_up if "histogram_quantile" not in query] == []  # it only compares buckets


def test_each_alert_names_a_next_step_and_only_commands_that_exist() -> None:
    verbs = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]  # click's group, typed as a command
    for rule in alerts():
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert rule["annotations"]["summary"].endswith(".")
        named = re.findall(r"sync-worker (\w+)", rule["annotations"]["next_step"])
        assert set(named) <= verbs, rule["alert"]


def test_each_alert_is_specified_to_fire_and_to_be_silent() -> None:
    specified = (DEPLOY / "prometheus" / "alerts_test.yaml").read_text()
    for rule in alerts():
        assert f"alertname: {rule['alert']}, exp_alerts: []" in specified
        assert re.search(rf'alertname="{rule["alert"]}"', specified), rule["alert"]


def test_the_panels_of_the_dashboard_have_ids_of_their_own_and_do_not_overlap() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for one, other in combinations([panel["gridPos"] for panel in panels], 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        apart = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or apart
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in panels)

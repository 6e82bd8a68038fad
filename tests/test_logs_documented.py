"""`docs/logs.md` lists each event that the program can log, and no other."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
DOCUMENT = ROOT / "docs" / "logs.md"
LEVELS = {"debug", "info", "warning", "error", "critical", "exception", "log"}


def is_log(node: ast.expr) -> bool:
    """Return whether it is `log.info`, or a choice between such: `(log.error if … else log.info)`."""
    if isinstance(node, ast.IfExp):
        return is_log(node.body) and is_log(node.orelse)
    return (
        isinstance(node, ast.Attribute)
        and node.attr in LEVELS
        and isinstance(node.value, ast.Name)
        and node.value.id == "log"
    )


def events(file: Path) -> list[str]:
    """Return the events of one module; a name that is no literal is returned as code, and so is found nowhere."""
    calls = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call) and is_log(node.func)]
    names = (call.args[1 if isinstance(call.func, ast.Attribute) and call.func.attr == "log" else 0] for call in calls)
    return [str(name.value) if isinstance(name, ast.Constant) else ast.unparse(name) for name in names]


@cache
def logged() -> frozenset[str]:
    return frozenset(event for file in (ROOT / "sync_worker").rglob("*.py") for event in events(file))


def documented() -> list[str]:
    return re.findall(r"^\| `(\w+)` \| [^|]+\| [^|]+\|$", DOCUMENT.read_text(), re.MULTILINE)


def test_every_event_is_documented_once_with_when_it_comes_and_what_to_do() -> None:
    assert sorted(documented()) == sorted(logged())


def test_events_are_named_as_facts_in_snake_case() -> None:
    assert [event for event in logged() if not re.fullmatch(r"[a-z]+(_[a-z]+)*", event)] == []


def test_the_readme_leads_to_the_list() -> None:
    assert "docs/logs.md" in (ROOT / "README.md").read_text()

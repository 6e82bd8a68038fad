"""README and docs/ are part of the product: they name everything that there is, and nothing else."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer.main

from sync_worker import DOCUMENTATION
from sync_worker import REPOSITORY as SHOWN_REPOSITORY
from sync_worker.cli import app
from sync_worker.cli.demo import story
from sync_worker.diagnostics.issues import NEXT_STEPS
from sync_worker.diagnostics.metrics import METRICS, NAMES
from sync_worker.diagnostics.situations import EVENTS
from sync_worker.domain.work import CauseKind
from sync_worker.errors import SyncWorkerError
from sync_worker.settings import Settings
from sync_worker.web.app import create_app
from sync_worker.webhooks.receiver import ACCEPTED, IGNORED, REFUSALS
from tests.test_logs_documented import logged

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
DOCS = ROOT / "docs"
PAGES = [README, *sorted(DOCS.glob("*.md")), ROOT / "deploy" / "README.md"]
REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]
OTHER_VARIABLES = {
    *("SANITY_MANAGE_TOKEN", "DATABASE_URL_TEST", "HOSTILE_EVERY", "FAILED_ONCE", "CLERK_OPENAPI"),
    *("CRASH_WEBHOOKS", "CRASH_KILLS", "LISTEN_EVENTS", "LISTEN_KILLS", "CRASH_LEASE", "CRASH_EDITS", "CRASH_SEED"),
    *("CONTRACT_CLERK_SECRET_KEY", "CONTRACT_SANITY_PROJECT_ID", "CONTRACT_SANITY_DATASET", "CONTRACT_SANITY_TOKEN"),
    *("GH_TOKEN", "POSTGRES_PASSWORD", "SYNC_WORKER_URL", "SYNC_WORKER_ADMIN_TOKEN", "STUDIO_ORIGINS"),
    *("CLERK_JWT_KEY", "APP_ORIGINS", "NEXT_PUBLIC_CLERK_PUBLISHABLE_KEY", "NO_COLOR"),
}
"""Read by one command, by the tests, by a kit or by GitHub; no settings."""
OTHER_WORDS = {
    "not_found",
    "method_not_allowed",
    "synchronous_commit",
    "next_step",
    "full_size",
    "the_rest",
    "publish_latency_seconds",
    "queue_seconds",
    "event_type",
    "no_filter",
    "bad_query",
    "bad_id",
    "too_many_guesses",
}
"""Answers of the web application, and words of PostgreSQL, of the tests and of log lines."""

by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def commands() -> dict[str, Any]:
    """Return every command by the words that it is called with; a group may be a command too."""
    found: dict[str, Any] = {}
    for name, command in vars(typer.main.get_command(app))["commands"].items():
        inner = getattr(command, "commands", {})
        if not inner or command.invoke_without_command:
            found[name] = command
        default = getattr(command, "default_command", None)
        found |= {name if word == default else f"{name} {word}": one for word, one in inner.items()}
    return found


def setting_row(name: str) -> str:
    """Return the row of a setting, made from the setting itself."""
    field = Settings.model_fields[name]
    default = "" if field.is_required() or field.default in (None, (), "", 0) else f"`{field.default}`"
    return f"| `{name.upper()}` | {default} | {' '.join((field.description or '').split())} |"


def first_cells(page: Path, pattern: str) -> list[str]:
    """Return what `pattern` finds at the beginning of the rows of a page's tables."""
    return re.findall(rf"^\| `{pattern}", page.read_text(), re.MULTILINE)


def code(page: Path) -> str:
    """Return what a page shows as code: between backticks, in blocks, and indented."""
    text = page.read_text()
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    text = re.sub(r"^```\w*\n.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return "\n".join([*blocks, *re.findall(r"^ {4,}(.+)$", text, re.MULTILINE), *re.findall(r"`([^`\n]+)`", text)])


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub makes of the headings of a page."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^a-z0-9 _-]", "", title.lower()).replace(" ", "-") for title in titles}


def test_operations_lists_every_command_and_no_other() -> None:
    rows = first_cells(DOCS / "operations.md", r"sync-worker ([a-z]+(?: [a-z]+)*)")
    assert sorted(rows) == sorted(commands())


def test_every_command_has_an_example_in_its_help() -> None:
    assert [name for name, one in commands().items() if f"Example: sync-worker {name}" not in (one.help or "")] == []


def test_settings_lists_every_setting_once_with_its_default_and_meaning() -> None:
    rows = [line for line in (DOCS / "settings.md").read_text().splitlines() if line.startswith("| `")]
    assert sorted(rows) == sorted(map(setting_row, Settings.model_fields))


def test_metrics_lists_every_metric_and_no_other() -> None:
    assert first_cells(DOCS / "metrics.md", r"(\w+)") == [metric.name for metric in METRICS]


def test_notices_lists_every_event_and_no_other() -> None:
    assert sorted(first_cells(DOCS / "notices.md", r"(\w+)`")) == sorted(EVENTS)


def test_http_lists_every_route_and_no_other() -> None:
    needed: dict[str, Any] = {
        "sanity_project_id": "p",
        "sanity_read_token": "t",
        "clerk_secret_key": "sk_test_1",
        "admin_token": "a token that is long enough",
    }
    routes: list[Any] = create_app(Settings(_env_file=None, **needed)).routes
    answered = [
        f"{method} {re.sub(':path}', '}', route.path)}" for route in routes for method in route.methods - {"HEAD"}
    ]
    # A trailing slash is the same route, and what else is under /webhooks/ is answered 404.
    known = [route for route in answered if not route.endswith(("/", "{_}"))]
    assert sorted(first_cells(DOCS / "http.md", r"((?:GET|POST) [^`]+)`")) == sorted(known)


def test_http_lists_every_refusal_of_a_webhook_with_its_status() -> None:
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", (DOCS / "http.md").read_text(), re.MULTILINE)
    assert {name: int(status) for status, name in rows} == REFUSALS


def test_the_readme_shows_the_demo() -> None:
    text = README.read_text()
    assert [step.title for step in story() if step.title not in text] == []


def test_development_lists_every_file_that_leaves_something_to_the_full_run() -> None:
    marks = re.compile(r"mark\.full\(|\bfull_size\b|\bsizes\(|\bthe_rest\(")
    files = {
        str(file.relative_to(ROOT)) for file in (ROOT / "tests").rglob("*.py") if marks.search(file.read_text())
    } - {"tests/sizes.py", "tests/test_docs.py"}
    _, _, section = (DOCS / "development.md").read_text().partition("## What is left to the full run")
    table, _, _ = section.partition("\n## ")
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    listed = {file for row in rows for file in re.findall(r"`([^`]+)`", row)} - {"tests/blackbox/test_tracing.py"}
    assert listed == files


@by_page
def test_a_page_names_no_command_or_option_that_there_is_not(page: Path) -> None:
    known, wrong = commands(), []
    text = code(page).replace("python -m sync_worker", "sync-worker")
    for line in re.findall(r"(?<![\w-])sync-worker (?!sync-worker)([a-z][^#\"`|&>\n]*)", text):
        words = line.replace(":", " ").split()
        name = next((name for name in (" ".join(words[:2]), words[0]) if name in known), "")
        options = {option for one in (known[name].params if name else ()) for option in one.opts} | {"--help"}
        if not name or {word for word in words if word.startswith("--")} - options:
            wrong.append(line)
    assert wrong == []


@by_page
def test_a_page_names_no_setting_that_there_is_not(page: Path) -> None:
    known = {name.upper() for name in Settings.model_fields} | OTHER_VARIABLES
    assert set(re.findall(r"(?<![\w@/.-])[A-Z]+(?:_[A-Z]+)+(?![\w-])", code(page))) - known == set()


@by_page
def test_a_page_names_no_metric_that_there_is_not(page: Path) -> None:
    known = NAMES | {metric.name for metric in METRICS}
    assert set(re.findall(r"(?<![\w/.])sync_worker_\w+", page.read_text())) - known == set()


def all_errors(error: type[SyncWorkerError] = SyncWorkerError) -> set[str]:
    return {error().code}.union(*map(all_errors, error.__subclasses__()))


@by_page
def test_a_page_names_no_event_or_code_that_there_is_not(page: Path) -> None:
    known = {*logged(), *EVENTS, *all_errors(), *NEXT_STEPS, *REFUSALS, ACCEPTED, IGNORED, *NAMES, *OTHER_WORDS}
    known |= {metric.name for metric in METRICS} | {*CauseKind}
    assert set(re.findall(r"`([a-z]+(?:_[a-z]+)+)`", page.read_text())) - known == set()


@by_page
def test_a_page_names_no_file_that_there_is_not(page: Path) -> None:
    named = set(re.findall(r"`((?:sync_worker|tests|docs|groq|deploy|bench)/[\w./-]*)`", page.read_text()))
    assert sorted(name for name in named if not (ROOT / name).exists()) == []


@by_page
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        address, _, anchor = link.partition("#")
        if address.startswith(REPOSITORY):
            target = ROOT / re.sub(r"^/(?:blob|tree)/main/", "", address.removeprefix(REPOSITORY))
        elif "://" in address:
            continue
        else:
            target = page.parent / address if address else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_the_readme_has_absolute_links_because_package_indexes_show_it_too() -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", README.read_text())
    assert [link for link in links if not link.startswith("https://")] == []
    assert [link for link in links if "github.com" in link and not link.startswith(f"{REPOSITORY}/")] == []


def test_the_readme_leads_to_every_page() -> None:
    text = README.read_text()
    assert [page.name for page in DOCS.glob("*.md") if f"{REPOSITORY}/blob/main/docs/{page.name}" not in text] == []


def test_messages_link_to_pages_of_the_project() -> None:
    text = "".join(file.read_text() for file in (ROOT / "sync_worker").rglob("*.py"))
    linked = re.findall(rf"(?:{{DOCUMENTATION}}|{re.escape(DOCUMENTATION)})/([a-z-]+\.md)", text)
    assert linked
    assert [page for page in linked if not (DOCS / page).exists()] == []
    assert SHOWN_REPOSITORY == REPOSITORY


def test_messages_name_no_file_that_the_wheel_lacks() -> None:
    named = re.compile(r"""(?<![\w/}])(?:docs/[\w-]+\.md|README\.md)""")
    code = {file: file.read_text().partition('"""\n')[2] for file in (ROOT / "sync_worker").rglob("*.py")}
    assert [str(file) for file, text in code.items() if named.search(text)] == []


def test_the_project_has_its_addresses_under_one_repository() -> None:
    addresses = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]
    assert {"Repository", "Documentation", "Changelog", "Issues"} <= addresses.keys()
    assert [address for address in addresses.values() if not address.startswith(REPOSITORY)] == []

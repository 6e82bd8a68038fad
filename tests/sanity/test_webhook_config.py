"""`sync-worker webhook install`, as operators run it, against the management API of the sandbox."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from sync_worker.cli.processes import SECRET, install_hook, settings_for
from sync_worker.sanity.client import Queries
from sync_worker.settings import packaged_groq
from tests.nursery import Ended, run
from tests.oracle import GUARD

if TYPE_CHECKING:
    from pathlib import Path

    from sync_worker.sandbox.server import Sandbox
    from sync_worker.sandbox.webhooks import Hook

pytestmark = pytest.mark.anyio
HOST = "https://sync.example.com"
URL = f"{HOST}/webhooks/sanity"


@dataclass(frozen=True)
class Operator:
    """An operator who may manage webhooks, with a worker that may only read."""

    box: Sandbox
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        return {**settings_for(self.box, "sqlite:///work.db"), "SANITY_MANAGE_TOKEN": self.box.lake.token}

    async def install(self, *arguments: str, url: str = URL, **environment: str) -> Ended:
        given = {**self.environment, **environment}
        return await run("webhook", "install", "--url", url, *arguments, cwd=self.folder, environment=given)

    async def install_on_a_terminal(self, answer: str) -> int:
        """Install as somebody who reads the question and types an answer."""
        terminal, keyboard = os.openpty()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "sync_worker", "webhook", "install", "--url", URL),
            env={"PATH": os.environ["PATH"], **self.environment},
            cwd=self.folder,
            stdin=keyboard,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        os.close(keyboard)
        assert process.stderr is not None
        async with asyncio.timeout(GUARD):
            assert b"Create it?" in await process.stderr.readuntil(b"]:")
            os.write(terminal, f"{answer}\n".encode())
            await process.communicate()
        os.close(terminal)
        assert process.returncode is not None
        return process.returncode

    async def report(self, *arguments: str, **environment: str) -> dict[str, Any]:
        """Return the JSON report, and the exit code."""
        ended = await self.install("--json", *arguments, **environment)
        return {"code": ended.code, **json.loads(ended.out)}

    @property
    def hooks(self) -> list[Hook]:
        return list(self.box.lake.webhooks.hooks.values())

    def writes(self) -> int:
        return sum(self.box.lake.requests.count(method, "/v2025-02-19/hooks") for method in ("POST", "PATCH", "DELETE"))


@pytest.fixture
def operator(box: Sandbox, tmp_path: Path) -> Operator:
    return Operator(box, tmp_path)


def fields(report: dict[str, Any]) -> list[str]:
    return [difference["field"] for difference in report["differences"]]


async def test_a_missing_webhook_is_created_with_everything_the_worker_needs(operator: Operator) -> None:
    report = await operator.report("--yes")
    (hook,) = operator.hooks
    assert (report["code"], report["action"], report["applied"], report["id"]) == (0, "create", True, hook.id)
    queries = Queries.load(packaged_groq())
    assert (hook.url, hook.dataset, hook.secret, hook.http_method) == (URL, "production", SECRET, "POST")
    assert (hook.filter, hook.projection) == (queries.webhook_filter, queries.webhook_projection)
    assert (set(hook.on), hook.include_drafts, hook.include_all_versions) == (
        {"create", "update", "delete"},
        False,
        False,
    )


async def test_a_correct_webhook_is_not_changed(operator: Operator) -> None:
    await operator.install("--yes")
    before = operator.hooks
    operator.box.lake.requests.clear()
    again = await operator.install()
    assert (again.code, operator.hooks, operator.writes()) == (0, before, 0)
    assert "is up to date" in again.out


@pytest.mark.parametrize(
    ("fault", "field"),
    [
        ({"dataset": "*"}, "dataset"),
        ({"is_disabled_by_user": True}, "state"),
        ({"on": ("create", "update")}, "trigger on"),
        ({"filter": '_type == "entitlement"'}, "filter"),
        ({"projection": "{_id}"}, "projection"),
        ({"secret": "another"}, "secret"),
        ({"secret": ""}, "secret"),
        ({"include_drafts": True}, "drafts"),
        ({"include_all_versions": True}, "versions"),
        ({"http_method": "PUT"}, "method"),
        ({"api_version": "v2019-01-29"}, "API version"),
    ],
)
async def test_each_difference_of_the_webhook_is_reported_and_repaired(
    operator: Operator, fault: dict[str, Any], field: str
) -> None:
    hook = install_hook(operator.box, HOST)
    await operator.box.lake.webhooks.change(hook.id, **fault)
    report = await operator.report("--yes")
    assert (report["action"], fields(report), report["id"]) == ("change", [field], hook.id)
    assert (await operator.report())["action"] == "none"


async def test_a_repair_leaves_name_headers_and_a_newer_api_version_alone(operator: Operator) -> None:
    kept = {"name": "Access", "headers": {"x-proxy": "1"}, "api_version": "v2025-02-19"}
    hook = install_hook(operator.box, HOST)
    await operator.box.lake.webhooks.change(hook.id, **kept, dataset="*")
    assert fields(await operator.report("--yes")) == ["dataset"]
    (repaired,) = operator.hooks
    assert {name: getattr(repaired, name) for name in kept} == kept


async def test_line_breaks_and_indentation_of_a_filter_do_not_matter(operator: Operator) -> None:
    hook = install_hook(operator.box, HOST)
    await operator.box.lake.webhooks.change(hook.id, filter=f"\n  {hook.filter.replace(chr(10), '')}\r\n")
    assert (await operator.report())["action"] == "none"


async def test_a_dry_run_reports_and_writes_nothing(operator: Operator) -> None:
    ended = await operator.install("--dry-run")
    assert (ended.code, operator.hooks, operator.writes()) == (2, [], 0)
    assert "There is no webhook for this URL" in ended.out
    assert "webhook_filter.groq" in ended.out
    install_hook(operator.box, HOST)
    assert (await operator.install("--dry-run")).code == 0


async def test_without_a_terminal_nothing_is_changed_without_yes(operator: Operator) -> None:
    ended = await operator.install()
    assert (ended.code, operator.hooks) == (1, [])
    assert "--yes" in ended.err


async def test_on_a_terminal_the_answer_decides(operator: Operator) -> None:
    assert (await operator.install_on_a_terminal("n"), operator.hooks) == (1, [])
    assert (await operator.install_on_a_terminal("y"), len(operator.hooks)) == (0, 1)


async def test_a_token_without_permission_is_refused_with_how_to_get_one(operator: Operator) -> None:
    ended = await operator.install("--yes", SANITY_MANAGE_TOKEN="")
    assert (ended.code, operator.hooks) == (1, [])
    assert "missing required grant sanity.project.webhooks/read" in ended.err
    assert "SANITY_MANAGE_TOKEN" in ended.err
    assert "Traceback" not in ended.err


async def test_an_invalid_token_is_distinguished_from_one_without_permission(operator: Operator) -> None:
    ended = await operator.install("--yes", SANITY_MANAGE_TOKEN="gone")
    assert ended.code == 1
    assert "Session not found (SANITY_MANAGE_TOKEN" in ended.err


async def test_a_change_that_had_no_effect_is_an_error(operator: Operator) -> None:
    hook = install_hook(operator.box, HOST)
    await operator.box.lake.webhooks.change(hook.id, is_disabled_by_platform=True)
    ended = await operator.install("--yes")
    assert ended.code == 1
    assert "state is disabled, expected enabled" in ended.err
    assert "Delete it" in ended.err


async def test_a_lost_response_does_not_create_a_second_webhook(operator: Operator) -> None:
    operator.box.lake.faults.next("lost", 1, method="POST")
    assert (await operator.install("--yes")).code == 1
    assert len(operator.hooks) == 1
    assert (await operator.report("--yes"))["action"] == "none"


async def test_webhooks_that_post_elsewhere_or_twice_are_reported(operator: Operator) -> None:
    managed, double = install_hook(operator.box, HOST), install_hook(operator.box, HOST)
    old = install_hook(operator.box, "https://old.example.com")
    unrelated = operator.box.lake.add_hook("https://site.example.com/api/revalidate")
    report = await operator.report()
    assert (report["action"], report["id"]) == ("none", managed.id)
    assert {other["id"] for other in report["others"]} == {double.id, old.id}
    assert unrelated.id not in (await operator.install()).err


async def test_no_secret_is_printed(operator: Operator) -> None:
    hook = install_hook(operator.box, HOST, secret="planted-secret")
    for ended in (await operator.install("--dry-run"), await operator.install("--yes", "--json")):
        assert "secret" in ended.out
        assert "planted" not in ended.out + ended.err
        assert SECRET not in ended.out + ended.err
    assert operator.box.lake.webhooks.hooks[hook.id].secret == SECRET


async def test_without_a_secret_no_webhook_is_created(operator: Operator) -> None:
    ended = await operator.install("--yes", SANITY_WEBHOOK_SECRET="")
    assert (ended.code, operator.hooks) == (1, [])
    assert "SANITY_WEBHOOK_SECRET is not set" in ended.err


async def test_during_rotation_the_first_secret_is_installed(operator: Operator) -> None:
    install_hook(operator.box, HOST, secret="old")
    assert fields(await operator.report("--yes", SANITY_WEBHOOK_SECRET="new-webhook-secret,old-webhook-secret")) == [
        "secret"
    ]
    assert [hook.secret for hook in operator.hooks] == ["new-webhook-secret"]


@pytest.mark.parametrize(
    "url", ["sync.example.com/webhooks/sanity", HOST, f"{HOST}/webhooks/sanity/", "ftp://x/webhooks/sanity"]
)
async def test_a_url_that_is_not_of_this_program_is_refused(operator: Operator, url: str) -> None:
    ended = await operator.install("--yes", url=url)
    assert (ended.code, operator.hooks) == (1, [])
    assert "https://your-host/webhooks/sanity" in ended.err

"""What doctor says of the installation's own folder of queries."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from sync_worker.doctor.runner import Status
from sync_worker.settings import packaged_groq
from tests.doctor.installations import Installation, having

if TYPE_CHECKING:
    from pathlib import Path


pytestmark = pytest.mark.anyio


@pytest.fixture
def groq(installed: Installation, tmp_path: Path) -> Path:
    """The installation's own folder of queries."""
    folder = tmp_path / "groq"
    shutil.copytree(packaged_groq(), folder)
    installed.reconfigure(groq_dir=folder)
    return folder


@pytest.mark.parametrize(
    ("file", "change", "result"),
    [
        ("entitlement", ("  role,", '  "rolle": role,'), '"role" is missing'),
        ("entitlement", ("  role,", '  "role": [role],'), '"role" is a list, but must be a single value'),
        ("entitlement", ("  role,", "  role,,"), "Sanity answered 400"),
        ("by_subject", ("clerkUserId in $users", "clerkId in $users"), "by_subject.groq does not find it"),
        ("by_subject", ("clerkUserId in $users", "defined(clerkUserId)"), "for an empty list of subjects"),
        ("by_subject", ('"visible"', '"seen"'), 'did not return "visible" as a number'),
        ("everything", ('"remaining"', '"left"'), 'did not return "remaining" as a number'),
        ("changed", ('"changed"', '"rows"'), 'did not return "changed" as a list'),
        ("affected", ("*[", "*[["), "affected.groq: Sanity answered 400"),
        ("webhook_filter", ('"entitlement", ', ""), "webhook_filter.groq, line 1: it does not let ent-1 through"),
        (
            "webhook_projection",
            ('"after": after(){_type, clerkUserId,', '"after": after(){_type, clerkId,'),
            'webhook_projection.groq, line 13: "after" lacks clerkUserId, which ent-1 has',
        ),
        (
            "webhook_projection",
            ('"type": coalesce(after()._type, before()._type)', '"type": "access"'),
            'webhook_projection.groq, line 9: "type" of ent-1 is access, expected entitlement',
        ),
        ("webhook_projection", ('"v": 1,', '"v": 1,,'), "webhook_projection.groq: Sanity answered 400"),
    ],
)
async def test_a_query_with_the_wrong_result_is_named(
    installed: Installation, groq: Path, file: str, change: tuple[str, str], result: str
) -> None:
    text = (groq / f"{file}.groq").read_text()
    assert change[0] in text
    (groq / f"{file}.groq").write_text(text.replace(*change))
    findings = await installed.examine()
    assert "projection" in having(findings, Status.PROBLEM)
    assert result in findings["projection"].result


async def test_the_webhooks_files_do_not_matter_to_an_installation_that_listens(
    installed: Installation, groq: Path
) -> None:
    (groq / "webhook_projection.groq").write_text('{"v": 1}')
    assert (await installed.examine())["projection"].status is Status.PROBLEM
    installed.reconfigure(events="listen")
    assert (await installed.examine())["projection"].status is Status.OK


async def test_a_filter_that_only_a_webhook_can_evaluate_is_left_to_it(installed: Installation, groq: Path) -> None:
    text = (groq / "webhook_filter.groq").read_text()
    (groq / "webhook_filter.groq").write_text(f"({text}) && delta::changedAny((plan, courses))")
    assert (await installed.examine())["projection"].status is Status.OK

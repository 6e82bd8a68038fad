"""What the worker logs of its runs, and what it never does."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from sync_worker.worker import lookups
from tests.builders import created
from tests.oracle import until
from tests.parts import working
from tests.worker.items import enqueue, row_of

if TYPE_CHECKING:
    from sync_worker.sandbox.server import Sandbox

pytestmark = pytest.mark.anyio


async def test_no_address_and_no_key_is_in_the_log(box: Sandbox, sqlite_url: str) -> None:
    await box.lake.mutate([created("e1", "ada@example.com", plan="pro")])
    with capture_logs() as logs:
        async with working(box, sqlite_url) as parts:
            await enqueue(parts, "document:e1", lane=1)
            await until(lambda: any(line["event"] == "document_fanned_out" for line in logs))
            row = await row_of(parts, "document:e1")
    assert row.error_code == "row_refused"
    reported = json.dumps(logs, default=str) + row.error_detail
    assert "ada@" not in reported
    assert box.clerk.secret_key not in reported


async def test_a_bug_is_logged_with_its_subjects_but_no_address(
    box: Sandbox, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(lookups, "owners", broken)
    async with working(box, sqlite_url) as parts:
        with capture_logs() as logs:
            await enqueue(parts, "email:ada@example.org", "external:crm-7", "document:e1")
            await until(lambda: any(line["event"] == "run_crashed" for line in logs))
    assert "example.org" not in json.dumps(logs, default=str)
    assert any("document:e1" in line.get("keys", ()) for line in logs)


async def test_claims_that_would_not_fit_a_cookie_are_written_and_logged_with_their_size(
    box: Sandbox, sqlite_url: str
) -> None:
    box.clerk.add_user("user_1")
    await box.lake.mutate([created("e1", "user_1", plan="pro", role="x" * 900)])
    with capture_logs() as logs:
        async with working(box, sqlite_url, claims_budget=800) as parts:
            await enqueue(parts, "user:user_1")
            await until(lambda: any(line["event"] == "claims_large" for line in logs))
    (reported,) = (line for line in logs if line["event"] == "claims_large")
    held = json.dumps(box.clerk.users["user_1"]["public_metadata"], separators=(",", ":"))
    assert (reported["subject"], reported["bytes"], reported["budget"]) == ("user:user_1", len(held), 800)

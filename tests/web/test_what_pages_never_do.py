"""What no page shows, and what looking at it never does."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from sync_worker.storage.rate_limit import Budget
from sync_worker.web.site import SESSION
from tests.clock import CLOCK, TIMINGS
from tests.web.pages import ADA, EVERY_PAGE, HTML, TOKEN, Web, authenticator, serving

if TYPE_CHECKING:
    from sync_worker.sandbox.server import Sandbox

pytestmark = pytest.mark.anyio


async def test_a_head_is_answered_like_a_get(web: Web) -> None:
    response = await web.client.head("/status", headers={"Authorization": f"Bearer {TOKEN}"})
    assert (response.status_code, response.content) == (200, b"")


@pytest.mark.parametrize("path", EVERY_PAGE)
async def test_nothing_is_kept_framed_sniffed_or_scripted(web: Web, path: str) -> None:
    response = await web.client.get(path, headers={"Authorization": f"Bearer {TOKEN}"})
    headers = response.headers
    assert (headers["cache-control"], headers["x-content-type-options"]) == ("no-store", "nosniff")
    assert (headers["x-frame-options"], headers["referrer-policy"]) == ("DENY", "no-referrer")
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "script-src" not in policy
    assert not re.search(r"<script|\son\w+=|style=|javascript:", response.text)


async def test_no_address_is_shown_anywhere(web: Web) -> None:
    web.box.clerk.add_user("user_1", email=ADA)
    await web.publish("e1", userEmail=ADA)
    await web.publish("e2", userEmail="waiting@example.org")
    await web.publish("e3", userExternalId="crm@example.org")
    await web.sync("document:e1", "document:e2", "document:e3", "user:user_1")
    cookie = authenticator().new_session("")
    looked = await web.client.post("/look", data={"what": ADA}, headers={**HTML, "Cookie": f"{SESSION}={cookie}"})
    assert (looked.status_code, "user:user_1" in looked.text) == (200, True)
    shown = [looked.text, str(await web.json("/status")), await web.page("/status")]
    for path in ("/documents/e1", "/documents/e2", "/documents/e3", f"/subjects/email:{ADA}", "/subjects/user:user_1"):
        shown += [await web.page(path), str(await web.json(path))]
    assert not any(re.search(r"(ada|waiting|crm)@", text) for text in shown)
    assert "w***@example.org" in "".join(shown)


async def test_hostile_ids_titles_and_plans_are_only_text(web: Web) -> None:
    hostile = "\"><script>alert(1)</script><img src=x onerror='x'>"
    web.box.clerk.add_user("user_1", external_id="<b>7</b>", public_metadata={"plan": hostile})
    await web.publish("e1", clerkUserId="user_1", plan=hostile, status=hostile, title=hostile)
    await web.publish("e2", userExternalId="<b>8</b>")
    await web.publish("e3", clerkUserId=hostile)
    await web.sync("user:user_1", "document:e2", "document:e3")
    pages = [
        await web.page(path)
        for path in ("/status", "/documents/e1", "/documents/e2", "/documents/e3", "/subjects/external:<b>8</b>")
    ]
    assert all("<script" not in page and "<img" not in page and "<b>8" not in page for page in pages)
    assert "alert(1)" in "".join(pages)
    problem = await web.client.get("/sign-in", params={"next": f"/status{hostile}"})
    assert "<script" not in problem.text


async def test_looking_writes_nothing(web: Web) -> None:
    web.box.clerk.add_user("user_1")
    await web.publish("e1", clerkUserId="user_1")
    for path in ("/status", "/documents/e1", "/subjects/user:user_1"):
        await web.page(path)
    assert web.box.clerk.requests.writes == []


async def test_looking_takes_no_call_that_is_kept_for_editors(box: Sandbox, sqlite_url: str) -> None:
    async with serving(box, sqlite_url, clerk_budget=20) as web:
        pages = web.app.state.pages
        web.app.state.pages = replace(pages, explainer=replace(pages.explainer, patience=0.5))
        budget = Budget(web.store.database, "clerk", 20, CLOCK, TIMINGS)
        while await budget.left(2):
            await budget.take(2)
        data = await web.json("/subjects/user:user_1")
        assert (data["state"], "did not answer" in data["reason"]) == ("unknown", True)
        assert (await budget.left(0), box.clerk.requests.count()) == (1, 0)

"""The pages for daily use: names, search by name, changes, issues, holders, time zones, and the safe buttons."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import pytest

from sync_worker.domain.work import Cause, CauseKind
from sync_worker.runtime.service import running_worker
from sync_worker.storage.work_items import WorkItem
from sync_worker.web.lists import SHOWN
from sync_worker.web.site import SESSION, ZONE
from tests.web.pages import HTML, JSON, TOKEN, Web, authenticator, serving, words

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import httpx

    from sync_worker.sandbox.server import Sandbox

pytestmark = pytest.mark.anyio
ADA, BEN = "user:user_ada", "user:user_ben"
STUDIO = "https://acme.sanity.studio"


@pytest.fixture
async def web(box: Sandbox, sqlite_url: str) -> AsyncIterator[Web]:
    """Ada has pro, and had basic before; Ben's plan is refused."""
    box.clerk.add_user("user_ada", email="ada@example.org", first_name="Ada", last_name="Lovelace")
    box.clerk.add_user("user_ben", email="ben@example.org", first_name="Ben", last_name="Lovecraft")
    async with serving(box, sqlite_url, studio_url=f"{STUDIO}/") as web:
        await web.publish("e1", clerkUserId="user_ada", plan="basic")
        await web.sync(ADA)
        await web.publish("e1", clerkUserId="user_ada")
        await web.publish("e2", clerkUserId="user_ben", plan="gold")
        await web.sync(ADA, BEN)
        web.client.cookies.set(SESSION, authenticator().new_session(""))
        yield web


async def look_up(web: Web, what: str) -> httpx.Response:
    return await web.client.post("/look", data={"what": what}, headers=HTML)


@pytest.mark.parametrize("path", ["/status", "/subjects/user:user_ada", "/documents/e1", "/who?plan=pro", "/changes"])
async def test_names_are_shown_beside_ids_and_only_on_pages(web: Web, path: str) -> None:
    assert re.search(r">Ada Lovelace\W+user:user_ada\b", re.sub(r'<span class="id">|</a>', "", await web.page(path)))
    assert "Lovelace" not in str(await web.json(path))


async def test_without_an_answer_of_clerk_pages_show_ids(web: Web) -> None:
    web.box.clerk.faults.some("unauthorized", 1.0)
    page = await web.page("/changes")
    assert (f'href="/subjects/{ADA}"' in page, "Lovelace" in page) == (True, False)


async def test_a_page_of_fifty_people_costs_one_call(web: Web) -> None:
    users = [web.box.clerk.add_user(f"user_{n:03}", username=f"student{n:03}") for n in range(60)]
    for user in users:
        await web.publish(f"ent-{user}", clerkUserId=user)
    await web.sync(*(f"user:{user}" for user in users))
    web.box.clerk.requests.clear()
    page = await web.page("/who?plan=pro")
    assert page.count('<th scope="row">') == page.count('<span class="id">') == SHOWN
    assert web.box.clerk.requests.count() == 1
    assert "61 subjects with plan pro" in words(page)
    assert 'href="/who?plan=pro&amp;page=2"' in page
    assert (await web.page("/who?plan=pro&page=2")).count('<th scope="row">') == 11


async def test_a_name_is_found_and_never_comes_into_an_address(web: Web) -> None:
    found = await look_up(web, "ada love")
    assert (found.status_code, found.headers["location"]) == (303, f"/subjects/{ADA}")
    several = await look_up(web, "love")
    assert several.status_code == 200
    assert [line in several.text for line in (f'href="/subjects/{ADA}"', f'href="/subjects/{BEN}"')] == [True, True]
    assert "a***@example.org" in several.text
    nobody = await look_up(web, "no such person")
    assert (nobody.status_code, "Nobody is found by this name" in nobody.text) == (404, True)
    assert (await look_up(web, "e1")).headers["location"] == "/documents/e1"


async def test_a_search_that_clerk_does_not_answer_says_so(web: Web) -> None:
    web.box.clerk.faults.some("unauthorized", 1.0)
    found = await look_up(web, "ada love")
    assert (found.status_code, "Clerk does not answer" in found.text) == (503, True)


async def test_changes_show_before_and_after_and_how_many_there_were_today(web: Web) -> None:
    data = await web.json("/changes")
    assert [(one["subject"], one["change"]) for one in data["changes"]] == [(ADA, "update"), (ADA, "grant")]
    page = words(await web.page("/changes"))
    assert re.search(r"Granted today\s*1\s*Updated today\s*1\s*Revoked today\s*0", page)
    assert re.search(r"update.*plan basic.*plan pro", page)
    assert [one["change"] for one in (await web.json("/changes?change=grant"))["changes"]] == ["grant"]
    assert (await web.json(f"/changes?subject={BEN}"))["changes"] == []
    assert "Nothing of this kind" in await web.page(f"/changes?subject={BEN}")


async def test_changes_and_the_history_say_who_published(web: Web) -> None:
    web.box.lake.editors["p-grace"] = "Grace Hopper"
    await web.publish("e3", clerkUserId="user_ben", plan="basic")
    cause = Cause(CauseKind.WEBHOOK, "e3", "p-grace")
    await web.store.queue.enqueue([WorkItem(BEN, cause=cause)])
    await web.sync(BEN)
    for path in ("/changes", f"/subjects/{BEN}"):
        assert words(await web.page(path)).count("by Grace Hopper") == 1
        assert "Grace" not in str(await web.json(path))
    web.box.lake.faults.some("unauthorized", 1.0)
    web.app.state.pages.editors._names.clear()
    assert "by p-grace" in words(await web.page("/changes"))


async def test_older_changes_are_one_click_away(web: Web) -> None:
    users = [web.box.clerk.add_user(f"user_{n:03}") for n in range(SHOWN)]
    for user in users:
        await web.publish(f"ent-{user}", clerkUserId=user)
    await web.sync(*(f"user:{user}" for user in users))
    first = await web.json("/changes")
    assert len(first["changes"]) == SHOWN
    rest = await web.json(f"/changes?before={first['older']}")
    assert ([one["subject"] for one in rest["changes"]], rest["older"]) == ([ADA, ADA], None)
    assert f'href="/changes?before={first["older"]}"' in await web.page("/changes")


async def test_a_subject_shows_its_history_and_leads_to_clerk(web: Web) -> None:
    page = await web.page(f"/subjects/{ADA}")
    assert re.search(r"History.*update.*plan basic.*plan pro.*grant", words(page))
    assert 'href="https://dashboard.clerk.com/last-active?path=users/user_ada"' in page
    assert f'href="/changes?subject={ADA.replace(":", "%3A")}"' in page


async def test_issues_lead_to_the_document_in_the_studio_and_can_be_filtered(web: Web) -> None:
    page = await web.page("/issues")
    assert (f'href="{STUDIO}/intent/edit/id=e2"' in page, "Ben Lovecraft" in page) == (True, True)
    assert [one["document"] for one in (await web.json("/issues?state=refused"))["issues"]] == ["e2"]
    assert (await web.json("/issues?state=failed"))["count"] == 0


async def test_without_studio_url_there_are_no_links_into_a_studio(box: Sandbox, sqlite_url: str) -> None:
    async with serving(box, sqlite_url) as web:
        await web.publish("e1", clerkUserId="user_1")
        assert "/intent/" not in await web.page("/documents/e1")


async def test_times_are_shown_in_the_time_zone_that_a_browser_chose(web: Web) -> None:
    assert re.search(r"\d UTC \(\d+ s ago\)", words(await web.page("/changes")))
    sent = await web.client.post("/time-zone", data={"zone": "Asia/Tokyo"}, headers=HTML)
    assert sent.status_code == 303
    assert web.client.cookies[ZONE].strip('"') == "Asia/Tokyo"
    page = (await web.client.get("/changes", headers=HTML)).text
    assert (" JST " in words(page), "Times in Asia/Tokyo" in words(page)) == (True, True)
    web.client.cookies.clear()
    web.client.cookies.set(SESSION, authenticator().new_session(""))
    await web.client.post("/time-zone", data={"zone": "../etc/passwd"}, headers=HTML)
    assert ZONE not in web.client.cookies


async def test_a_page_reloads_only_if_its_reader_chooses_it(web: Web) -> None:
    answers = [await web.client.get(f"/status{query}", headers=HTML) for query in ("", "?refresh")]
    assert [answer.headers.get("refresh") for answer in answers] == [None, "10"]


async def test_sync_now_enqueues_the_subject_and_the_worker_does_it(web: Web) -> None:
    web.box.clerk.update_user("user_ada", public_metadata={"plan": "basic"})
    page = await web.page_of_session(f"/subjects/{ADA}")
    (code,) = re.findall(r'<form class="decide".*?name="code" value="(\w+)"', page, re.DOTALL)
    answer = await web.client.post(f"/subjects/{ADA}", data={"code": code}, headers=HTML)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/subjects/{ADA}")
    async with running_worker(web.settings, web.store):
        while (row := await web.store.queue.get(ADA)) and row.pending:
            await web.store.database.changed(0.05)
    assert web.box.clerk.users["user_ada"]["public_metadata"]["plan"] == "pro"
    assert (await web.store.ledger.history(ADA, 1))[0].cause == "sync"


async def test_what_failed_is_retried_by_a_button(web: Web) -> None:
    await web.publish("e3", clerkUserId="user_late")
    await web.sync("user:user_late")
    row = await web.store.queue.get("user:user_late")
    assert row is not None
    assert row.dead
    (code,) = re.findall(r'name="code" value="(\w+)">\s*<button>Retry', await web.page_of_session("/issues"))
    assert (await web.client.post("/issues", data={"code": code}, headers=HTML)).status_code == 303
    row = await web.store.queue.get("user:user_late")
    assert row is not None
    assert not row.dead


@pytest.mark.parametrize("path", [f"/subjects/{ADA}", "/issues"])
async def test_a_button_without_the_code_of_this_session_does_nothing(web: Web, path: str) -> None:
    other = authenticator().form_code(authenticator().new_session(""), f"sync/{ADA}")
    for code in ("", "x", other):
        answer = await web.client.post(path, data={"code": code}, headers=HTML)
        assert (answer.status_code, "Nothing was done" in answer.text) == (400, True)
    bearer = {**JSON, "Authorization": f"Bearer {TOKEN}"}
    assert (await web.client.post(path, data={"code": ""}, headers=bearer)).status_code == 400
    row = await web.store.queue.get(ADA)
    assert row is None or not row.pending


async def test_no_name_is_kept_or_logged(web: Web, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for path in ("/status", "/changes", "/issues", f"/subjects/{ADA}", "/who?plan=pro"):
        assert "Love" in await web.page(path)
    await look_up(web, "ada lovelace")
    logged = "".join(capfd.readouterr())
    kept = await asyncio.to_thread(lambda: b"".join(one.read_bytes() for one in tmp_path.rglob("*") if one.is_file()))
    assert b"user_ada" in kept
    assert b"lovelace" not in kept.lower() + logged.lower().encode()

"""What the pages show in each state."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from sync_worker.cli.processes import SECRET, install_hook, settings_for
from sync_worker.storage.liveness import note_of
from sync_worker.storage.work_items import WorkItem
from sync_worker.transport import ssl_context
from sync_worker.web import site
from tests.nursery import listening
from tests.web.pages import ADA, JSON, TOKEN, Web, words

if TYPE_CHECKING:
    from sync_worker.sandbox.server import Sandbox

pytestmark = pytest.mark.anyio
TEMPLATES = Path(site.__file__).parent / "templates"


def test_every_table_has_a_name_for_those_who_do_not_see_it() -> None:
    tables = [
        (page.name, re.match(r"\s*<caption", after))
        for page in TEMPLATES.glob("*.html")
        for after in page.read_text().split("<table>")[1:]
    ]
    assert tables
    assert [name for name, caption in tables if caption is None] == []


async def test_a_document_that_arrived(web: Web) -> None:
    web.box.clerk.add_user("user_1")
    await web.publish("e1", clerkUserId="user_1")
    await web.sync("user:user_1")
    data = await web.document("e1", "synced")
    moments = [datetime.fromisoformat(data[key]) for key in ("published", "inClerk", "inSessionsBy")]
    assert moments == sorted(moments)
    assert moments[2] - moments[1] == timedelta(seconds=60)
    assert [(one["subject"], one["state"]) for one in data["subjects"]] == [("user:user_1", "synced")]
    assert "In every session by" in await web.page("/documents/e1")


async def test_a_document_that_is_late(web: Web) -> None:
    web.box.clerk.add_user("user_1")
    await web.publish("e1", clerkUserId="user_1")
    data = await web.document("e1", "late")
    assert (data["inClerk"], data["inSessionsBy"]) == (None, None)
    assert "sync-worker sync user:user_1" in data["nextStep"]


async def test_a_document_that_waits_for_a_sign_up(web: Web) -> None:
    await web.publish("e1", userEmail=ADA)
    data = await web.document("e1", "pending")
    assert data["subjects"][0]["subject"] == "email:a***@example.org"


async def test_a_document_whose_plan_is_refused(web: Web) -> None:
    web.box.clerk.add_user("user_1")
    await web.publish("e1", clerkUserId="user_1", plan="gold")
    data = await web.document("e1", "refused")
    assert "'gold' is not one of basic, pro" in data["headline"]


async def test_a_document_that_has_ended(web: Web) -> None:
    web.box.clerk.add_user("user_1")
    await web.publish("e1", clerkUserId="user_1", endsAt="2020-01-01T00:00:00Z")
    data = await web.document("e1", "expired")
    assert "2020-01-01" in data["headline"]


async def test_a_held_loss_and_its_changeset(web: Web) -> None:
    users = [web.box.clerk.add_user(f"user_{n}") for n in range(3)]
    for user in users:
        await web.publish(f"ent-{user}", clerkUserId=user)
    keys = [f"user:{user}" for user in users]
    await web.sync(*keys)
    await web.box.lake.mutate([{"patch": {"id": f"ent-{user}", "set": {"status": "off"}}} for user in users])
    await web.sync(*keys, cause="document:plan-1")
    (held,) = await web.store.approvals.changesets()
    data = await web.document("ent-user_0", "held")
    assert f"sync-worker approve {held.id}" in data["nextStep"]
    assert (await web.json(f"/held/{held.id}"))["subjects"] == keys
    page = await web.page(f"/held/{held.id}")
    assert [key for key in keys if f'href="/subjects/{key}"' not in page] == []
    status = await web.json("/status")
    assert (status["counts"]["held"], status["held"][0]["id"]) == (3, held.id)
    assert f'href="/held/{held.id}"' in await web.page("/status")


async def test_who_has_a_course_or_a_plan(web: Web) -> None:
    users = [web.box.clerk.add_user(f"user_{n}") for n in range(3)]
    await web.box.lake.mutate([{"create": {"_id": "c1", "_type": "course", "slug": {"current": "algebra"}}}])
    for user in users[:2]:
        await web.publish(f"ent-{user}", clerkUserId=user, courses=[{"_ref": "c1", "_key": "c1"}])
    await web.publish("ent-3", clerkUserId=users[2])
    await web.sync(*(f"user:{user}" for user in users))
    data = await web.json("/who?course=algebra&plan=pro")
    assert (data["filter"], data["count"]) == ({"plan": "pro", "course": "algebra"}, 2)
    assert [one["subject"] for one in data["subjects"]] == ["user:user_0", "user:user_1"]
    assert (data["subjects"][0]["documents"], data["subjects"][0]["since"] is None) == (["ent-user_0"], False)
    page = await web.page("/who?course=algebra")
    assert "2 subjects with course algebra" in words(page)
    assert 'href="/subjects/user:user_1"' in page
    assert "3 subjects with plan pro" in words(await web.page("/who?plan=pro"))
    assert "0 subjects with role admin" in words(await web.page("/who?role=admin"))


async def test_who_needs_a_filter(web: Web) -> None:
    assert await web.json("/who", 400) == {"error": "no_filter"}
    page = await web.page("/who")
    assert 'name="course"' in page
    assert "subjects with" not in words(page)


async def test_a_document_that_was_deleted(web: Web) -> None:
    for user in ("user_1", "user_2"):
        web.box.clerk.add_user(user)
    await web.publish("e1", clerkUserId="user_1")
    await web.publish("e2", clerkUserId="user_2")
    await web.sync("user:user_1")
    await web.box.lake.mutate([{"delete": {"id": "e1"}}])
    await web.sync("user:user_1")
    data = await web.document("e1", "deleted")
    assert data["published"] is None
    assert data["inClerk"] is not None


async def test_a_document_that_never_existed(web: Web) -> None:
    await web.document("nothing", "unknown")


@pytest.mark.parametrize("service", ["Sanity", "Clerk"])
async def test_a_failing_service_is_reported_and_is_no_500(web: Web, service: str) -> None:
    web.box.clerk.add_user("user_1")
    await web.publish("e1", clerkUserId="user_1")
    (web.box.lake if service == "Sanity" else web.box.clerk).faults.some("unauthorized", 1.0)
    data = await web.document("e1", "unknown")
    assert service in data["headline"]


async def test_an_unavailable_database_is_reported_and_is_no_500(web: Web) -> None:
    await web.store.database.close()
    assert "The database is unavailable" in await web.page("/status", 503)
    assert set(await web.json("/documents/e1", 503)) == {"headline", "text"}


async def test_a_subject_is_explained_with_links_to_its_documents(web: Web) -> None:
    web.box.clerk.add_user("user_1")
    web.box.clerk.add_organization("org_1")
    web.box.clerk.add_membership("org_1", "user_1")
    await web.publish("e1", clerkUserId="user_1", clerkOrganizationId="org_1")
    await web.sync("membership:org_1/user_1")
    data = await web.json("/subjects/membership:org_1/user_1")
    assert (data["state"], data["clerk"]["values"]["plan"]) == ("synced", "pro")
    assert 'href="/documents/e1"' in await web.page("/subjects/membership:org_1/user_1")


async def test_a_subjects_page_says_of_each_key_whose_it_is_and_what_the_app_had(web: Web) -> None:
    web.box.clerk.add_user("user_1", public_metadata={"plan": "team", "role": "admin"})
    await web.publish("e1", clerkUserId="user_1")
    await web.sync("user:user_1")
    shown = words(await web.page("/subjects/user:user_1"))
    assert re.search(r"plan pro: managed since [\d:]+ UTC \(\d+ s ago\), from e1; the app had plan team", shown)
    assert "role admin: not managed: it is left alone" in shown


async def test_what_names_no_subject_or_document_is_a_404_in_plain_words(web: Web) -> None:
    for path in ("/subjects/../etc", "/subjects/nobody:x", "/documents/a%20b", "/held/nothing"):
        assert (await web.client.get(path, headers={"Authorization": f"Bearer {TOKEN}", **JSON})).status_code == 404
    assert "No changeset is held under this id" in await web.page("/held/nothing", 404)


async def test_the_status_lists_what_needs_attention(web: Web) -> None:
    web.box.clerk.add_user("user_1")
    web.box.clerk.add_user("user_2")
    await web.publish("e1", clerkUserId="user_1")
    await web.publish("e2", clerkUserId="user_nobody")
    await web.publish("e3", clerkUserId="user_2", plan="gold")
    await web.publish("e4", userEmail=ADA)
    await web.sync("user:user_1", "user:user_nobody", "user:user_2", "document:e4")
    data = await web.json("/status")
    counted = {"synced": 1, "failed": 1, "refused": 1, "incomplete": 0, "pending": 1, "retrying": 0, "held": 0}
    assert data["counts"] == counted
    assert {one["key"]: one["state"] for one in data["troubles"]} == {
        "user:user_nobody": "failed",
        "user:user_2": "refused",
        "document:e4": "pending",
    }
    assert [change["subject"] for change in data["changes"]] == ["user:user_1"]
    assert data["headline"].startswith("2 items need attention")
    page = await web.page("/status")
    assert data["headline"] in page
    assert 'href="/documents/e4"' in page
    assert 'href="/subjects/user:user_nobody"' in page


async def test_the_status_says_that_no_worker_is_running(web: Web) -> None:
    data = await web.json("/status")
    assert (data["worker"]["alive"], data["headline"]) == (
        False,
        "No worker has run yet, so nothing reaches Clerk.",
    )


async def test_the_status_shows_recent_activity(web: Web) -> None:
    await web.store.queue.remember(note_of("sanity"), "")
    await web.store.queue.remember("heartbeat", "worker")
    data = await web.json("/status")
    assert data["headline"] == "Everything published is in Clerk."
    assert data["lastWebhook"]["clerk"] is None
    assert abs(datetime.fromisoformat(data["lastWebhook"]["sanity"]) - datetime.now(UTC)) < timedelta(minutes=1)


async def test_the_status_says_how_long_a_change_has_been_waiting(web: Web) -> None:
    await web.store.queue.remember("heartbeat", "worker")
    await web.store.queue.enqueue([WorkItem("user:user_1"), WorkItem("user:user_2", visible_at=4e9)])
    await web.store.database.run(
        lambda tx: tx.execute("UPDATE work SET enqueued_at = enqueued_at - 300 WHERE visible_at < 4e9")
    )
    data = await web.json("/status")
    assert data["headline"] == "A change has been waiting for 5 min."
    assert data["work"]["oldest"] is not None


async def test_a_web_process_without_a_worker_shows_pages(box: Sandbox, sqlite_url: str, tmp_path: Path) -> None:
    box.clerk.add_user("user_1")
    environment = {**settings_for(box, sqlite_url), "ADMIN_TOKEN": TOKEN}
    async with (
        listening("web", environment, tmp_path / "log") as url,
        httpx.AsyncClient(verify=ssl_context(), base_url=url) as client,
    ):
        install_hook(box, url, SECRET)
        await box.lake.mutate(
            [{"create": {"_id": "e1", "_type": "entitlement", "clerkUserId": "user_1", "plan": "pro"}}]
        )
        await box.lake.hooks_idle()
        headers = {**JSON, "Authorization": f"Bearer {TOKEN}"}
        data = (await client.get("/documents/e1", headers=headers)).json()
        assert (data["state"], "no worker is running" in data["headline"]) == ("late", True)
        assert TOKEN not in (tmp_path / "log").read_text()

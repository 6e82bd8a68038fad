"""The pages over HTTP: what they show in each state, who may see them, and what they never show."""

from __future__ import annotations

import re
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from sync_worker.cli.processes import SECRET, install_hook, settings_for
from sync_worker.runtime.service import running_worker
from sync_worker.storage.liveness import note_of
from sync_worker.storage.rate_limit import Budget
from sync_worker.storage.state import PAGES_URL
from sync_worker.storage.work_items import WorkItem
from sync_worker.transport import ssl_context
from sync_worker.web import site
from sync_worker.web.app import create_app
from sync_worker.web.auth import WRONG_GUESSES, Authenticator, LoginThrottle
from sync_worker.web.site import SESSION, SIGN_OUT
from tests.causes import cause_of
from tests.clock import CLOCK, TIMINGS, ManualClock
from tests.nursery import listening
from tests.parts import settings_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.applications import Starlette

    from sync_worker.domain.clock import Clock
    from sync_worker.runtime.wiring import Store
    from sync_worker.sandbox.server import Sandbox
    from sync_worker.settings import Settings

pytestmark = pytest.mark.anyio
TOKEN = "a long random text"
ADA = "ada@example.org"
JSON, HTML = {"Accept": "application/json"}, {"Accept": "text/html,*/*"}
KEYS = {
    *("document", "state", "headline", "revision", "published", "inClerk", "inSessionsBy", "inToken"),
    *("unresolved", "subjects", "nextStep"),
}
TEMPLATES = Path(site.__file__).parent / "templates"
EVERY_PAGE = [
    *("/status", "/documents/e1", "/subjects/user:user_1", "/held/x", "/who", "/sign-in", "/status.css"),
    *("/issues", "/changes", "/held", "/time-zone"),
]


def test_every_table_has_a_name_for_those_who_do_not_see_it() -> None:
    tables = [
        (page.name, re.match(r"\s*<caption", after))
        for page in TEMPLATES.glob("*.html")
        for after in page.read_text().split("<table>")[1:]
    ]
    assert tables
    assert [name for name, caption in tables if caption is None] == []


@dataclass(frozen=True)
class Web:
    """The application, as a browser or a program sees it."""

    box: Sandbox
    settings: Settings
    app: Starlette
    client: httpx.AsyncClient

    @property
    def store(self) -> Store:
        found: Store = self.app.state.store
        return found

    async def publish(self, document: str, **fields: Any) -> None:
        row = {"_id": document, "_type": "entitlement", "plan": "pro", **fields}
        await self.box.lake.mutate([{"createOrReplace": row}])

    async def sync(self, *keys: str, cause: str = "") -> None:
        """Enqueue the keys, and run a worker until they are done."""
        await self.store.queue.enqueue([WorkItem(key, cause=cause_of(cause)) for key in keys])
        async with running_worker(self.settings, self.store):
            for key in keys:
                while (row := await self.store.queue.get(key)) and row.pending and not row.dead:
                    await self.store.database.changed(0.05)

    async def json(self, path: str, status: int = 200) -> Any:
        response = await self.client.get(path, headers={**JSON, "Authorization": f"Bearer {TOKEN}"})
        assert response.status_code == status
        return response.json()

    async def page(self, path: str, status: int = 200) -> str:
        """Return a page as a signed-in user sees it."""
        cookie = authenticator().new_session("")
        response = await self.client.get(path, headers={**HTML, "Cookie": f"{SESSION}={cookie}"})
        assert (response.status_code, response.headers["content-type"]) == (status, "text/html; charset=utf-8")
        return response.text

    async def page_of_session(self, path: str) -> str:
        """Return a page as the session of the client's cookies sees it, with its forms."""
        response = await self.client.get(path, headers=HTML)
        assert response.status_code == 200
        return response.text

    async def document(self, id_: str, state: str) -> Any:
        """Return the JSON of a document, once the page says the same."""
        data = await self.json(f"/documents/{id_}")
        assert (set(data), data["state"]) == (KEYS, state)
        assert words(data["headline"].replace("`", "")) in words(await self.page(f"/documents/{id_}"))
        return data


def authenticator(clock: Clock = CLOCK) -> Authenticator:
    """Return the authenticator of the application under test."""
    return Authenticator(TOKEN.encode(), LoginThrottle(clock, TIMINGS), clock, TIMINGS)


def words(html: str) -> str:
    """Return the text of a page, as it is read."""
    text = re.sub(r"<[^>]+>", "", html)
    for entity, letter in (("&lt;", "<"), ("&gt;", ">"), ("&#39;", "'"), ("&#34;", '"'), ("&amp;", "&")):
        text = text.replace(entity, letter)
    return " ".join(text.split())


@asynccontextmanager
async def serving(box: Sandbox, database_url: str, **given: Any) -> AsyncIterator[Web]:
    settings = settings_of(box, database_url, **{"admin_token": TOKEN, "plan_order": "basic,pro", **given})
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app, client=("10.0.0.1", 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            yield Web(box, settings, app, client)


@pytest.fixture
async def web(box: Sandbox, sqlite_url: str) -> AsyncIterator[Web]:
    async with serving(box, sqlite_url, max_revocations="1") as web:
        yield web


# Documents.


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


async def test_signing_in_leads_back_to_who_has_a_course(web: Web) -> None:
    sent = await web.client.get("/who?course=a%26b", headers=HTML)
    assert sent.headers["location"] == "/sign-in?next=/who%3Fcourse%3Da%2526b"
    form = await web.client.get(sent.headers["location"], headers=HTML)
    code = re.findall(r'name="code" value="([^"]+)"', form.text)[0]
    onward = re.findall(r'name="next" value="([^"]+)"', form.text)[0]
    cookie = {"Cookie": f"sync_worker_form={code}"}
    signed = await web.client.post("/sign-in", data={"code": code, "token": TOKEN, "next": onward}, headers=cookie)
    assert signed.headers["location"] == "/who?course=a%26b"


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


# Subjects and the status.


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


# Who may see it.


@pytest.mark.parametrize("path", EVERY_PAGE)
async def test_without_a_token_in_the_settings_there_are_no_pages(box: Sandbox, sqlite_url: str, path: str) -> None:
    async with serving(box, sqlite_url, admin_token=None) as web:
        for headers in (HTML, {"Authorization": "Bearer "}, {"Authorization": f"Bearer {TOKEN}"}):
            assert (await web.client.get(path, headers=headers)).status_code == 404


@pytest.mark.parametrize(
    "path",
    ["/status", "/documents/e1", "/subjects/user:user_1", "/held/x", "/issues", "/changes", "/held", "/time-zone"],
)
async def test_without_a_session_browsers_go_to_the_form_and_programs_get_401(web: Web, path: str) -> None:
    response = await web.client.get(path, headers=HTML)
    assert (response.status_code, response.headers["location"]) == (303, f"/sign-in?next={path.replace(':', '%3A')}")
    for headers in (JSON, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer "}):
        response = await web.client.get(path, headers=headers)
        assert (response.status_code, response.json()) == (401, {"error": "unauthorized"})
    assert web.box.clerk.requests.count() == web.box.lake.requests.count() == 0


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_looking_something_up_needs_a_session(web: Web, method: str) -> None:
    response = await web.client.request(method, "/look", data={"what": "user_1"})
    assert response.status_code == (405 if method == "GET" else 303)
    assert response.headers.get("location", "/sign-in").startswith("/sign-in")


@pytest.mark.parametrize(
    ("scheme", "host", "known"),
    [
        ("https", "sync.example.com", "https://sync.example.com"),
        ("http", "10.0.0.7:8000", "http://10.0.0.7:8000"),
        ("http", "localhost:8000", None),
        ("http", "127.0.0.1:8000", None),
        ("http", "evil.example/x?", None),
        ("http", "", None),
    ],
)
async def test_notices_lead_to_where_somebody_signed_in(web: Web, scheme: str, host: str, known: str | None) -> None:
    web.client.base_url = httpx.URL(f"{scheme}://127.0.0.1")
    web.client.headers["Host"] = host
    assert (await sign_in(web, "wrong")).status_code == 401
    assert await web.store.queue.recall(PAGES_URL) is None
    assert (await sign_in(web)).status_code == 303
    found = await web.store.queue.recall(PAGES_URL)
    assert (found and found[0]) == known


async def sign_in(web: Web, token: str = TOKEN, **fields: str) -> httpx.Response:
    form = await web.client.get("/sign-in", params={"next": fields.pop("next", "")})
    hidden = dict(re.findall(r'name="(\w+)" value="([^"]*)"', form.text))
    return await web.client.post("/sign-in", data={**hidden, "token": token, **fields})


async def test_signing_in_leads_to_the_requested_page_and_signing_out_ends_the_session(web: Web) -> None:
    response = await sign_in(web, next="/documents/e1")
    assert (response.status_code, response.headers["location"]) == (303, "/documents/e1")
    page = (await web.client.get("/status", headers=HTML)).text
    (code,) = re.findall(r'name="code" value="([^"]+)"', page)
    wrong = await web.client.post("/sign-out", data={"code": "wrong"})
    assert wrong.status_code == 400
    assert (await web.client.get("/status", headers=HTML)).status_code == 200
    assert (await web.client.post("/sign-out", data={"code": code})).status_code == 303
    assert (await web.client.get("/status", headers=HTML)).status_code == 303


async def test_signing_out_ends_a_copy_of_the_cookie_in_every_process(web: Web) -> None:
    copied = {**HTML, "Cookie": f"{SESSION}={authenticator().new_session('')}"}
    assert (await web.client.get("/status", headers=copied)).status_code == 200
    await sign_in(web)
    (code,) = re.findall(r'name="code" value="([^"]+)"', (await web.client.get("/status", headers=HTML)).text)
    own = {**HTML, "Cookie": f"{SESSION}={web.client.cookies[SESSION]}"}
    await web.client.post("/sign-out", data={"code": code})
    assert (await web.client.get("/status", headers=own)).status_code == 303
    assert (await web.client.get("/status", headers=copied)).status_code == 303
    await sign_in(web)
    assert (await web.client.get("/status", headers=HTML)).status_code == 200


async def test_a_session_that_has_ended_cannot_end_others(web: Web) -> None:
    ended = authenticator(ManualClock(0.0)).new_session("")
    code = authenticator().form_code(ended, SIGN_OUT)
    await sign_in(web)
    sent = await web.client.post("/sign-out", data={"code": code}, headers={"Cookie": f"{SESSION}={ended}"})
    assert sent.status_code == 303
    assert await web.page("/status")


async def test_a_wrong_token_is_refused_in_the_form_and_leaves_no_session(web: Web) -> None:
    response = await sign_in(web, "wrong")
    assert (response.status_code, "This token is invalid." in response.text) == (401, True)
    assert SESSION not in web.client.cookies


async def test_a_form_that_another_site_sends_is_refused(web: Web) -> None:
    response = await web.client.post("/sign-in", data={"token": TOKEN})
    assert response.status_code == 400
    response = await sign_in(web, code="guessed")
    assert response.status_code == 400
    assert SESSION not in web.client.cookies


@pytest.mark.parametrize(
    "onward", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)", "", "/sign-out"]
)
async def test_the_form_leads_to_no_other_site(web: Web, onward: str) -> None:
    assert (await sign_in(web, next=onward)).headers["location"] == "/status"


async def test_a_cookie_is_kept_from_scripts_and_other_sites_and_from_plain_http(web: Web) -> None:
    plain = (await sign_in(web)).headers.get_list("set-cookie")
    (cookie,) = (c for c in plain if c.startswith(SESSION))
    assert all(part in cookie for part in ("HttpOnly", "SameSite=lax", "Max-Age=43200"))
    assert "Secure" not in cookie
    web.client.headers["X-Forwarded-Proto"] = "https"
    secure = await web.client.get("/sign-in")
    assert "Secure" in secure.headers["set-cookie"]


async def test_a_session_that_was_tampered_with_or_has_ended_is_none(web: Web) -> None:
    good = authenticator().new_session("")
    ended = authenticator(ManualClock(0.0)).new_session("")
    for cookie in (good[:-1] + ("0" if good[-1] != "0" else "1"), f"9{good}", ended, "x"):
        response = await web.client.get("/status", headers={**HTML, "Cookie": f"{SESSION}={cookie}"})
        assert response.status_code == 303


async def test_too_many_wrong_tokens_are_throttled_and_never_lock_out_the_right_one(web: Web) -> None:
    for number in range(WRONG_GUESSES):
        response = await web.client.get("/status", headers={"Authorization": f"Bearer {number}"})
        assert (response.status_code, response.json()) == (401, {"error": "unauthorized"})
    response = await web.client.get("/status", headers={"Authorization": "Bearer wrong"})
    assert (response.status_code, response.json()) == (429, {"error": "too_many_guesses"})
    assert "Wait a minute" in (await sign_in(web, "wrong")).text
    assert await web.json("/status")
    assert (await sign_in(web)).status_code == 303


@pytest.mark.parametrize(("trusted", "last"), [("", 401), ("10.0.0.0/8", 429)])
async def test_only_a_trusted_proxy_may_name_the_client(
    box: Sandbox, sqlite_url: str, tmp_path: Path, trusted: str, last: int
) -> None:
    environment = {**settings_for(box, sqlite_url), "ADMIN_TOKEN": TOKEN, "TRUSTED_PROXIES": trusted}
    async with (
        listening("web", environment, tmp_path / "log") as url,
        httpx.AsyncClient(verify=ssl_context(), base_url=url) as client,
    ):
        for number in range(WRONG_GUESSES + 1):
            headers = {"Authorization": f"Bearer {number}", "X-Forwarded-For": f"198.51.100.{number}"}
            status = (await client.get("/status", headers=headers)).status_code
        assert status == last


async def test_a_head_is_answered_like_a_get(web: Web) -> None:
    response = await web.client.head("/status", headers={"Authorization": f"Bearer {TOKEN}"})
    assert (response.status_code, response.content) == (200, b"")


# What is never shown, or done.


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

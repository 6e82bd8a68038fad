"""Who may see the pages: tokens, sessions, signing in and out."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import httpx
import pytest

from sync_worker.cli.processes import settings_for
from sync_worker.storage.state import PAGES_URL
from sync_worker.transport import ssl_context
from sync_worker.web.auth import WRONG_GUESSES
from sync_worker.web.site import SESSION, SIGN_OUT
from tests.clock import ManualClock
from tests.nursery import listening
from tests.web.pages import EVERY_PAGE, HTML, JSON, TOKEN, Web, authenticator, serving

if TYPE_CHECKING:
    from pathlib import Path

    from sync_worker.sandbox.server import Sandbox

pytestmark = pytest.mark.anyio


async def test_signing_in_leads_back_to_who_has_a_course(web: Web) -> None:
    sent = await web.client.get("/who?course=a%26b", headers=HTML)
    assert sent.headers["location"] == "/sign-in?next=/who%3Fcourse%3Da%2526b"
    form = await web.client.get(sent.headers["location"], headers=HTML)
    code = re.findall(r'name="code" value="([^"]+)"', form.text)[0]
    onward = re.findall(r'name="next" value="([^"]+)"', form.text)[0]
    cookie = {"Cookie": f"sync_worker_form={code}"}
    signed = await web.client.post("/sign-in", data={"code": code, "token": TOKEN, "next": onward}, headers=cookie)
    assert signed.headers["location"] == "/who?course=a%26b"


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

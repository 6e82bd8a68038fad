"""The worked app opens for what is published and closes when it is gone, by tokens that the sandbox really signs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from sync_worker.clerk.claims import default_template
from sync_worker.cli.processes import install_hook, settings_for
from sync_worker.domain.entitlements import CORE_FIELDS, Layout
from tests.browser import FOUND, browsing
from tests.deploy import worked_app
from tests.nursery import listening
from tests.oracle import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    import httpx

    from sync_worker.sandbox.server import Sandbox
    from tests.browser import Tab
    from tests.deploy.worked_app import Site

pytestmark = pytest.mark.anyio
TITLE, HTML = "Algebra & more", "Algebra &amp; more"
COURSE = {"_id": "course-algebra", "_type": "course", "title": TITLE, "slug": {"current": "algebra"}}
BIOLOGY = {"_id": "course-b", "_type": "course", "title": "Biology", "slug": {"current": "biology"}}
ENTITLEMENT = {"_id": "ent-ada", "_type": "entitlement", "clerkUserId": "user_ada", "plan": "pro"}
GRANT = {**ENTITLEMENT, "courses": [{"_key": "a", "_type": "reference", "_ref": "course-algebra"}]}
HELD = {"plan": "pro", "courseSlugs": ["algebra"]}
EVIL = "https://evil.example.com"
in_a_browser = pytest.mark.skipif(FOUND is None, reason="no Chromium is installed")


@pytest.fixture(scope="session")
async def nextjs(shared_box: Sandbox) -> AsyncIterator[Site]:
    async with worked_app.nextjs(shared_box) as site:
        yield site


@pytest.fixture(scope="session")
async def starlette(shared_box: Sandbox) -> AsyncIterator[Site]:
    async with worked_app.starlette(shared_box) as site:
        yield site


@pytest.fixture(
    params=["starlette", pytest.param("nextjs", marks=pytest.mark.full("its packages take 400 MB and a build"))]
)
def served(request: pytest.FixtureRequest) -> Site:
    found: Site = request.getfixturevalue(request.param)
    return found


@pytest.fixture
async def site(box: Sandbox, served: Site) -> Site:
    box.clerk.add_user("user_ada")
    box.clerk.session_claims = dict(default_template(Layout(CORE_FIELDS)).claims)
    await box.lake.load([COURSE, BIOLOGY])
    return served


def has_access(box: Sandbox) -> bool:
    return "plan" in box.clerk.users["user_ada"]["public_metadata"]


def denies(answer: httpx.Response) -> bool:
    """Return whether nobody signed in sees nothing: the pages of Next.js lead to Clerk's sign-in."""
    assert HTML not in answer.text
    leads = answer.headers.get("location", "").startswith("https://sandbox.accounts.dev/sign-in")
    return answer.status_code == 401 or (answer.status_code == 307 and leads)


async def test_the_page_opens_with_a_publish_and_closes_with_a_delete(box: Sandbox, site: Site, tmp_path: Path) -> None:
    async def page_text() -> str:
        answer = await site.get("/courses/algebra", await site.sign_in())
        assert "no-store" in answer.headers["cache-control"]
        return answer.text

    environment = settings_for(box, f"sqlite:///{tmp_path / 'work.db'}")
    async with listening("serve", environment, tmp_path / "log") as url:
        install_hook(box, url)
        assert "Not in your plan" in await page_text()
        await box.lake.mutate([{"create": GRANT}])
        await until(lambda: has_access(box))
        assert HTML in await page_text()
        await box.lake.mutate([{"delete": {"id": "ent-ada"}}])
        await until(lambda: not has_access(box))
        closed = await page_text()
        assert ("Not in your plan" in closed, HTML in closed) == (True, False)


@pytest.mark.full("the same over HTTP runs with every commit")
@in_a_browser
async def test_a_browser_shows_the_course_after_the_publish_and_not_after_the_delete(
    box: Sandbox, site: Site, tmp_path: Path
) -> None:
    environment = settings_for(box, f"sqlite:///{tmp_path / 'work.db'}")
    async with (
        listening("serve", environment, tmp_path / "log") as url,
        browsing(tmp_path / "profile") as tab,
    ):
        install_hook(box, url)
        assert "Not in your plan" in await seen(tab, site, "/courses/algebra", await site.sign_in())
        await box.lake.mutate([{"create": GRANT}])
        await until(lambda: has_access(box))
        open_ = await site.sign_in()
        assert TITLE in await seen(tab, site, "/", open_)
        await tab.run("document.querySelector('a').click()")
        await tab.until("location.pathname === '/courses/algebra' && document.querySelector('h1')?.innerText")
        assert TITLE in await tab.text()
        assert '"courseSlugs": [\n' in await seen(tab, site, "/debug/claims", open_)
        await box.lake.mutate([{"delete": {"id": "ent-ada"}}])
        await until(lambda: not has_access(box))
        # The script of Clerk replaces the token every minute. The old one opens the page until it expires.
        assert TITLE in await seen(tab, site, "/courses/algebra", open_)
        closed = await seen(tab, site, "/courses/algebra", await site.sign_in())
        assert ("Not in your plan" in closed, TITLE in closed) == (True, False)


async def seen(tab: Tab, site: Site, path: str, cookies: Mapping[str, str]) -> str:
    """Return what the page shows to a browser with these cookies."""
    for name, value in cookies.items():
        await tab.call("Network.setCookie", name=name, value=value, url=site.origin)
    await tab.open(site.origin + path)
    return await tab.text()


async def test_a_token_from_before_the_delete_opens_the_page_no_longer_than_it_lives(
    box: Sandbox, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    box.clerk.update_user("user_ada", public_metadata=HELD)
    before = await site.sign_in()
    box.clerk.update_user("user_ada", public_metadata={"plan": None, "courseSlugs": None})
    assert HTML in (await site.get("/courses/algebra", before)).text
    box.clerk.update_user("user_ada", public_metadata=HELD)
    monkeypatch.setattr(box.clerk, "clock", lambda: time.time() - 70)
    assert denies(await site.get("/courses/algebra", await site.sign_in()))


async def test_somebody_without_the_course_sees_why(box: Sandbox, site: Site) -> None:
    box.clerk.update_user("user_ada", public_metadata={"plan": "basic", "courseSlugs": ["biology"]})
    answer = await site.get("/courses/algebra", await site.sign_in())
    assert ("Not in your plan" in answer.text, "Algebra" in answer.text) == (True, False)


async def test_the_overview_lists_only_the_persons_courses(box: Sandbox, site: Site) -> None:
    box.clerk.update_user("user_ada", public_metadata={"plan": "pro", "courseSlugs": ["algebra", 'x"] || true']})
    answer = await site.get("/", await site.sign_in())
    assert "Your plan:" in answer.text
    assert f'<a href="/courses/algebra">{HTML}</a>' in answer.text
    assert "Biology" not in answer.text


async def test_nobody_and_a_token_for_another_site_have_to_sign_in(box: Sandbox, site: Site) -> None:
    box.clerk.update_user("user_ada", public_metadata=HELD)
    elsewhere = await site.sign_in(EVIL)
    for cookies in ({}, elsewhere, {**elsewhere, "__session": "nonsense"}):
        for path in ("/", "/courses/algebra", "/debug/claims"):
            assert denies(await site.get(path, cookies))


async def test_the_debug_page_shows_the_claims_and_what_the_app_makes_of_them(box: Sandbox, site: Site) -> None:
    box.clerk.session_claims = {"plan": "{{organization.public_metadata.plan}}", "courseSlugs": "<b>"}
    answer = await site.get("/debug/claims", await site.sign_in())
    assert "{{organization.public_metadata.plan}}" in answer.text
    assert "&lt;b&gt;" in answer.text
    assert "courses=()" in answer.text or "&quot;courses&quot;: []" in answer.text
    assert "no-store" in answer.headers["cache-control"]


@pytest.mark.parametrize(
    "claims", [{}, {"plan": None, "courseSlugs": None}, {"plan": 1, "courseSlugs": "algebra"}, {"courseSlugs": [1]}]
)
def test_claims_of_another_shape_give_nothing(claims: dict[str, Any]) -> None:
    module = worked_app.starlette_module()
    assert module.Access.of(claims) == module.Access(None, ())

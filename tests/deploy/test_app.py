"""The worked app opens for what is published and closes when it is gone, by tokens that the sandbox really signs."""

from __future__ import annotations

import sys
import time
from importlib.util import module_from_spec, spec_from_file_location
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from sync_worker.clerk.claims import default_template
from sync_worker.cli.processes import install_hook, settings_for
from sync_worker.domain.entitlements import CORE_FIELDS, Layout
from sync_worker.sandbox.clerk_tokens import public_pem
from sync_worker.transport import ssl_context
from tests.kits import DEPLOY
from tests.nursery import listening
from tests.oracle import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path
    from types import ModuleType

    from sync_worker.sandbox.server import Sandbox

pytestmark = pytest.mark.anyio
ORIGIN = "https://app.example.com"
COURSE = {"_id": "course-algebra", "_type": "course", "title": "Algebra & more", "slug": {"current": "algebra"}}
ENTITLEMENT = {"_id": "ent-ada", "_type": "entitlement", "clerkUserId": "user_ada", "plan": "pro"}
GRANT = {**ENTITLEMENT, "courses": [{"_key": "a", "_type": "reference", "_ref": "course-algebra"}]}


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = spec_from_file_location("worked_app", DEPLOY / "app" / "starlette" / "app.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "worked_app", loaded)  # dataclasses look it up
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture
async def app(box: Sandbox, module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    environment = {
        "CLERK_JWT_KEY": public_pem(),
        "APP_ORIGINS": ORIGIN,
        "SANITY_PROJECT_ID": box.lake.project_id,
        "SANITY_DATASET": box.lake.dataset,
        "SANITY_READ_TOKEN": box.lake.viewer_token,
        "SANITY_API_URL": box.sanity_url,
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    box.clerk.add_user("user_ada")
    box.clerk.session_claims = dict(default_template(Layout(CORE_FIELDS)).claims)
    await box.lake.load([COURSE])
    transport = httpx.ASGITransport(module.app)
    async with httpx.AsyncClient(transport=transport, base_url=ORIGIN) as client:
        yield client


async def token(box: Sandbox, origin: str = ORIGIN) -> dict[str, str]:
    """Sign Ada in, as her browser would, and return the cookie of her session."""
    headers = {"authorization": f"Bearer {box.clerk.secret_key}"}
    async with httpx.AsyncClient(verify=ssl_context(), base_url=f"{box.clerk_url}/v1", headers=headers) as clerk:
        session = (await clerk.post("/sessions", json={"user_id": "user_ada"})).json()
        signed = await clerk.post(f"/sessions/{session['id']}/tokens", headers={"origin": origin})
        return {"cookie": f"__session={signed.json()['jwt']}"}


async def test_the_page_opens_with_a_publish_and_closes_with_a_delete(
    box: Sandbox, app: httpx.AsyncClient, tmp_path: Path
) -> None:
    async def opens() -> bool:
        return (await app.get("/courses/algebra", headers=await token(box))).status_code == 200

    def has_access() -> bool:
        return "plan" in box.clerk.users["user_ada"]["public_metadata"]

    environment = settings_for(box, f"sqlite:///{tmp_path / 'work.db'}")
    async with listening("serve", environment, tmp_path / "log") as url:
        install_hook(box, url)
        assert not await opens()
        await box.lake.mutate([{"create": GRANT}])
        await until(has_access)
        assert await opens()
        await box.lake.mutate([{"delete": {"id": "ent-ada"}}])
        await until(lambda: not has_access())
        assert not await opens()


async def test_a_token_from_before_the_delete_opens_the_page_no_longer_than_it_lives(
    box: Sandbox, app: httpx.AsyncClient, module: ModuleType
) -> None:
    box.clerk.update_user("user_ada", public_metadata={"plan": "pro", "courseSlugs": ["algebra"]})
    before = await token(box)
    box.clerk.update_user("user_ada", public_metadata={})
    assert (await app.get("/courses/algebra", headers=before)).status_code == 200
    box.clerk.update_user("user_ada", public_metadata={"plan": "pro", "courseSlugs": ["algebra"]})
    now, box.clerk.clock = box.clerk.clock, lambda: time.time() - 70
    try:
        expired = await token(box)
    finally:
        box.clerk.clock = now
    assert (await app.get("/courses/algebra", headers=expired)).status_code == 401
    assert module.claims_of(httpx.Request("GET", ORIGIN, headers=expired)) is None


async def test_somebody_without_the_course_is_told_so(box: Sandbox, app: httpx.AsyncClient) -> None:
    box.clerk.update_user("user_ada", public_metadata={"plan": "basic", "courseSlugs": ["geometry"]})
    answer = await app.get("/courses/algebra", headers=await token(box))
    assert (answer.status_code, "Not in your plan" in answer.text) == (403, True)
    assert "Algebra" not in answer.text


async def test_the_overview_lists_only_the_persons_courses(box: Sandbox, app: httpx.AsyncClient) -> None:
    other = {"_id": "course-b", "_type": "course", "title": "Biology", "slug": {"current": "biology"}}
    await box.lake.load([COURSE, other])
    box.clerk.update_user("user_ada", public_metadata={"plan": "pro", "courseSlugs": ["algebra", 'x"] || true']})
    answer = await app.get("/", headers=await token(box))
    assert "Your plan: pro" in answer.text
    assert '<a href="/courses/algebra">Algebra &amp; more</a>' in answer.text
    assert "Biology" not in answer.text


async def test_nobody_and_a_token_for_another_site_are_asked_to_sign_in(box: Sandbox, app: httpx.AsyncClient) -> None:
    elsewhere = await token(box, "https://evil.example.com")
    for headers in ({}, elsewhere, {"authorization": "Bearer nonsense"}):
        for path in ("/", "/courses/algebra", "/debug/claims"):
            assert (await app.get(path, headers=headers)).status_code == 401


async def test_the_debug_page_shows_the_claims_and_what_the_app_makes_of_them(
    box: Sandbox, app: httpx.AsyncClient
) -> None:
    box.clerk.session_claims = {"plan": "{{organization.public_metadata.plan}}", "courseSlugs": "<b>"}
    answer = await app.get("/debug/claims", headers=await token(box))
    assert "{{organization.public_metadata.plan}}" in answer.text
    assert "&lt;b&gt;" in answer.text
    assert "courses=()" in answer.text
    assert answer.headers["cache-control"] == "private, no-store"


@pytest.mark.parametrize(
    "claims", [{}, {"plan": None, "courseSlugs": None}, {"plan": 1, "courseSlugs": "algebra"}, {"courseSlugs": [1]}]
)
def test_claims_of_another_shape_give_nothing(module: ModuleType, claims: dict[str, Any]) -> None:
    assert module.Access.of(claims) == module.Access(None, ())

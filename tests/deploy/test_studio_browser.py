"""The kit in a real Studio in a real browser: an editor's first hour, without one id typed."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from sync_worker.cli.processes import free_port
from tests.browser import FOUND
from tests.deploy.stage import VITE, Stage, build, staged
from tests.oracle import until

if TYPE_CHECKING:
    from pathlib import Path

    from sync_worker.sandbox.server import Sandbox

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.kit,
    pytest.mark.full("a Studio of Sanity's own packages, built and served"),
    pytest.mark.skipif(FOUND is None, reason="no Chromium is installed: chromium, chromium-browser or google-chrome"),
    pytest.mark.skipif(not VITE.exists(), reason="Sanity's packages are not installed; run npm ci in deploy/studio"),
]
SEARCH = "document.querySelector('[data-testid=field-clerkUserId] input')"
ADA_AS_MEMBER = {"clerkUserId": "user_ada", "role": "member", "status": "active"}
COURSES = "document.querySelector('[data-testid=field-courses]')"
BADGE = "[...document.querySelectorAll('[data-ui=Badge]')].at(-1)"
PANE = "document.querySelector('[data-ui=DocumentInspectorPanel]')"
NAMED = "document.querySelector('[data-testid=field-clerkUserId]').innerText"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("built"))


@pytest.fixture(autouse=True)
async def content(box: Sandbox) -> None:
    box.clerk.add_user("user_ada", email="ada@example.org", first_name="Ada", last_name="Lovelace")
    box.clerk.add_user("user_ben", email="ben@example.org", first_name="Ben", last_name="Lovecraft")
    slug = {"_type": "slug", "current": "algebra"}
    await box.lake.mutate([{"create": {"_id": "course-1", "_type": "course", "title": "Algebra", "slug": slug}}])


def draft(stage: Stage) -> dict[str, Any]:
    """Return the one entitlement that is being edited, or nothing."""
    return dict(*stage.drafts())


def access(stage: Stage, user: str) -> list[str]:
    """Return the courses that Clerk has for somebody."""
    return list(stage.access(user).get("courseSlugs") or [])


async def pick(stage: Stage, typed: str, name: str, address: str) -> None:
    """Search for a person and choose them."""
    await stage.fill(SEARCH, typed)
    await stage.choose(name)
    await stage.until(f"{NAMED}.includes({json.dumps(name)}) && {NAMED}.includes({json.dumps(address)})")


async def receipt(stage: Stage, *texts: str) -> None:
    """Wait until the pane beside the document says all this at once."""
    await stage.until(f"{json.dumps(texts)}.every(text => {PANE}?.innerText.includes(text))")


async def test_an_editors_first_hour(box: Sandbox, built: Path, tmp_path: Path) -> None:
    async with staged(box, built, tmp_path) as stage:
        await stage.open("/intent/create/template=entitlement;type=entitlement/")
        await pick(stage, "ada", "Ada Lovelace", "a***@example.org")
        await stage.group("what")
        await stage.press(f"{COURSES}.querySelector('[data-testid=add-single-object-button]')")
        await until(lambda: bool(draft(stage).get("courses")))  # before, the Studio renders the field anew
        await stage.fill(f"{COURSES}.querySelector('input')", "alg")
        await stage.choose("Algebra")
        await until(lambda: draft(stage)["courses"][0].get("_ref") == "course-1")
        await stage.group("when")
        await stage.fill("document.querySelector('[data-testid=field-endsAt] input')", "2099-01-09 18:00")
        await stage.enter()
        await until(lambda: str(draft(stage).get("endsAt")).startswith("2099-01-"))
        await stage.publish()
        await until(lambda: access(stage, "user_ada") == ["algebra"])
        await stage.sees("In Clerk")
        await stage.press("document.querySelector('[aria-label=Access]')")
        await receipt(stage, "In Clerk", "In every session", "user:user_ada")
        # It moves to somebody else.
        await stage.group("whom")
        await pick(stage, "lovec", "Ben Lovecraft", "b***@example.org")
        await until(lambda: draft(stage).get("clerkUserId") == "user_ben")
        await stage.publish()
        await until(lambda: (access(stage, "user_ada"), access(stage, "user_ben")) == ([], ["algebra"]))
        await receipt(stage, "user:user_ben", "It used to grant this subject access and no longer does.")
        await stage.until(f"{BADGE}?.innerText === 'In Clerk'")
        # It is withdrawn.
        await stage.choose("Published", "button")
        await stage.act("action-unpublish")
        await stage.act("confirm-button")
        await until(lambda: not stage.entitlements() and access(stage, "user_ben") == [])
        await stage.until(f"{BADGE}?.innerText === 'Taken away'")
        await receipt(stage, "Taken away", "It is no longer published.", "user:user_ada", "user:user_ben")
        (tmp_path / "studio.png").write_bytes(await stage.tab.picture())
    stored = json.dumps(list(box.lake.documents.values()))
    assert "user_ben" in stored
    kept = await asyncio.to_thread(lambda: b"".join(one.read_bytes() for one in tmp_path.glob("work.db*")))
    for text in (stored, kept.decode(errors="replace"), (tmp_path / "log").read_text()):
        assert not [name for name in ("Lovelace", "Lovecraft", "example.org") if name in text]


async def test_a_chosen_person_is_named_at_once(box: Sandbox, built: Path, tmp_path: Path) -> None:
    async with staged(box, built, tmp_path) as stage:
        await stage.open("/intent/create/template=entitlement;type=entitlement/")
        await stage.tab.run("performance.clearResourceTimings()")
        await pick(stage, "ada", "Ada Lovelace", "a***@example.org")
        await until(lambda: draft(stage).get("clerkUserId") == "user_ada")
        found = "performance.getEntriesByType('resource').map(({name}) => name).filter(name => name.includes('find='))"
        assert [url.rpartition("?")[2] for url in await stage.tab.run(found)] == ["find=people&q=ada"]


async def test_an_editor_whose_clock_runs_ahead_sees_a_publish_arrive(
    box: Sandbox, built: Path, tmp_path: Path
) -> None:
    await box.lake.mutate([{"create": {"_id": "drafts.e3", "_type": "entitlement", **ADA_AS_MEMBER}}])
    async with staged(box, built, tmp_path) as stage:
        await stage.set_clock(minutes_ahead=10)
        await stage.open("/intent/edit/id=e3;type=entitlement/")
        await stage.publish()
        await until(lambda: stage.access("user_ada").get("role") == "member")
        await stage.until(f"{BADGE}?.innerText === 'In Clerk'")


async def test_a_stored_id_shows_its_name_or_that_there_is_no_such_person(
    box: Sandbox, built: Path, tmp_path: Path
) -> None:
    gone = {"_id": "e2", "_type": "entitlement", "clerkUserId": "user_gone", "status": "active"}
    await box.lake.mutate([{"create": gone}])
    async with staged(box, built, tmp_path) as stage:
        await stage.open("/intent/edit/id=e2;type=entitlement/")
        await stage.sees("No such person in Clerk any more.")


async def test_without_the_worker_the_picker_is_a_text_field(box: Sandbox, built: Path, tmp_path: Path) -> None:
    await box.lake.mutate([{"create": {"_id": "e1", "_type": "entitlement", "clerkUserId": "user_ada"}}])
    async with staged(box, built, tmp_path, worker=f"http://127.0.0.1:{free_port()}") as stage:
        await stage.open("/intent/edit/id=e1;type=entitlement/")
        field = "document.querySelector('[data-testid=field-clerkUserId] input:not([role=combobox])')"
        await stage.tab.until(f"{field}?.value === 'user_ada'")
        await stage.tab.click(field)
        await stage.tab.run(f"{field}.select()")
        await stage.tab.type("user_ben")
        await until(lambda: box.lake.documents.get("drafts.e1", {}).get("clerkUserId") == "user_ben")

"""The kit in a real Studio in a real browser: an editor's first hour, without one id typed."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

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
SEARCH = "document.querySelector('input[placeholder^=\"Search by name\"]')"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("built"))


@pytest.fixture(autouse=True)
async def content(box: Sandbox) -> None:
    box.clerk.add_user("user_ada", email="ada@example.org", first_name="Ada", last_name="Lovelace")
    box.clerk.add_user("user_ben", email="ben@example.org", first_name="Ben", last_name="Lovecraft")
    slug = {"_type": "slug", "current": "algebra"}
    await box.lake.mutate([{"create": {"_id": "course-1", "_type": "course", "title": "Algebra", "slug": slug}}])


async def pick(stage: Stage, typed: str, name: str) -> None:
    """Search for a person and choose them."""
    await stage.tab.click(SEARCH)
    await stage.tab.run(f"{SEARCH}.select()")
    await stage.tab.type(typed)
    await stage.tab.click(
        f"[...document.querySelectorAll('[role=option]')].find(one => one.innerText.includes('{name}'))"
    )


async def press(stage: Stage, action: str) -> None:
    """Press a button of the document, once it can be pressed."""
    await stage.tab.click(f"document.querySelector('[data-testid={action}]:not([data-disabled=true]):not(:disabled)')")


async def test_an_editor_grants_and_moves_access_by_names(box: Sandbox, built: Path, tmp_path: Path) -> None:
    async with staged(box, built, tmp_path) as stage:
        await stage.open("/intent/create/template=entitlement;type=entitlement/")
        await pick(stage, "ada", "Ada Lovelace")
        await stage.sees("a***@example.org")
        await press(stage, "group-tab-all-fields")
        await stage.tab.click("document.querySelector('[data-testid=field-role] input')")
        await stage.tab.type("member")
        await stage.tab.click("document.querySelector('[data-testid=field-endsAt] input')")
        await stage.tab.type("2099-01-09 18:00")
        await stage.tab.press("Enter")
        await press(stage, "action-publish")
        await until(lambda: stage.access("user_ada").get("role") == "member")
        await stage.sees("In Clerk")
        (entitlement,) = stage.entitlements()
        assert (entitlement["clerkUserId"], entitlement["endsAt"][:8]) == ("user_ada", "2099-01-")
        # It moves to somebody else.
        await pick(stage, "lovec", "Ben Lovecraft")
        await stage.sees("b***@example.org")
        await press(stage, "action-publish")
        await until(lambda: stage.access("user_ben").get("role") == "member")
        await until(lambda: "role" not in stage.access("user_ada"))
        await stage.sees("In Clerk")
        (tmp_path / "studio.png").write_bytes(await stage.tab.picture())
    stored = json.dumps(list(box.lake.documents.values()))
    assert "user_ben" in stored
    kept = await asyncio.to_thread(lambda: b"".join(one.read_bytes() for one in tmp_path.glob("work.db*")))
    for text in (stored, kept.decode(errors="replace"), (tmp_path / "log").read_text()):
        assert not [name for name in ("Lovelace", "Lovecraft", "example.org") if name in text]


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

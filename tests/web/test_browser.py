"""The pages in a real browser, in light and dark, on a desktop and on a phone."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sync_worker.cli.processes import install_hook, settings_for
from tests.browser import FOUND, browsing
from tests.builders import publish
from tests.nursery import listening
from tests.oracle import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sync_worker.sandbox.server import Sandbox
    from tests.browser import Tab

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(FOUND is None, reason="no Chromium is installed: chromium, chromium-browser or google-chrome"),
]
TOKEN = "a long random text"
PAGES = (
    "/status",
    "/documents/e1",
    "/documents/e2",
    "/documents/e3",
    "/subjects/user:user_1",
    "/who?plan=pro",
    "/issues",
    "/changes",
    "/held",
    "/time-zone",
    "/subjects/nobody:x",
)
LOOKS = [(1100, 800, "light"), (1100, 800, "dark"), (360, 740, "light"), (360, 740, "dark")]

# Every text that is shown, with the contrast to what is behind it (WCAG 2: 4.5 to 1 is enough for any size).
FAINT = """
(() => {
  const parse = c => c.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = e => {
    for (; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c.length < 4 || c[3] > 0) return c;
    }
    return [255, 255, 255];
  };
  const faint = [];
  for (const e of document.body.querySelectorAll("*")) {
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()) || !e.checkVisibility()) continue;
    const [a, b] = [light(parse(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) faint.push(e.outerHTML.slice(0, 80));
  }
  return faint;
})()
"""
NAMELESS = """
[...document.querySelectorAll("input:not([type=hidden]):not([hidden]), button, a, section, table")].filter(e =>
  !(e.labels?.length || e.textContent.trim() && e.matches("button, a") || e.querySelector("caption")
    || document.getElementById(e.getAttribute("aria-labelledby")))).map(e => e.outerHTML.slice(0, 80))
"""


AXE = Path(__file__).parent / "axe" / "node_modules" / "axe-core" / "axe.min.js"
VIOLATIONS = """
axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']}).then(({violations}) =>
  violations.map(({id, nodes}) => `${id}: ${nodes.map(({html}) => html.slice(0, 80)).join(' ')}`))
"""


@dataclass(frozen=True)
class Desk:
    """Somebody in front of a browser."""

    box: Sandbox
    tab: Tab
    url: str

    async def open(self, path: str) -> str:
        await self.tab.open(self.url + path)
        return await self.tab.text()


@pytest.fixture
async def desk(box: Sandbox, sqlite_url: str, tmp_path: Path) -> AsyncIterator[Desk]:
    environment = {**settings_for(box, sqlite_url), "ADMIN_TOKEN": TOKEN, "PLAN_ORDER": "basic,pro"}
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(listening("serve", environment, tmp_path / "log"))
        install_hook(box, url)
        tab = await stack.enter_async_context(browsing(tmp_path / "profile"))
        yield Desk(box, tab, url)


async def populate(box: Sandbox) -> None:
    box.clerk.add_user("user_1", first_name="Ada", last_name="Lovelace")
    await publish(box, "e1", clerkUserId="user_1")
    await publish(box, "e2", clerkUserId="user_1", plan="gold")
    await publish(box, "e3", userEmail="ada@example.org")
    await until(lambda: box.clerk.users["user_1"]["public_metadata"].get("plan") == "pro")


async def test_an_editor_signs_in_and_sees_that_a_publish_has_arrived(desk: Desk) -> None:
    await populate(desk.box)
    assert "Sign in" in await desk.open("/documents/e1")
    await desk.tab.submit(".sign-in", token=TOKEN)
    assert await desk.tab.run("location.pathname") == "/documents/e1"
    text = await desk.tab.text()
    assert all(words in text for words in ("synced", "Published", "In Clerk", "In every session by", "user:user_1"))
    await desk.tab.submit(".look-up", what="e3")
    text = await desk.tab.text()
    assert "nobody in Clerk has this address yet" in text
    assert "email:a***@example.org" in text
    await desk.tab.submit(".look-up", what="ada@example.org")
    assert "ada@" not in await desk.tab.text() + await desk.tab.run("location.href")
    await desk.tab.submit(".sign-out")
    assert "Sign in" in await desk.open("/status")


async def test_every_page_can_be_read_by_everybody(desk: Desk) -> None:
    await populate(desk.box)
    await desk.open("/status")
    await desk.tab.submit(".sign-in", token=TOKEN)
    for path in PAGES:
        await desk.open(path)
        for width, height, scheme in LOOKS:
            await desk.tab.look(width, height, scheme)
            assert await desk.tab.run(FAINT) == []
            assert await desk.tab.run("document.documentElement.scrollWidth") <= width
        assert await desk.tab.run(NAMELESS) == []
        assert await desk.tab.run("document.querySelectorAll('h1, main, header').length") == 3
        assert await desk.tab.run("getComputedStyle(document.querySelector('h1')).fontWeight") == "700"
    assert [text for text in desk.tab.complaints if "404" not in text] == []


@pytest.mark.full("axe-core, with every rule of WCAG 2.2 AA; every commit checks contrast, names and width")
@pytest.mark.skipif(not AXE.exists(), reason="axe-core is not installed; run npm ci in tests/web/axe")
async def test_no_page_breaks_a_rule_of_wcag_aa(desk: Desk) -> None:
    await populate(desk.box)
    await desk.open("/sign-in")
    axe = AXE.read_text()
    await desk.tab.run(f"{axe};0")
    await desk.tab.run("document.querySelector('label').remove()")
    assert [text for text in await desk.tab.run(VIOLATIONS) if text.startswith("label:")]  # it would find one
    await desk.open("/sign-in")
    await desk.tab.run(f"{axe};0")
    assert await desk.tab.run(VIOLATIONS) == []
    await desk.tab.submit(".sign-in", token=TOKEN)
    for path in PAGES:
        await desk.open(path)
        await desk.tab.run(f"{axe};0")
        for width, height, scheme in LOOKS:
            await desk.tab.look(width, height, scheme)
            assert (path, await desk.tab.run(VIOLATIONS)) == (path, [])

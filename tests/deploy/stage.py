"""A real Studio with the kit, on the sandbox and the worker, in a real browser."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sync_worker.cli.processes import install_hook, settings_for
from sync_worker.sandbox.node import node_binary
from tests.browser import browsing
from tests.kits import DEPLOY
from tests.nursery import listening
from tests.oracle import GUARD

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from sync_worker.sandbox.server import Sandbox
    from tests.browser import Tab

STUDIO = DEPLOY / "studio"
VITE = STUDIO / "node_modules" / "vite" / "bin" / "vite.js"
ADMIN_TOKEN = "a long random text"
AHEAD = """
  window.Date = class extends Date {
    constructor(...given) { super(...(given.length ? given : [window.Date.now()])) }
    static now() { return super.now() + %(minutes)d * 60_000 }
  }
"""
AT_REST = """(async () => {
  const look = () => {
    const one = %(found)s;
    one?.scrollIntoView({block: 'center'});
    return {one, ...one?.getBoundingClientRect().toJSON()};
  };
  const frame = () => new Promise(requestAnimationFrame);
  const before = look();
  await frame();
  await frame();
  const {one, x, y, width, height} = look();
  if (!one || one !== before.one || x !== before.x || y !== before.y) return false;
  if (one.disabled || one.dataset.disabled === 'true') return false;
  return one.contains(document.elementFromPoint(x + width / 2, y + height / 2));
})()"""


def build(folder: Path) -> Path:
    """Build the demo's Studio into a folder."""
    built = folder / "studio"
    command = [str(node_binary()), str(VITE), "build", "demo", "--logLevel", "error", "--outDir", str(built)]
    subprocess.run(command, cwd=STUDIO, check=True, capture_output=True)
    return built


def is_one(document: Mapping[str, Any]) -> bool:
    return bool(document["_type"] == "entitlement")


@dataclass(frozen=True)
class Stage:
    """An editor in front of the Studio."""

    box: Sandbox
    worker: str
    studio: str
    tab: Tab
    folder: Path

    async def open(self, path: str) -> None:
        await self.tab.look(1300, 2400, "light")  # all fields without scrolling
        await self.tab.open(self.studio + path)

    async def set_clock(self, *, minutes_ahead: int) -> None:
        """Let the clock of the editor's computer run ahead, in all pages that are opened from now on."""
        await self.tab.call("Page.enable")
        await self.tab.call("Page.addScriptToEvaluateOnNewDocument", source=AHEAD % {"minutes": minutes_ahead})

    async def press(self, found: str) -> None:
        """Click on what a JavaScript expression finds, once it rests, can be used, and nothing lies over it."""
        async with asyncio.timeout(GUARD):
            while not await self.tab.run(AT_REST % {"found": found}):
                await asyncio.sleep(0.05)
        await self.tab.click(found)

    async def act(self, action: str) -> None:
        """Press a button of the document by its test id."""
        await self.press(f"document.querySelector('[data-testid={action}]')")

    async def group(self, name: str) -> None:
        """Turn to a group of fields; a click can be lost while a list of matches closes."""
        tab = f"document.querySelector('[data-testid=group-tab-{name}]')"
        async with asyncio.timeout(GUARD):
            while not await self.tab.run(f"{tab}?.getAttribute('aria-selected') === 'true'"):
                if await self.tab.run(AT_REST % {"found": tab}):
                    await self.tab.click(tab)

    async def choose(self, text: str, selector: str = "[role=option]") -> None:
        """Press the first of such elements with this text in it."""
        await self.press(
            f"[...document.querySelectorAll({json.dumps(selector)})].find(one => "
            f"one.innerText.includes({json.dumps(text)}) && one.checkVisibility())"
        )

    async def fill(self, field: str, text: str) -> None:
        """Put a text into a field in place of what it has, once it takes what is typed."""
        await self.press(field)
        await self.until(f"document.activeElement === {field}")
        await self.tab.run(f"{field}.select()")
        await self.tab.type(text)
        await self.until(f"{field}.value === {json.dumps(text)}")

    async def enter(self) -> None:
        """Press Enter as a keyboard does, with its character."""
        key = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13}
        await self.tab.call("Input.dispatchKeyEvent", type="keyDown", text="\r", **key)
        await self.tab.call("Input.dispatchKeyEvent", type="keyUp", **key)

    async def publish(self) -> None:
        """Publish the draft; return when Sanity has no draft any more, and the Studio knows it.

        A Studio that is still saving may forget that it was told to publish: it offers the button again, after 4 s.
        """
        button = "document.querySelector('[data-testid=action-publish]')"
        async with asyncio.timeout(GUARD):
            while self.drafts():
                await self.until("!document.body.innerText.includes('Saving')")
                if await self.tab.run(AT_REST % {"found": button}):
                    await self.tab.click(button)
                await asyncio.sleep(0.05)
        await self.until(f"{button}?.dataset.disabled === 'true'")

    async def until(self, condition: str) -> None:
        """Wait until a JavaScript expression is true; the process of the test answers a Studio's many queries."""
        async with asyncio.timeout(GUARD):
            while not await self.tab.run(f"Boolean({condition})"):
                await asyncio.sleep(0.05)

    async def sees(self, text: str) -> None:
        """Wait until a text is to be read."""
        try:
            await self.until(f"document.body.innerText.includes({json.dumps(text)})")
        except TimeoutError:
            raise AssertionError(f"{text!r} is not in: {await self.tab.text()}") from None

    def drafts(self) -> list[dict[str, Any]]:
        """Return the entitlements that are being edited."""
        return [dict(one) for id_, one in self.box.lake.documents.items() if id_.startswith("drafts.") and is_one(one)]

    def entitlements(self) -> list[dict[str, Any]]:
        """Return what is published."""
        return [dict(one) for id_, one in self.box.lake.documents.items() if "." not in id_ and is_one(one)]

    def access(self, user: str) -> dict[str, Any]:
        found: dict[str, Any] = self.box.clerk.users[user]["public_metadata"]
        return found


@asynccontextmanager
async def staged(box: Sandbox, built: Path, folder: Path, *, worker: str = "") -> AsyncIterator[Stage]:
    """Open the Studio. With `worker`, that is where the proxy looks for it; else one is started."""
    async with AsyncExitStack() as stack:
        if not worker:
            environment = {
                **settings_for(box, f"sqlite:///{folder}/work.db"),
                "ADMIN_TOKEN": ADMIN_TOKEN,
                "PLAN_ORDER": "basic,pro",
            }
            worker = await stack.enter_async_context(listening("serve", environment, folder / "log"))
            install_hook(box, worker)
        url = await stack.enter_async_context(_served(box, built, worker))
        tab = await stack.enter_async_context(browsing(folder / "profile"))
        try:
            yield Stage(box, worker, url, tab, folder)
        except BaseException:
            (folder / "failed.png").write_bytes(await tab.picture())
            raise


@asynccontextmanager
async def _served(box: Sandbox, built: Path, worker: str) -> AsyncIterator[str]:
    environment = {
        "SANITY_API_URL": box.sanity_url,
        "SANITY_TOKEN": box.lake.token,
        "FILES": str(built),
        "PORT": "0",
        "SYNC_WORKER_URL": worker,
        "ADMIN_TOKEN": ADMIN_TOKEN,
        "PATH": os.environ["PATH"],
    }
    process = await asyncio.create_subprocess_exec(
        *(node_binary(), STUDIO / "demo" / "server.ts"), env=environment, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        yield (await process.stdout.readline()).decode().split()[1]
    finally:
        process.terminate()
        await process.wait()

"""A real Studio with the kit, on the sandbox and the worker, in a real browser."""

from __future__ import annotations

import asyncio
import contextlib
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

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from sync_worker.sandbox.server import Sandbox
    from tests.browser import Tab

STUDIO = DEPLOY / "studio"
VITE = STUDIO / "node_modules" / "vite" / "bin" / "vite.js"
ADMIN_TOKEN = "a long random text"


def build(folder: Path) -> Path:
    """Build the demo's Studio into a folder."""
    built = folder / "studio"
    command = [str(node_binary()), str(VITE), "build", "demo", "--logLevel", "error", "--outDir", str(built)]
    subprocess.run(command, cwd=STUDIO, check=True, capture_output=True)
    return built


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

    async def sees(self, text: str) -> None:
        """Wait until a text is to be read."""
        for _ in range(4):  # the sandbox answers a Studio's many queries in the process of the test
            with contextlib.suppress(TimeoutError):
                return await self.tab.until(f"document.body.innerText.includes({json.dumps(text)})")
        raise AssertionError(f"{text!r} is not in: {await self.tab.text()}")

    async def click(self, text: str, selector: str = "button, a, [role=option], [role=menuitem], [role=tab]") -> None:
        """Click what has this text."""
        await self.tab.click(
            f"[...document.querySelectorAll({json.dumps(selector)})].find(one => one.innerText.trim() === "
            f"{json.dumps(text)} && one.checkVisibility() && !one.disabled && one.dataset.disabled !== 'true')"
        )

    def entitlements(self) -> list[dict[str, Any]]:
        """Return what is published."""
        documents = self.box.lake.documents.values()
        return [dict(one) for one in documents if one["_type"] == "entitlement" and "." not in str(one["_id"])]

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
        yield Stage(box, worker, url, tab, folder)


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

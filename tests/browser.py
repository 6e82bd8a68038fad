"""A real browser for tests: whatever Chromium is installed, steered over a pipe, so that nothing but it is needed."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import os
import shutil
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

FOUND = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE = 30.0
ARGUMENTS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe"),
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
)


@dataclass
class Tab:
    """One page. It sees what anybody sees: there is no way in here but typing and clicking."""

    requests: asyncio.StreamWriter
    answers: asyncio.StreamReader
    session: str = ""
    complaints: list[str] = field(default_factory=list)
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send one command of the DevTools protocol and return its result."""
        number = next(self._numbers)
        command = {"id": number, "method": method, "params": parameters}
        if self.session:
            command["sessionId"] = self.session
        self.requests.write(json.dumps(command).encode() + b"\0")
        async with asyncio.timeout(PATIENCE):
            while True:
                reported = json.loads((await self.answers.readuntil(b"\0"))[:-1])
                if reported.get("method") == "Log.entryAdded":
                    self.complaints.append(reported["params"]["entry"]["text"])
                if reported.get("id") == number:
                    assert "error" not in reported, reported["error"]
                    result: dict[str, Any] = reported["result"]
                    return result

    async def run(self, script: str) -> Any:
        """Return what a JavaScript expression yields in the page."""
        reported = await self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in reported, reported["exceptionDetails"]
        return reported["result"].get("value")

    async def open(self, url: str) -> None:
        await self.call("Page.navigate", url=url)
        await self.until(f"location.href !== 'about:blank' && document.readyState === 'complete' && {_is_at(url)}")

    async def until(self, condition: str) -> None:
        async with asyncio.timeout(PATIENCE):
            while not await self.run(f"Boolean({condition})"):
                await asyncio.sleep(0.05)

    async def submit(self, selector: str, **values: str) -> None:
        """Fill in a form and send it; return when the next page is there."""
        fill = "".join(f"f.elements[{json.dumps(name)}].value = {json.dumps(text)};" for name, text in values.items())
        await self.run(
            f"(() => {{ window.left = true; const f = document.querySelector({json.dumps(selector)}); {fill}"
            "f.querySelector('button').click(); })()"
        )
        await self.until("!window.left && document.readyState === 'complete'")

    async def click(self, found: str) -> None:
        """Click on the middle of the element that a JavaScript expression finds, once it is there."""
        await self.until(found)
        await self.run(f"({found}).scrollIntoView({{block: 'center'}})")
        box = await self.run(
            f"(({{x, y, width, height}}) => [x + width / 2, y + height / 2])(({found}).getBoundingClientRect())"
        )
        for kind in ("mousePressed", "mouseReleased"):
            await self.call("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    async def type(self, text: str) -> None:
        """Type where the caret is."""
        await self.call("Input.insertText", text=text)

    async def press(self, key: str) -> None:
        for kind in ("rawKeyDown", "keyUp"):
            await self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    async def text(self) -> str:
        """Return what is to be read on the page."""
        return str(await self.run("document.body.innerText"))

    async def look(self, width: int, height: int, scheme: str) -> None:
        """Make the window so large, and let the person prefer dark or light."""
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        await self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    async def picture(self) -> bytes:
        reported = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        return base64.b64decode(reported["data"])


def _is_at(url: str) -> str:
    return "true" if url.startswith("data:") else f"location.origin === new URL({json.dumps(url)}).origin"


@asynccontextmanager
async def browsing(folder: Path) -> AsyncIterator[Tab]:
    """Start a browser with a fresh profile in `folder`, and end it."""
    assert FOUND is not None
    theirs, managed = os.pipe(), os.pipe()
    # The protocol is spoken on descriptors 3 and 4.
    mapped = f"import os, sys; os.dup2({theirs[0]}, 3); os.dup2({managed[1]}, 4); os.execv(sys.argv[1], sys.argv[1:])"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", mapped, FOUND, *ARGUMENTS, f"--user-data-dir={folder}", "about:blank"),
        pass_fds=(theirs[0], managed[1]),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    os.close(theirs[0])
    os.close(managed[1])
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=2**26)
    incoming, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(managed[0], "rb")
    )
    outgoing, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, os.fdopen(theirs[1], "wb"))
    tab = Tab(asyncio.StreamWriter(outgoing, protocol, None, loop), reader)
    try:
        target = (await tab.call("Target.createTarget", url="about:blank"))["targetId"]
        tab.session = (await tab.call("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
        await tab.call("Log.enable")
        yield tab
    finally:
        outgoing.close()
        incoming.close()
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()

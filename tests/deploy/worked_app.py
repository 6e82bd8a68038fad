"""Serves the worked app, for Starlette and for Next.js, and signs people in with tokens of the sandbox."""

from __future__ import annotations

import asyncio
import base64
import fcntl
import os
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from sync_worker.cli.processes import free_port
from sync_worker.sandbox.clerk_tokens import ISSUER, public_pem
from sync_worker.sandbox.node import node_binary
from sync_worker.sandbox.server import Server
from sync_worker.transport import ssl_context
from tests.kits import DEPLOY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping
    from pathlib import Path
    from types import ModuleType

    from sync_worker.sandbox.server import Sandbox

NEXTJS = DEPLOY / "app" / "nextjs"
NEXT = NEXTJS / "node_modules" / "next" / "dist" / "bin" / "next"
PUBLISHABLE_KEY = "pk_test_" + base64.b64encode(f"{ISSUER.removeprefix('https://')}$".encode()).decode()
QUIET = {"NEXT_TELEMETRY_DISABLED": "1", "NEXT_PUBLIC_CLERK_TELEMETRY_DISABLED": "1"}
BUILD = {**QUIET, "NEXT_PUBLIC_CLERK_PUBLISHABLE_KEY": PUBLISHABLE_KEY}
PATIENCE = 60.0


@dataclass(frozen=True)
class Site:
    """The app, as browsers reach it."""

    box: Sandbox
    origin: str

    async def sign_in(self, origin: str = "") -> dict[str, str]:
        """Return the cookies that Clerk's script keeps in Ada's browser, with a token of this moment."""
        headers = {"authorization": f"Bearer {self.box.clerk.secret_key}"}
        base = f"{self.box.clerk_url}/v1"
        async with httpx.AsyncClient(verify=ssl_context(), base_url=base, headers=headers) as clerk:
            session = (await clerk.post("/sessions", json={"user_id": "user_ada"})).json()
            path = f"/sessions/{session['id']}/tokens"
            signed = (await clerk.post(path, headers={"origin": origin or self.origin})).json()
        # On a development instance, Clerk's middleware looks for the other two as well.
        return {"__session": signed["jwt"], "__client_uat": "1", "__clerk_db_jwt": "dvb_sandbox"}

    async def get(self, path: str, cookies: Mapping[str, str] | None = None, **headers: str) -> httpx.Response:
        async with httpx.AsyncClient(
            verify=ssl_context(), base_url=self.origin, cookies=dict(cookies or {}), timeout=PATIENCE
        ) as browser:
            return await browser.get(path, headers=headers)


def environment(box: Sandbox, origin: str) -> dict[str, str]:
    """Return what both apps read."""
    return {
        "CLERK_JWT_KEY": public_pem(),
        "APP_ORIGINS": origin,
        "SANITY_PROJECT_ID": box.lake.project_id,
        "SANITY_DATASET": box.lake.dataset,
        "SANITY_READ_TOKEN": box.lake.viewer_token,
        "SANITY_API_URL": box.sanity_url,
    }


def starlette_module() -> ModuleType:
    spec = spec_from_file_location("worked_app", DEPLOY / "app" / "starlette" / "app.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = module_from_spec(spec)
    sys.modules["worked_app"] = loaded  # dataclasses look it up
    spec.loader.exec_module(loaded)
    return loaded


@asynccontextmanager
async def starlette(box: Sandbox) -> AsyncIterator[Site]:
    server = Server(starlette_module().app, 0)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(box, server.url).items():
            patch.setenv(name, value)
        running = asyncio.create_task(server.run_until_stopped())
        try:
            yield Site(box, server.url)
        finally:
            server.stop()
            await running


@asynccontextmanager
async def nextjs(box: Sandbox) -> AsyncIterator[Site]:
    """Build the app unless it is built, and serve it."""
    await _build()
    port = free_port()
    # Next.js replaces 127.0.0.1 by localhost in its own addresses.
    site = Site(box, f"http://localhost:{port}")
    given = environment(box, site.origin) | {"CLERK_SECRET_KEY": box.clerk.secret_key, "CLERK_API_URL": box.clerk_url}
    process = await _next("start", "--hostname", "localhost", "--port", str(port), **BUILD, **given)
    try:
        await _answering(site)
        yield site
    finally:
        process.terminate()
        await process.wait()


async def _answering(site: Site) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                await site.get("/debug/claims")
            except httpx.TransportError:
                await asyncio.sleep(0.05)
            else:
                return


async def _build() -> None:
    """Build the app, which takes half a minute; of the processes of a run, the first one does."""
    if not NEXT.exists():
        pytest.skip("Next.js is not installed; make full installs it, or npm ci in deploy/app/nextjs")
    with (NEXTJS / "node_modules" / ".package-lock.json").open() as lock:
        await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
        built = NEXTJS / ".next" / "BUILD_ID"
        if built.exists() and all(file.stat().st_mtime < built.stat().st_mtime for file in _sources()):
            return
        building = await _next("build", **BUILD)
        output, _ = await building.communicate()
        assert building.returncode == 0, output.decode()


def _sources() -> Iterator[Path]:
    yield NEXTJS / "node_modules" / ".package-lock.json"
    for root, folders, files in os.walk(NEXTJS):
        folders[:] = [folder for folder in folders if folder not in {"node_modules", ".next"}]
        yield from (NEXTJS.joinpath(root, file) for file in files if file != "next-env.d.ts")


async def _next(*arguments: str, **environment: str) -> Any:
    return await asyncio.create_subprocess_exec(
        node_binary(),
        NEXT,
        *arguments,
        cwd=NEXTJS,
        env={"PATH": os.environ["PATH"], "NODE_ENV": "production", **environment},
        stdout=asyncio.subprocess.PIPE if arguments[0] == "build" else asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.STDOUT,
    )

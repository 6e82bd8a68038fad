"""`make demo-studio`: a local Content Lake, a local Clerk, the worker, and a real Studio to publish in by hand."""

import asyncio
import os
import secrets
import signal
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

from sync_worker.cli.processes import install_hook, listening, settings_for
from sync_worker.runtime.system_clock import SystemClock
from sync_worker.sandbox.node import node_binary
from sync_worker.sandbox.sample import load_sample
from sync_worker.sandbox.server import Sandbox

HERE = Path(__file__).parent
PORT = os.environ.get("PORT", "3335")


async def play() -> None:
    """Run everything until Ctrl-C."""
    stopped = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stopped.set)
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        box = await stack.enter_async_context(Sandbox())
        await load_sample(box)
        token = secrets.token_hex(16)
        settings = {**settings_for(box, f"sqlite:///{folder}/demo.db"), "ADMIN_TOKEN": token}
        settings["STUDIO_URL"] = f"http://localhost:{PORT}"
        log = Path(folder) / "worker.log"
        worker = await stack.enter_async_context(listening("serve", settings, log, SystemClock()))
        install_hook(box, worker)
        environment = {
            **os.environ,
            "SANITY_API_URL": box.sanity_url,
            "SANITY_TOKEN": box.lake.token,
            "PORT": PORT,
            "SYNC_WORKER_URL": worker,
            "ADMIN_TOKEN": token,
        }
        studio = await asyncio.create_subprocess_exec(
            *(node_binary(), HERE / "server.ts"),
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        assert studio.stdout is not None  # noqa: S101 - it is a pipe
        if served := (await studio.stdout.readline()).decode():
            print(f"{served}Publish an entitlement there, and its badge turns to In Clerk.")
            print(f"Worker: {worker}/status (token {token})\nCtrl-C ends everything.", flush=True)
        await asyncio.wait(
            {asyncio.create_task(stopped.wait()), asyncio.create_task(studio.wait())}, return_when="FIRST_COMPLETED"
        )
        if studio.returncode is None:
            studio.terminate()
            await studio.wait()
        elif studio.returncode:
            sys.exit(1)


asyncio.run(play())

"""Runs both services until SIGTERM or SIGINT: `python -m sync_worker.sandbox --sanity-port 3333 --clerk-port 3334`.

Prints one line of JSON on stdout, with the addresses and keys.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys

from sync_worker.sandbox import sample
from sync_worker.sandbox.limits import Limits
from sync_worker.sandbox.node import SandboxUnavailable
from sync_worker.sandbox.server import Sandbox


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m sync_worker.sandbox", description=__doc__.partition("\n")[0])
    parser.add_argument("--sanity-port", type=int, default=0, help="0 picks a free port (default)")
    parser.add_argument("--clerk-port", type=int, default=0, help="0 picks a free port (default)")
    parser.add_argument("--sample", action="store_true", help="start with the sample content")
    parser.add_argument("--no-limits", action="store_true", help="do not apply Clerk's rate limits")
    return parser.parse_args()


async def run(options: argparse.Namespace) -> None:
    """Serve until SIGTERM or SIGINT."""
    box = Sandbox(sanity_port=options.sanity_port, clerk_port=options.clerk_port)
    if not options.no_limits:
        box.clerk.limiter.limits = Limits.of_key(box.clerk.secret_key)
    async with box:
        if options.sample:
            await sample.load_sample(box)
        where = {
            "sanity_url": box.sanity_url,
            "clerk_url": box.clerk_url,
            "project_id": box.lake.project_id,
            "dataset": box.lake.dataset,
            "sanity_token": box.lake.token,
            "sanity_read_token": box.lake.viewer_token,
            "clerk_secret_key": box.clerk.secret_key,
        }
        stopped = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        print(json.dumps(where), flush=True)  # noqa: T201  the one line of data
        await stopped.wait()


if __name__ == "__main__":
    try:
        asyncio.run(run(arguments()))
    except SandboxUnavailable as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)

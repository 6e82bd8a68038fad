"""`python bench/large.py [USERS]`: reconcile a large population without drift, and with 1 % drift.

Prints calls, writes and seconds, as `sync-worker reconcile --json` tells them, and the peak memory of that process.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path

from sync_worker.changes import MARKER_KEY, fingerprint, marker_json
from sync_worker.cli.local import settings_for
from sync_worker.cli.output import print_table
from sync_worker.model import CORE_FIELDS, Layout, Marker
from sync_worker.sandbox.server import Sandbox

FIRST_RUN_DRIFT = 0.01


async def reconcile(box: Sandbox, folder: Path) -> dict[str, float]:
    """Run one reconcile as a process of its own. Returns its report and its peak memory in MB."""
    environment = {**settings_for(box, f"sqlite:///{folder}/work.db"), "CLERK_BUDGET": "1000000"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", RUN),
        env={"PATH": os.environ["PATH"], "LOG_FORMAT": "json", **environment},
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    out, _ = await process.communicate()
    report, _, memory = out.decode().rpartition("peak ")
    return {**json.loads(report), "peak_mb": int(memory) / 1024}


RUN = """
import resource, sys
sys.argv = ["sync-worker", "reconcile", "--json", "--max-revocations", "100%"]
from sync_worker.cli import main
try:
    main()
finally:
    print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


async def main(users: int) -> None:
    """Seed `users` people who are right already, compare, change one in a hundred, compare again."""
    async with Sandbox() as box:
        with tempfile.TemporaryDirectory() as folder:
            rows = []
            for number in range(users):
                user = box.clerk.add_user(f"user_{number:06}")
                rows.append({"_id": f"ent-{user}", "_type": "entitlement", "clerkUserId": user, "plan": "pro"})
            await box.lake.load(rows)
            seed_as_applied(box)
            quiet = await reconcile(box, Path(folder))
            for row in rows[:: int(1 / FIRST_RUN_DRIFT)]:
                row["plan"] = "basic"
            await box.lake.load(rows[:: int(1 / FIRST_RUN_DRIFT)])
            drift = await reconcile(box, Path(folder))
    names = ("checked", "writes", "clerk_calls", "sanity_calls", "seconds", "peak_mb")
    print_table(
        ("", *names),
        [(label, *(f"{told[n]:.0f}" for n in names)) for label, told in (("no drift", quiet), ("1 % drift", drift))],
    )


def seed_as_applied(box: Sandbox) -> None:
    """Put what a first reconcile would write into Clerk, without the hour that it would take."""
    layout = Layout(CORE_FIELDS)
    values = {"plan": "pro", "courseSlugs": []}
    for user_id, user in box.clerk.users.items():
        marker = Marker((f"ent-{user_id}",), fingerprint(values, layout), "2026-05-01T12:00:00+00:00", layout.slots)
        user["public_metadata"].update(plan="pro", courseSlugs=[])
        user["private_metadata"][MARKER_KEY] = marker_json(marker)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000))

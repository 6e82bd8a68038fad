"""Runs `sync-worker` verbs as real processes, to the end."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


async def run(*arguments: str, cwd: Path, environment: dict[str, str] | None = None) -> Ended:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sync_worker", *arguments),
        cwd=cwd,
        env={"PATH": os.environ["PATH"], **(environment or {})},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())

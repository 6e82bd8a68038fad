"""An operator at a terminal: the commands as processes on the sandbox."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.nursery import run

if TYPE_CHECKING:
    from pathlib import Path

    from sync_worker.sandbox.server import Sandbox
    from tests.nursery import Ended


@dataclass(frozen=True)
class Operator:
    """An operator at a terminal."""

    box: Sandbox
    folder: Path
    environment: dict[str, str]

    async def run(self, *arguments: str, **environment: str) -> Ended:
        return await run(*arguments, cwd=self.folder, environment={**self.environment, **environment})

    async def reconcile(self, *arguments: str, **environment: str) -> tuple[int, dict[str, Any]]:
        ended = await self.run("reconcile", "--json", *arguments, **environment)
        return ended.code, json.loads(ended.out) if ended.out.strip() else {"error": ended.err}

    def writes(self) -> int:
        return self.box.clerk.requests.count("PATCH")


async def publish(box: Sandbox, users: int, **fields: Any) -> list[str]:
    """Create users with one entitlement each, without any webhook."""
    ids = [box.clerk.add_user(f"user_{n:04}", public_metadata={"theme": n}) for n in range(users)]
    rows = [{"_id": f"ent-{i}", "_type": "entitlement", "clerkUserId": i, "plan": "pro", **fields} for i in ids]
    await box.lake.mutate([{"create": row} for row in rows])
    return ids


async def delete(box: Sandbox, users: list[str]) -> None:
    await box.lake.mutate([{"delete": {"id": f"ent-{user}"}} for user in users])

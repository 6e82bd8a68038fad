"""One changed document must not take the access of many people away unseen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from sync_worker.settings import packaged_groq
from sync_worker.workset import Mark
from tests.oracle import until, wrong
from tests.parts import working

if TYPE_CHECKING:
    from pathlib import Path

    from sync_worker.sandbox.server import Sandbox

pytestmark = pytest.mark.anyio


async def publish(box: Sandbox, count: int) -> list[str]:
    reference = {"_type": "reference", "_ref": "c1", "_key": "c1"}
    users = [box.clerk.add_user(f"user_{n:03}") for n in range(count)]
    rows: list[dict[str, Any]] = [
        {"_id": f"ent-{user}", "_type": "entitlement", "clerkUserId": user, "plan": "pro", "courses": [reference]}
        for user in users
    ]
    course = {"_id": "c1", "_type": "course", "slug": {"current": "algebra"}}
    await box.lake.mutate([{"create": course}, *({"create": row} for row in rows)])
    return users


async def test_a_fan_out_over_a_wrong_query_holds_what_it_would_take_away(
    box: Sandbox, sqlite_url: str, tmp_path: Path
) -> None:
    users = await publish(box, 120)
    async with working(box, sqlite_url) as parts:
        await parts.store.workset.mark([Mark(f"user:{user}") for user in users])
        await until(lambda: not wrong(box))
    for file in packaged_groq().glob("*.groq"):
        text = file.read_text()
        (tmp_path / file.name).write_text(
            text.replace('clerkUserId, " "', 'clerkId, " "') if "by_sub" in file.name else text
        )
    async with working(box, sqlite_url, groq_dir=tmp_path) as parts:
        await parts.store.workset.mark([Mark("document:c1", lane=1)])
        await until_held(parts.store.runs, 120)
        assert wrong(box) == []
        failed = await parts.store.workset.failed(1)
        assert failed[0].code == "revocation_held"


async def until_held(runs: Any, count: int) -> None:
    import asyncio  # noqa: PLC0415 - only here

    async with asyncio.timeout(30):
        while sum(len(one.subjects) for one in await runs.held()) < count:
            await asyncio.sleep(0.05)


async def test_a_webhook_of_one_entitlement_is_never_held(box: Sandbox, sqlite_url: str) -> None:
    users = await publish(box, 30)
    async with working(box, sqlite_url, max_revocations="0") as parts:
        await parts.store.workset.mark([Mark(f"user:{user}") for user in users])
        await until(lambda: not wrong(box))
        await box.lake.mutate([{"delete": {"id": f"ent-{user}"}} for user in users[:20]])
        await parts.store.workset.mark([Mark(f"user:{user}", cause="webhook:x") for user in users[:20]])
        await until(lambda: not wrong(box))

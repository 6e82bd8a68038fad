"""People who hold a plan and a course, and what becomes of their access when many lose it at once."""

from __future__ import annotations

import copy
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from sync_worker.settings import packaged_groq
from sync_worker.storage.work_items import WorkItem
from tests.builders import entitlement, reference
from tests.causes import cause_of
from tests.oracle import until, until_idle, until_seen, wrong
from tests.parts import working

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from sync_worker.sandbox.server import Sandbox
    from sync_worker.storage.approvals import Approvals
    from tests.parts import Parts


async def publish(box: Sandbox, count: int) -> list[str]:
    """Publish people with the plan p1 and the course c1; return their ids."""
    plan = {"_id": "p1", "_type": "plan", "slug": {"current": "pro"}}
    course = {"_id": "c1", "_type": "course", "slug": {"current": "algebra"}}
    users = [box.clerk.add_user(f"user_{n:04}") for n in range(count)]
    rows = [entitlement(f"ent-{u}", u, plan=reference("p1"), courses=[reference("c1")]) for u in users]
    await box.lake.mutate([{"create": document} for document in (plan, course, *rows)])
    return users


@asynccontextmanager
async def synced(
    box: Sandbox, database_url: str, users: Sequence[str] | int, **given: Any
) -> AsyncIterator[tuple[Parts, list[str]]]:
    """Run a worker over people who have their access; publish so many where a number is given."""
    users = await publish(box, users) if isinstance(users, int) else list(users)
    async with working(box, database_url, **given) as parts:
        await sync_all(parts, users, box)
        yield parts, users


async def sync_all(parts: Parts, users: Sequence[str], box: Sandbox) -> None:
    """Have the worker that runs give these people their access."""
    await enqueue(parts, ids(users), "webhook:x")
    await until(lambda: not wrong(box))


def ids(users: Sequence[str]) -> list[str]:
    return [f"user:{user}" for user in users]


async def enqueue(parts: Parts, keys: Sequence[str], cause: str, **given: Any) -> None:
    """Enqueue the keys, and wait until the worker has nothing left to do."""
    await parts.store.queue.enqueue([WorkItem(key, cause=cause_of(cause), **given) for key in keys])
    await until_idle(parts.settings.database_url)


async def edit(box: Sandbox, users: Sequence[str], **patch: Any) -> None:
    """Edit the entitlements of some people."""
    await box.lake.mutate([{"patch": {"id": f"ent-{user}", **patch}} for user in users])


async def clear_the_slug(box: Sandbox, parts: Parts, count: int, document: str = "p1") -> None:
    """Clear the slug of the plan, or the course, and wait until that is held for so many."""
    await box.lake.mutate([{"patch": {"id": document, "unset": ["slug"]}}])
    await parts.store.queue.enqueue([WorkItem(f"document:{document}", lane=1, cause=cause_of(f"webhook:{document}"))])
    await until_held(parts.store.approvals, count)
    await until_idle(parts.settings.database_url)


async def until_held(approvals: Approvals, count: int) -> None:
    """Wait until so many subjects are on lists."""
    await until_seen(approvals.changesets, lambda lists: sum(one.size for one in lists) == count)


def with_plan(box: Sandbox) -> list[str]:
    return [id_ for id_, user in box.clerk.users.items() if "plan" in user["public_metadata"]]


def with_a_wrong_query(folder: Path) -> Path:
    """Return a folder of queries in which by_subject.groq finds no row of a subject whose documents are known.

    The check before any work queries subjects without documents, and so does not notice.
    """
    for file in packaged_groq().glob("*.groq"):
        text = file.read_text()
        wrong_text = text.replace('_type == "entitlement" &&', '_type == "entitlement" && count($documents) == 0 &&')
        (folder / file.name).write_text(wrong_text if file.name == "by_subject.groq" else text)
    return folder


def public(box: Sandbox, user: str = "user_1") -> dict[str, Any]:
    """Return a copy of what Clerk has for a person in public metadata."""
    return copy.deepcopy(box.clerk.users[user]["public_metadata"])

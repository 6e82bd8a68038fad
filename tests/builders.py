"""Documents as editors make them, for tests of every package."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sync_worker.sandbox.server import Sandbox


def reference(document: str) -> dict[str, str]:
    """A member of an array of references, or a single one."""
    return {"_type": "reference", "_ref": document, "_key": document}


def weak(document: str) -> dict[str, Any]:
    """A reference that stays when its document is deleted, or was never published."""
    return {**reference(document), "_weak": True}


def entitlement(document: str, user: str | None = None, **fields: Any) -> dict[str, Any]:
    """An entitlement, for a user by Clerk id unless `fields` say whom it is for."""
    named = {} if user is None else {"clerkUserId": user}
    return {"_id": document, "_type": "entitlement", **named, **fields}


def created(document: str, user: str | None = None, **fields: Any) -> dict[str, Any]:
    """The mutation that creates it."""
    return {"create": entitlement(document, user, **fields)}


def published(document: str, user: str | None = None, **fields: Any) -> dict[str, Any]:
    """The mutation that creates or replaces it, with the plan pro unless `fields` give another."""
    return {"createOrReplace": entitlement(document, user, **{"plan": "pro", **fields})}


async def publish(box: Sandbox, document: str, user: str | None = None, **fields: Any) -> None:
    """Publish it."""
    await box.lake.mutate([published(document, user, **fields)])

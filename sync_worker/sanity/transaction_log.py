"""Sanity's transaction log: one JSON object a line, for each transaction with what it did."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from sync_worker.errors import UnreadableAnswer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import httpx


def transactions_of(response: httpx.Response) -> list[dict[str, Any]]:
    """Parse a page of the transaction log: a JSON object a line. Raises UnreadableAnswer."""
    try:
        lines = [json.loads(line) for line in response.text.splitlines() if line.strip()]
    except ValueError:
        raise UnreadableAnswer("a line of Sanity's transaction log is not JSON") from None
    for line in lines:
        if not isinstance(line, dict) or "error" in line or not isinstance(line.get("id"), str):
            raise UnreadableAnswer("a line of Sanity's transaction log is not a transaction")
    return lines


def deleted_by(transaction: Mapping[str, Any]) -> Iterator[str]:
    """Yield the documents that a transaction deleted: by a mutation, or by an effect that leaves nothing."""
    for mutation in transaction.get("mutations") or ():
        delete = mutation.get("delete") if isinstance(mutation, dict) else None
        if isinstance(delete, dict) and isinstance(delete.get("id"), str):
            yield delete["id"]
    effects = transaction.get("effects")
    for document, effect in effects.items() if isinstance(effects, dict) else ():
        if isinstance(effect, dict) and list(effect.get("apply") or ())[:2] == [0, None]:
            yield document

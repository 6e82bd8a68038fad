"""The server-sent events of listeners: which changes a query selects, and what is sent about them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sync_worker.sandbox.transaction_log import effects

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sync_worker.sandbox.documents import Change, Transaction
    from sync_worker.sandbox.groq import Groq

TRANSITIONS = {(False, True): "appear", (True, True): "update", (True, False): "disappear"}
"""By whether the query selected the document before and after the change."""


def frame(event: str, data: Any, id_: str = "") -> bytes:
    """Return one server-sent event with JSON data on a single line."""
    identified = f"id: {id_}\n" if id_ else ""
    return f"event: {event}\n{identified}data: {json.dumps(data, separators=(',', ':'))}\n\n".encode()


def failure(error: Any) -> bytes:
    """Return the two events that end a listener for good; `error` is what went wrong, as in an error response."""
    return frame("channelError", {"error": error}) + frame("disconnect", {"reason": "channel error"})


@dataclass(frozen=True, slots=True)
class Subscription:
    """The options of a listener. `visibility` is `transaction` or `query`; `covers` returns whether an id may be seen.

    `resume_from` is the id of the last event that the client received, or an empty string.
    """

    query: str
    params: Mapping[str, Any]
    covers: Callable[[str], bool]
    visibility: str = "transaction"
    with_previous: bool = False
    with_result: bool = False
    with_mutations: bool = True
    with_effects: bool = False
    resume_from: str = ""


async def events_of(groq: Groq, subscription: Subscription, transaction: Transaction) -> list[bytes]:
    """Return one event for each document that the query selects before or after the transaction. Raises GroqError."""
    covered = [change for change in transaction.changes if subscription.covers(change.id)]
    sides = [side for change in covered for side in (change.before, change.after)]
    matches = await groq.matches(subscription.query, subscription.params, sides, transaction.time)
    pairs = zip(covered, matches[::2], matches[1::2], strict=True)
    selected = [(change, TRANSITIONS[before, after]) for change, before, after in pairs if before or after]
    events = []
    for number, (change, transition) in enumerate(selected, 1):
        place = {"transactionTotalEvents": len(selected), "transactionCurrentEvent": number}
        data = {**_mutation(subscription, transaction, change), "transition": transition, **place}
        events.append(frame("mutation", data, data["eventId"]))
    return events


def _mutation(subscription: Subscription, transaction: Transaction, change: Change) -> dict[str, Any]:
    data: dict[str, Any] = {
        "documentId": change.id,
        "eventId": f"{transaction.id}#{change.id}",
        "identity": transaction.author,
        "transactionId": transaction.id,
        "timestamp": transaction.time,
        "visibility": subscription.visibility,
        "resultRev": transaction.id,
    }
    if change.before is not None:
        data["previousRev"] = change.before["_rev"]
    if subscription.with_mutations:
        data["mutations"] = transaction.mutations_of(change.id)
    if subscription.with_previous:
        data["previous"] = change.before
    if subscription.with_result and change.after is not None:
        data["result"] = change.after
    if subscription.with_effects:
        data["effects"] = effects(change)
    return data

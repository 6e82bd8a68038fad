"""The transaction log: what the History API lists, and what a listener resumes from.

The log keeps `retention` seconds. A document that was deleted with `purge` is in no line of it, not even in the line of
its deletion. `history_routes` serves it over HTTP.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sync_worker.sandbox.documents import Change, Mutation, Transaction

DAY = 86_400.0
RETENTION = 3 * DAY
"""Seconds; Sanity's free plan."""
KEPT = 50_000
"""Transactions, whatever the retention is."""
DEFAULT_LIMIT = 100


@dataclass(frozen=True, slots=True)
class Selection:
    """Which transactions to list; both ends of a range are included. Times are Unix seconds.

    `document_ids` and `authors` select all if empty. `only_identified` leaves the other documents of a transaction out.
    """

    document_ids: frozenset[str] = frozenset()
    only_identified: bool = False
    authors: frozenset[str] = frozenset()
    from_time: float | None = None
    to_time: float | None = None
    from_transaction: str | None = None
    to_transaction: str | None = None
    limit: int = DEFAULT_LIMIT
    reverse: bool = False
    with_mutations: bool = True
    with_effects: bool = False


@dataclass(slots=True)
class Entry:
    """One transaction of the log. `at` is its time in Unix seconds; `ids` are its documents that are not purged."""

    number: int
    transaction: Transaction
    at: float
    ids: list[str]


def effects(change: Change) -> dict[str, list[Any]]:
    """Return a change in the mendoza format, in its simplest form: opcode 0 replaces the whole value."""
    return {"apply": [0, change.after], "revert": [0, change.before]}


@dataclass
class TransactionLog:
    """All transactions, oldest first. `retention` is in seconds and may be changed at any time."""

    clock: Callable[[], float]
    retention: float = RETENTION
    _entries: deque[Entry] = field(default_factory=lambda: deque(maxlen=KEPT))
    _count: int = 0

    def append(self, transaction: Transaction) -> None:
        """Add a committed transaction, and purge the documents that it deletes with `purge`."""
        if not transaction.changes:
            return
        self._count += 1
        at = datetime.fromisoformat(transaction.time).timestamp()
        self._entries.append(Entry(self._count, transaction, at, [change.id for change in transaction.changes]))
        for mutation in transaction.mutations:
            if mutation.get("delete", {}).get("purge"):
                self.purge(mutation["delete"]["id"])

    def purge(self, document_id: str) -> None:
        """Remove a document from every transaction so far."""
        for entry in self._entries:
            if document_id in entry.ids:
                entry.ids.remove(document_id)

    def clear(self) -> None:
        """Forget everything, and restore the first retention."""
        self._entries.clear()
        self.retention = RETENTION

    def since(self, transaction_id: str, seconds: float) -> list[Transaction] | None:
        """Return this transaction and all later ones, or None if it is not among those of the last `seconds`."""
        oldest = self.clock() - seconds
        recent = [entry.transaction for entry in self._entries if entry.at >= oldest]
        ids = [transaction.id for transaction in recent]
        return recent[ids.index(transaction_id) :] if transaction_id in ids else None

    def lines(self, selection: Selection) -> list[dict[str, Any]]:
        """Return the selected transactions as the History API writes them.

        What the service does with a transaction id that it does not keep is unknown; here it selects nothing.
        """
        oldest = self.clock() - self.retention
        kept = [entry for entry in self._entries if entry.at >= oldest]
        found = [entry for entry in _between(kept, selection) if _is_selected(entry, selection)]
        ordered = found[::-1] if selection.reverse else found
        return [_line(entry, selection) for entry in ordered[: selection.limit]]


def _between(entries: list[Entry], selection: Selection) -> Sequence[Entry]:
    """Cut the list at the two transactions."""
    ids = [entry.transaction.id for entry in entries]
    first, last = selection.from_transaction, selection.to_transaction
    if (first is not None and first not in ids) or (last is not None and last not in ids):
        return ()
    return entries[ids.index(first) if first else 0 : ids.index(last) + 1 if last else None]


def _is_selected(entry: Entry, selection: Selection) -> bool:
    if not entry.ids or (selection.document_ids and selection.document_ids.isdisjoint(entry.ids)):
        return False
    if selection.authors and entry.transaction.author not in selection.authors:
        return False
    is_after = selection.from_time is None or entry.at >= selection.from_time
    is_before = selection.to_time is None or entry.at <= selection.to_time
    return is_after and is_before


def _line(entry: Entry, selection: Selection) -> dict[str, Any]:
    transaction = entry.transaction
    ids = [id_ for id_ in entry.ids if not selection.only_identified or id_ in selection.document_ids]
    line: dict[str, Any] = {
        "id": transaction.id,
        "timestamp": transaction.time,
        "author": transaction.author,
        "documentIDs": ids,
        "sequenceNumber": entry.number,
    }
    if selection.with_mutations:
        line["mutations"] = list(_without_content(transaction, ids))
    if selection.with_effects:
        line["effects"] = {change.id: effects(change) for change in transaction.changes if change.id in ids}
    return line


def _without_content(transaction: Transaction, ids: list[str]) -> Iterable[Mutation]:
    """Yield the mutations of these documents with ids alone."""
    for mutation, result in zip(transaction.mutations, transaction.results, strict=True):
        ((name, body),) = mutation.items()
        id_ = result["id"]
        if id_ not in ids:
            continue
        if name == "delete":
            yield {"delete": {"id": id_, "purge": bool(body.get("purge"))}}
        else:
            yield {name: {"id" if name == "patch" else "_id": id_}}

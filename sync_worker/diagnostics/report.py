"""Reports who has what: by which documents and editors, since when and until when.

Now is what Clerk holds; the past is what the ledger says was written. The ledger reaches back `ledger_retention`.
"""

from __future__ import annotations

import json
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sync_worker.domain.clock import utc
from sync_worker.domain.diff import managed_values
from sync_worker.domain.entitlements import CORE_FIELDS, Entitlement
from sync_worker.domain.merge import merge
from sync_worker.domain.ownership import NOTHING_WRITTEN, is_untouched, managed, needs_ledger
from sync_worker.errors import UnreadableAnswer
from sync_worker.formatting import rfc3339
from sync_worker.sanity.rows import read_row
from sync_worker.sync.plan import last_writes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

    from sync_worker.clerk.target import Target
    from sync_worker.domain.clock import Clock
    from sync_worker.domain.entitlements import Layout, Marker, Observed
    from sync_worker.domain.ownership import LastWrites
    from sync_worker.domain.subjects import Subject
    from sync_worker.sanity.source import Source
    from sync_worker.storage.access_index import AccessIndex
    from sync_worker.storage.ledger import Entry, Ledger

PLAN, ROLE, COURSES = (f.name for f in CORE_FIELDS)
PAGE = 1000
Item = tuple[str, str]
"""A value of a key, or one member of a list, as JSON."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The values that a subject must have to be listed, by key. None lists everybody who has anything."""

    values: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, *, plan: str = "", role: str = "", course: str = "") -> Wanted:
        """Return what is wanted; an empty text wants nothing in particular."""
        given = {PLAN: plan, ROLE: role, COURSES: course}
        return cls({name: value for name, value in given.items() if value})

    def matches(self, values: Mapping[str, object]) -> bool:
        """Return whether these values have all that is wanted."""
        items = set(items_of(values))
        return bool(items) and self._items() <= items

    def relevant(self, values: Mapping[str, object]) -> set[Item]:
        """Return the items of `values` that the report is about: those that are wanted, or all."""
        return self._items() or set(items_of(values))

    def _items(self) -> set[Item]:
        return set(items_of(self.values))


@dataclass(frozen=True, slots=True)
class Holding:
    """What one subject has, and the documents that give it.

    `since` is when it got what is wanted, without a gap; without a filter, when its access last changed. `until` is
    when that ends, or ended; None where no end is known. Both are in epoch seconds. `by` are the editors to whom it
    owes what is wanted, as far as they are known.
    """

    subject: str
    values: Mapping[str, object]
    documents: Sequence[str]
    since: float | None
    until: float | None = None
    by: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Origin:
    """The write that gave an item: when, and whose doing it was."""

    at: float
    by: str


@dataclass(slots=True)
class Tenure:
    """What one subject has by the writes so far, and since when it has each item."""

    values: Mapping[str, object] = field(default_factory=dict)
    documents: Sequence[str] = ()
    changed_at: float = 0.0
    items: dict[Item, Origin] = field(default_factory=dict)

    def record(self, entry: Entry) -> None:
        """Add an applied write."""
        moment = _moment(entry)
        if dict(entry.after) != dict(self.values):
            self.changed_at = moment
        origin = Origin(moment, entry.by)
        self.items = {item: self.items.get(item, origin) for item in items_of(entry.after)}
        self.values, self.documents = entry.after, entry.documents

    def since(self, values: Mapping[str, object], wanted: Wanted) -> float | None:
        """Return since when it has what is wanted of `values`; None if the writes do not account for it."""
        relevant = wanted.relevant(values)
        known = [origin.at for origin in self._origins(relevant)]
        if not known or len(known) < len(relevant):
            return None
        return max(known) if wanted.values else max(self.changed_at, *known)

    def by(self, values: Mapping[str, object], wanted: Wanted) -> tuple[str, ...]:
        """Return the editors whose doing it is that it has what is wanted of `values`."""
        return tuple(sorted({origin.by for origin in self._origins(wanted.relevant(values))} - {""}))

    def holding(self, subject: str, wanted: Wanted, until: float | None = None) -> Holding:
        """Return what the subject has by the writes so far."""
        values = self.values
        return Holding(subject, values, self.documents, self.since(values, wanted), until, self.by(values, wanted))

    def _origins(self, items: Iterable[Item]) -> list[Origin]:
        return [self.items[item] for item in items if item in self.items]


def items_of(values: Mapping[str, object]) -> Iterable[Item]:
    """Return the items of some values."""
    for name, value in values.items():
        for member in value if isinstance(value, list | tuple) else (value,):
            yield name, json.dumps(member, sort_keys=True)


@dataclass(frozen=True, slots=True)
class AccessReport:
    """Reads who has what. It never writes."""

    ledger: Ledger
    access: AccessIndex
    source: Source
    target: Target
    layout: Layout
    clock: Clock

    async def now(self, wanted: Wanted) -> list[Holding]:
        """Return who has it now, by subject. Raises what prevents it from reading everything."""
        documents = await self._documents()
        tenures: dict[str, Tenure] = {}
        async for entry in self._applied():
            tenures.setdefault(entry.subject, Tenure()).record(entry)
        found: list[Holding] = []
        async with aclosing(self.target.sweep()) as pages:
            async for page in pages:
                written = await self._last_writes(page)
                indexed = await self.access.documents_of([str(observed.subject) for observed in page])
                for observed in page:
                    key = str(observed.subject)
                    last = written.get(key, NOTHING_WRITTEN)
                    values = managed_values(observed, self.layout, last)
                    if not wanted.matches(values):
                        continue
                    keys = managed(observed, self.layout, last)
                    tenure = tenures.get(key, Tenure())
                    since = tenure.since(values, wanted) or _written_at(keys.marker, observed)
                    ids = indexed.get(key) or keys.documents
                    rows = self._counting(observed.subject, [documents[id_] for id_ in ids if id_ in documents])
                    until, editors = _end(values, wanted, rows), tenure.by(values, wanted)
                    found.append(Holding(key, values, [row.id for row in rows], since, until, editors))
        return sorted(found, key=lambda one: one.subject)

    async def at(self, wanted: Wanted, moment: float) -> list[Holding]:
        """Return who had it at a moment, by subject, as far as the ledger knows."""
        tenures: dict[str, Tenure] = {}
        ended: dict[str, float] = {}
        async for entry in self._applied():
            tenure = tenures.get(entry.subject)
            if _moment(entry) <= moment:
                tenures.setdefault(entry.subject, Tenure()).record(entry)
            elif tenure is not None and entry.subject not in ended:
                kept = wanted.matches(entry.after) if wanted.values else dict(entry.after) == dict(tenure.values)
                if not kept:
                    ended[entry.subject] = _moment(entry)
        return [
            one.holding(key, wanted, ended.get(key))
            for key, one in sorted(tenures.items())
            if wanted.matches(one.values)
        ]

    def _counting(self, subject: Subject, rows: Sequence[Entitlement]) -> list[Entitlement]:
        """Return the rows that count for a subject now. Whom an address belongs to is known from its last run."""
        own = [row for row in rows if row.subject.is_address or row.subject == subject]
        sources = merge(own, self.layout.fields, utc(self.clock)).sources
        return sorted((row for row in own if row.id in sources), key=lambda row: row.id)

    async def _applied(self) -> AsyncIterator[Entry]:
        last = 0
        while entries := await self.ledger.applied(last, PAGE):
            for entry in entries:
                yield entry
            last = entries[-1].id

    async def _documents(self) -> dict[str, Entitlement]:
        """Return all published entitlements that are valid, by id."""
        found: dict[str, Entitlement] = {}
        after = ""
        while True:
            page = await self.source.everything(after)
            read = (read_row(row, self.layout.fields)[1] for row in page.rows)
            found |= {one.id: one for one in read if isinstance(one, Entitlement)}
            if page.last:
                return found
            if page.cursor <= after:
                raise UnreadableAnswer("a page did not go on from the one before")
            after = page.cursor

    async def _last_writes(self, page: Sequence[Observed]) -> Mapping[str, LastWrites]:
        subjects = [str(observed.subject) for observed in page if needs_ledger(observed, self.layout)]
        return last_writes(await self.ledger.latest(subjects)) if subjects else {}


async def holders(
    ledger: Ledger, wanted: Wanted, limit: int | None = None, start: int = 0
) -> tuple[int, list[Holding]]:
    """Return how many subjects have what is wanted by our last writes, and some of them. It reads only the ledger.

    `wanted` must name at least one value.
    """
    last = [entry for entry in await ledger.holding(next(iter(wanted.values.values()))) if wanted.matches(entry.after)]
    shown = last[start:][:limit]
    tenures: dict[str, Tenure] = {entry.subject: Tenure() for entry in shown}
    for entry in await ledger.applied_to(tenures):
        tenures[entry.subject].record(entry)
    return len(last), [tenures[entry.subject].holding(entry.subject, wanted) for entry in shown]


def holding_json(one: Holding) -> dict[str, Any]:
    """Return one line of the report."""
    return {
        "subject": one.subject,
        "values": one.values,
        "documents": list(one.documents),
        "by": list(one.by),
        "since": rfc3339(one.since),
        "until": rfc3339(one.until),
    }


def _end(values: Mapping[str, object], wanted: Wanted, documents: Iterable[Entitlement]) -> float | None:
    """Return when the last of the documents ends that give what is wanted; None if one never does."""
    relevant = wanted.relevant(values)
    giving = [one.ends_at for one in documents if relevant & set(items_of(one.values))]
    ends = [moment.timestamp() for moment in giving if moment is not None]
    return max(ends) if ends and len(ends) == len(giving) else None


def _moment(entry: Entry) -> float:
    return entry.at if entry.settled_at is None else entry.settled_at


def _written_at(marker: Marker | None, observed: Observed) -> float | None:
    """Return when the values were written, by a marker whose values nobody has edited since."""
    if marker is None or not is_untouched(observed, marker):
        return None
    try:
        return datetime.fromisoformat(marker.at).timestamp()
    except ValueError:
        return None

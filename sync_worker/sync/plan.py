"""What to do for a batch of subjects, from what both services and the ledger show. Pure."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from sync_worker.domain.diff import diff
from sync_worker.domain.entitlements import Entitlement, Refusal, Slot
from sync_worker.domain.merge import merge
from sync_worker.domain.ownership import NOTHING_WRITTEN, LastWrites, own_marker, same_json, stored
from sync_worker.domain.subjects import Kind, Subject
from sync_worker.domain.work import CauseKind
from sync_worker.errors import NoSuchSubject, NotListedYet, SyncWorkerError, UnreadableAnswer
from sync_worker.sanity.rows import read_row
from sync_worker.storage.ledger import State
from sync_worker.sync.address_resolution import owners, rows_for_owner
from sync_worker.sync.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from datetime import datetime

    from sync_worker.clerk.target import AddressOwners
    from sync_worker.domain.entitlements import Layout, Observed
    from sync_worker.domain.freshness import DocumentRevision
    from sync_worker.domain.timings import Timings
    from sync_worker.domain.work import Cause
    from sync_worker.sanity.source import Snapshot
    from sync_worker.storage.ledger import Entry
    from sync_worker.sync.outcome import Due

    Rows = Sequence[Entitlement | Refusal]


@dataclass(frozen=True, slots=True)
class Reading:
    """What Sanity publishes for a batch, and who has the addresses that those rows name."""

    snapshot: Snapshot
    holders: AddressOwners

    @property
    def revisions(self) -> Mapping[str, DocumentRevision]:
        """The revisions that the snapshot shows, by document."""
        return self.snapshot.revisions


@dataclass(frozen=True, slots=True)
class Facts:
    """What a plan is made from: Sanity, Clerk, and the ledger's last applied and unknown writes of each subject."""

    reading: Reading
    observed: Mapping[Subject, Observed]
    latest_writes: Sequence[Entry]
    now: datetime


@dataclass(frozen=True, slots=True)
class Plan:
    """An outcome for each subject, nothing written yet, and how writes of earlier runs turned out to have ended.

    `documents` are the rows that are for each subject, by its key, whether they count now or not.
    """

    outcomes: list[Outcome]
    ended_writes: Mapping[State, list[int]]
    documents: Mapping[str, Collection[str]]


def make_plan(batch: Sequence[Due], facts: Facts, layout: Layout, timings: Timings) -> Plan:
    """Compare what Clerk holds of each subject with the access that the rows give it."""
    rows = by_owner(facts.reading, layout)
    unreadable = _doubtful(facts)
    observed = {
        subject: replace(one, unreadable=one.unreadable or unreadable.get(subject, ""))
        for subject, one in facts.observed.items()
    }
    facts = replace(facts, observed=observed)
    ended_writes, in_flight = _earlier_writes(facts, layout, timings)
    written = last_writes(facts.latest_writes)
    outcomes = [
        replace(_outcome(due, rows[due.subject], facts, layout, written), lapsed=_lapsed(rows[due.subject], facts.now))
        for due in batch
    ]
    outcomes = [_until_listed(o, facts, timings) if o.due.subject not in facts.observed else o for o in outcomes]
    recheck_at = second_look(facts.now, timings)
    return Plan(
        [replace(o, recheck_at=recheck_at) if o.due.subject in in_flight else o for o in outcomes],
        ended_writes,
        {str(due.subject): {document_of(row) for row in rows[due.subject]} for due in batch},
    )


def by_owner(reading: Reading, layout: Layout) -> Mapping[Subject, Rows]:
    """Return the rows of one snapshot by the subjects that they are for, whether they count now or not."""
    rows: dict[Subject, list[Entitlement | Refusal]] = defaultdict(list)
    for raw in reading.snapshot.rows:
        subject, read = read_row(raw, layout.fields)
        for owner, row in rows_for_owner(subject, read, reading.holders) if subject is not None else ():
            rows[owner].append(row)
    return rows


def _doubtful(facts: Facts) -> dict[Subject, str]:
    """Return of whom it is not known whether a row counts, with the reason: who has its address cannot be read."""
    holders = facts.reading.holders
    subjects = {read_row(raw, ())[0] for raw in facts.reading.snapshot.rows} if holders.unreadable else set()
    named = [subject for subject in subjects if subject is not None and subject.address in holders.unreadable]
    return {
        subject: holders.unreadable[name.address]
        for subject, observed in facts.observed.items()
        for name in named
        if name.address in observed.addresses
        or subject in owners(name, holders)
        or (subject.kind is Kind.MEMBERSHIP and subject.organization_id == name.organization_id)
    }


def _lapsed(rows: Rows, now: datetime) -> dict[str, float]:
    ended = ((row.id, row.ends_at) for row in rows if isinstance(row, Entitlement))
    return {document: at.timestamp() for document, at in ended if at is not None and at <= now}


def document_of(row: Entitlement | Refusal) -> str:
    """Return the id of the document that a row is read from."""
    return row.id if isinstance(row, Entitlement) else row.document


def _until_listed(outcome: Outcome, facts: Facts, timings: Timings) -> Outcome:
    due = outcome.due
    too_new = is_too_new(due.cause, due.since, facts.now.timestamp(), timings)
    return replace(outcome, error=NotListedYet(str(due.subject))) if too_new else outcome


def is_too_new(cause: Cause, since: float | None, now: float, timings: Timings) -> bool:
    """Return whether Clerk has just reported a subject that its lists may not show yet. Times are epoch seconds."""
    reported = cause.kind is CauseKind.CLERK and cause.id.endswith((".created", ".updated"))
    return reported and since is not None and now - since < timings.clerk_list_lag


def second_look(now: datetime, timings: Timings) -> datetime:
    """Return when to look again at a write that was sent by `now` and may land late."""
    return now + timedelta(seconds=timings.write_settles_after)


def _earlier_writes(
    facts: Facts, layout: Layout, timings: Timings
) -> tuple[dict[State, list[int]], frozenset[Subject]]:
    """Say of writes that a killed or failed run left open whether they were applied: Clerk shows it now.

    Each may have been sent, perhaps more than once, and land later than what is written now. It stays open until it
    cannot any more, whatever Clerk shows meanwhile. Also returns the subjects of such writes.
    """
    ended: dict[State, list[int]] = defaultdict(list)
    in_flight = set()
    for entry in facts.latest_writes:
        subject = Subject.parse(entry.subject)
        if entry.state is State.APPLIED:
            continue
        if entry.settled_at is None or facts.now.timestamp() - entry.settled_at <= timings.max_write_delay:
            in_flight.add(subject)
            if entry.state is State.INTENDED:
                ended[State.UNKNOWN].append(entry.id)
        else:
            observed = facts.observed.get(subject)
            applied = observed is not None and _shows(observed, entry, layout)
            ended[State.APPLIED if applied else State.ABANDONED].append(entry.id)
    return ended, frozenset(in_flight)


def _shows(observed: Observed, entry: Entry, layout: Layout) -> bool:
    """Return whether Clerk holds what an entry says was written, where it was written.

    Values that the app had already prove nothing. Without any other, our marker does.
    """
    slots = {slot.name: slot for slot in (*layout.slots, *map(Slot.parse, entry.keys))}
    names = {name for name in {*entry.before, *entry.after} & slots.keys() if not _was_the_apps(entry, name)}
    if not names:
        return own_marker(observed, layout) is not None
    return all(same_json(stored(observed, slots[name]), entry.after.get(name)) for name in names)


def _was_the_apps(entry: Entry, name: str) -> bool:
    """Return whether the app had the value already that was to be written."""
    return name in entry.taken_over and same_json(entry.taken_over[name], entry.after.get(name))


def last_writes(entries: Iterable[Entry]) -> dict[str, LastWrites]:
    """Return what we wrote last by subject. What is unknown to have been applied may be what Clerk holds."""
    values: dict[str, dict[Slot, list[object]]] = defaultdict(lambda: defaultdict(list))
    documents: dict[str, tuple[str, ...]] = {}
    for entry in entries:
        for slot in map(Slot.parse, entry.keys):
            if entry.state is not State.APPLIED and _was_the_apps(entry, slot.name):
                continue  # that Clerk holds it does not show that we wrote it
            values[entry.subject][slot].append(entry.after.get(slot.name))
        documents[entry.subject] = tuple(entry.documents)
    return {subject: LastWrites(values[subject], documents[subject]) for subject in documents}


def _outcome(due: Due, rows: Rows, facts: Facts, layout: Layout, written: Mapping[str, LastWrites]) -> Outcome:
    entitlements = [row for row in rows if isinstance(row, Entitlement)]
    access = merge(entitlements, layout.fields, facts.now, [row for row in rows if isinstance(row, Refusal)])
    observed = facts.observed.get(due.subject)
    if observed is None:
        # A subject that is not in Clerk has no access there; that is an error only while something entitles it.
        error = NoSuchSubject(str(due.subject)) if access.sources or access.next_transition else None
        outcome = Outcome(due, access, error=error)
    elif observed.unreadable:
        outcome = Outcome(due, access, error=UnreadableAnswer(observed.unreadable))
    else:
        try:
            change = diff(
                access,
                observed,
                layout,
                at=facts.now.isoformat(timespec="seconds"),
                cause=str(due.cause),
                written=written.get(str(due.subject), NOTHING_WRITTEN),
                adoption=due.adoption,
            )
        except SyncWorkerError as error:
            outcome = Outcome(due, access, error=error)
        else:
            outcome = Outcome(due, replace(access, refusals=change.refusals), change)
    return _with_sources(outcome, rows) if facts.reading.snapshot.addressed else outcome


def _with_sources(outcome: Outcome, rows: Rows) -> Outcome:
    """Add which documents went. One that is still for the subject, but ended, is nobody else's now."""
    before = set(outcome.change.former_documents) if outcome.change is not None else set()
    after = set(outcome.change.sources) if outcome.change is not None else set()
    theirs = set(map(document_of, rows))
    return replace(outcome, removed_sources=tuple(sorted(before - after - theirs)))

"""One batch of subjects made right: observe Clerk and read Sanity at once, diff, apply.

Why it exists: the webhook path and the reconcile share these steps, so neither can be right alone. Nothing is written
from a read that does not show what the events told of, and nothing is taken away on the word of a read that shows no
entitlement at all. Which subjects are due is the work set's affair; what becomes of an error is `attempt`'s.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from sync_worker.domain import diff as changes
from sync_worker.domain import merge as policy
from sync_worker.domain.clock import utc
from sync_worker.domain.freshness import is_ambiguous, matches_store, reflects
from sync_worker.domain.model import Access, ChangeKind, Entitlement, Kind, Refusal, Subject
from sync_worker.errors import (
    DatabaseUnavailable,
    LeaseLost,
    NoSuchSubject,
    NothingVisible,
    RetryableError,
    StaleRead,
    SyncWorkerError,
)
from sync_worker.sanity.rows import read_row
from sync_worker.storage.ledger import Entry, State
from sync_worker.storage.queue import FANOUT, WorkItem
from sync_worker.sync.address_resolution import rows_for_owner
from sync_worker.sync.outcome import Due, Outcome
from sync_worker.transport import guarded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
    from datetime import datetime

    from sync_worker.clerk.client import AddressOwners, Target
    from sync_worker.domain.clock import Clock
    from sync_worker.domain.model import Change, Layout, Observed
    from sync_worker.domain.timings import Timings
    from sync_worker.sanity.client import Snapshot, Source
    from sync_worker.storage.ledger import Ledger
    from sync_worker.storage.queue import WorkQueue

WRITES_AT_ONCE = 24
REPAIR_LANE = 2

log = structlog.get_logger("converge")


@dataclass(frozen=True, slots=True)
class Reading:
    """What Sanity publishes for a batch, and who has the addresses that those rows name."""

    snapshot: Snapshot
    holders: AddressOwners


@dataclass(frozen=True, slots=True)
class Reconciler:
    """Holds the parts; `run` does the work.

    `review` sees what is about to be written and may hold some of it. `on_applied` is called with each change that
    Clerk has accepted.
    """

    source: Source
    target: Target
    ledger: Ledger
    queue: WorkQueue
    layout: Layout
    clock: Clock
    timings: Timings
    review: Callable[[list[Outcome]], Awaitable[list[Outcome]]] | None = None
    on_applied: Callable[[Outcome], None] = lambda _: None

    async def run(self, batch: Sequence[Due]) -> AsyncIterator[list[Outcome]]:
        """Make a batch of at most 100 subjects right, yielding outcomes as soon as they are known.

        Subjects whose read is stale are asked for again, while the others go on. An error of a read as a whole is
        raised, and then says nothing about any subject that was not yielded yet.
        """
        first = asyncio.create_task(self.read(batch, ()))
        try:
            observed = await self.target.observe([due.subject for due in batch])
            reading = await first
        finally:
            first.cancel()
        addresses: Collection[Subject] | None = None
        waiting = list(batch)
        for wait in (*self.timings.stale_read_waits, None):
            if reading.snapshot.addressed and addresses is None:  # even if the index has shown none until now
                addresses = await self.addresses(batch, observed)
                reading = await self.read(waiting, addresses) if addresses else reading
            revisions = reading.snapshot.revisions
            fresh = [due for due in waiting if all(reflects(revisions, w) for w in due.expected_revisions)]
            # Of two revisions in one moment the index does not tell which was the last, however long one waits.
            open_ = [
                due
                for due in waiting
                if due not in fresh and any(is_ambiguous(revisions, w) for w in due.expected_revisions)
            ]
            fresh += await self._as_stored(open_, reading) if open_ else []
            if fresh:
                yield await self._settle(fresh, reading, observed)
            waiting = [due for due in waiting if due not in fresh]
            hopeless = [due for due in waiting if not all(w.revision for w in due.expected_revisions)]
            if hopeless:
                yield _stale(hopeless)
            waiting = [due for due in waiting if due not in hopeless]
            if not waiting:
                return
            if wait is not None:
                await self.clock.sleep(wait)
                reading = await self.read(waiting, addresses or ())
        fresh = await self._as_stored(waiting, reading)
        if fresh:
            yield await self._settle(fresh, reading, observed)
        yield _stale([due for due in waiting if due not in fresh])

    async def addresses(self, batch: Sequence[Due], observed: Mapping[Subject, Observed]) -> set[Subject]:
        """Return the addresses by which entitlements can name the people of a batch, members included."""
        subjects = {due.subject for due in batch}
        members = {Subject(Kind.USER, s.user_id) for s in subjects if s.kind is Kind.MEMBERSHIP} - observed.keys()
        people = {**observed, **(await self.target.observe(members) if members else {})}
        return {address for held in people.values() for address in held.addresses}

    async def read(self, batch: Sequence[Due], addresses: Collection[Subject]) -> Reading:
        """Read all rows of a batch as one snapshot, then ask Clerk who has those of `addresses` that occur in them.

        The second question is what proves an address to be one person's at the moment of a grant. An organization's
        rows name all its members; those who are not of the batch are not asked for.
        """
        snapshot = await self.source.by_subject([*(due.subject for due in batch), *addresses], _documents(batch))
        named = (read_row(raw, ())[0] for raw in snapshot.rows) if addresses else ()
        asked = {subject.address for subject in named if subject is not None} & set(addresses)
        return Reading(snapshot, await self.target.find(asked) if asked else {})

    async def _as_stored(self, waiting: Sequence[Due], reading: Reading) -> list[Due]:
        """Return those for whom the index, which does not say so itself, shows what the document store has."""
        revisions = reading.snapshot.revisions
        stored = await self.source.stored(_documents(waiting))
        return [
            due
            for due in waiting
            if all(
                reflects(revisions, w) or matches_store(revisions, stored, w.document) for w in due.expected_revisions
            )
        ]

    async def _settle(
        self, batch: Sequence[Due], reading: Reading, observed: Mapping[Subject, Observed]
    ) -> list[Outcome]:
        now = utc(self.clock)
        rows = by_owner(reading, self.layout)
        access = {due.subject: _merged(rows[due.subject], self.layout, now) for due in batch}
        outcomes = [self._outcome(due, access[due.subject], observed.get(due.subject), now) for due in batch]
        if reading.snapshot.addressed:
            outcomes = [_with_moves(o, observed.get(o.due.subject), rows[o.due.subject]) for o in outcomes]
        outcomes = await self._prove_emptiness(outcomes, reading.snapshot, observed)
        in_flight = await self._resolve([due.subject for due in batch], observed, now)
        recheck_at = self._second_look(now)
        outcomes = [replace(o, recheck_at=recheck_at if o.due.subject in in_flight else None) for o in outcomes]
        reviewed = outcomes if self.review is None else await self.review(outcomes)
        # Before the write that takes these documents out of the marker: after it only a killed process would know.
        await self.queue.enqueue(requeue_reassigned_documents(reviewed))
        return await self._apply(reviewed)

    async def _resolve(
        self, subjects: Collection[Subject], observed: Mapping[Subject, Observed], now: datetime
    ) -> set[Subject]:
        """Say of changes that a killed or failed run left open whether they were applied: Clerk shows it now.

        Each may have been sent, perhaps more than once, and land later than what is written now: it stays open until
        it cannot any more, whatever Clerk shows and is marked meanwhile. Returns the subjects of such changes.
        """
        states: dict[State, list[int]] = defaultdict(list)
        in_flight = set()
        for entry in await self.ledger.unsettled(map(str, subjects)):
            subject = Subject.parse(entry.subject)
            if entry.settled_at is None or now.timestamp() - entry.settled_at <= self.timings.max_write_delay:
                in_flight.add(subject)
                if entry.state is State.INTENDED:
                    states[State.UNKNOWN].append(entry.id)
            else:
                held = observed.get(subject)
                applied = held is not None and changes.managed_values(held, self.layout) == entry.after
                states[State.APPLIED if applied else State.ABANDONED].append(entry.id)
        for state, entries in states.items():
            await self.ledger.settle(entries, state)
        return in_flight

    def _outcome(self, due: Due, access: Access, held: Observed | None, now: datetime) -> Outcome:
        if held is None:
            # Whoever is gone from Clerk has no access there; it is only trouble while something entitles them.
            error = NoSuchSubject(str(due.subject)) if access.sources or access.next_transition else None
            return Outcome(due, access, error=error)
        try:
            change = changes.diff(
                access,
                held,
                self.layout,
                at=now.isoformat(timespec="seconds"),
                cause=due.cause,
                witnessed=due.adopt or any(w.ends for w in due.expected_revisions),
            )
        except SyncWorkerError as error:
            return Outcome(due, access, error=error)
        return Outcome(due, access, change)

    async def _prove_emptiness(
        self, outcomes: list[Outcome], snapshot: Snapshot, observed: Mapping[Subject, Observed]
    ) -> list[Outcome]:
        """Where not one entitlement is visible, let only proven deletions take access away.

        A wrong token, dataset or type name looks the same as an empty dataset. The store tells them apart: the
        documents that gave the access must be proven missing, and an event must have told of it.
        """
        revoking = [o for o in outcomes if o.change is not None and o.change.kind is ChangeKind.REVOKE]
        if snapshot.visible or not revoking:
            return outcomes
        needed = {o.due.subject: _proof_needed(o.due, observed[o.due.subject]) for o in revoking}
        stored = await self.source.stored(set().union(*needed.values()))
        unproven = {
            outcome.due.subject
            for outcome in revoking
            if not _told_of_an_end(outcome.due, observed[outcome.due.subject])
            or not needed[outcome.due.subject] <= stored.missing
        }
        if len(unproven) < len(revoking):
            # The blindness may have ended before the proof: then the first read missed what others may publish.
            again = await self.source.by_subject([o.due.subject for o in revoking], ())
            unproven |= {o.due.subject for o in revoking} if again.visible else set()
        return [Outcome(o.due, error=NothingVisible()) if o.due.subject in unproven else o for o in outcomes]

    async def _apply(self, outcomes: list[Outcome]) -> list[Outcome]:
        """Write what differs: first the intent to the ledger, in one commit, then one PATCH per subject."""
        writes = [outcome for outcome in outcomes if outcome.writes]
        if not writes:
            return outcomes
        ids = await self.ledger.intend([_entry(o.change, o.due) for o in writes if o.change is not None])
        ours = [(row, o) for row, o in zip(ids, writes, strict=True) if row is not None]
        slots = asyncio.Semaphore(WRITES_AT_ONCE)
        done = await asyncio.gather(*(self._write(o, slots) for _, o in ours))
        done = await self._record([(row, o) for (row, _), o in zip(ours, done, strict=True)])
        lost = [_failed(o, LeaseLost(str(o.due.subject))) for row, o in zip(ids, writes, strict=True) if row is None]
        written = {outcome.due.subject: outcome for outcome in (*done, *lost)}
        return [written.get(outcome.due.subject, outcome) for outcome in outcomes]

    async def _record(self, done: Sequence[tuple[int, Outcome]]) -> list[Outcome]:
        """Tell the ledger how writes ended. Where it cannot be told they stay open there, and are looked at again.

        What Clerk answered, such as its wish to wait, must not be lost for that.
        """
        by_state: dict[State, list[tuple[int, Outcome]]] = defaultdict(list)
        for row, outcome in done:
            by_state[_state(outcome)].append((row, outcome))
        recorded: list[Outcome] = []
        for state, some in by_state.items():
            outcomes = [outcome for _, outcome in some]
            try:
                await self.ledger.settle([row for row, _ in some], state)
            except DatabaseUnavailable as error:
                log.warning("write_not_recorded", state=state, subjects=len(some), code=error.code, detail=error.detail)
                recheck_at = self._second_look(utc(self.clock))
                outcomes = [replace(outcome, recheck_at=recheck_at) for outcome in outcomes]
            recorded += outcomes
        return recorded

    async def _write(self, outcome: Outcome, slots: asyncio.Semaphore) -> Outcome:
        assert outcome.change is not None  # noqa: S101 - told apart by the caller
        async with slots:
            with guarded(outcome.due.check, outcome.due.asked) as write:
                try:
                    await self.target.apply(outcome.change)
                except SyncWorkerError as error:
                    outcome = _failed(outcome, error)
        now = utc(self.clock)
        if write.unanswered:
            outcome = replace(outcome, unanswered=True, recheck_at=self._second_look(now))
        if outcome.error is None:
            outcome = replace(outcome, written=now)
            self.on_applied(outcome)
        return outcome

    def _second_look(self, now: datetime) -> datetime:
        """Return when a write that was sent by now, and may land late, is looked at again."""
        return now + timedelta(seconds=self.timings.write_settles_after)


def by_owner(reading: Reading, layout: Layout) -> Mapping[Subject, list[Entitlement | Refusal]]:
    """Return the rows of one snapshot by the subjects that they are for, whether they count now or not."""
    rows: dict[Subject, list[Entitlement | Refusal]] = defaultdict(list)
    for raw in reading.snapshot.rows:
        subject, read = read_row(raw, layout.fields)
        for owner, row in rows_for_owner(subject, read, reading.holders) if subject is not None else ():
            rows[owner].append(row)
    return rows


def _merged(rows: Sequence[Entitlement | Refusal], layout: Layout, now: datetime) -> Access:
    entitlements = [row for row in rows if isinstance(row, Entitlement)]
    return policy.merge(entitlements, layout.fields, now, [row for row in rows if isinstance(row, Refusal)])


def _with_moves(outcome: Outcome, held: Observed | None, rows: Sequence[Entitlement | Refusal]) -> Outcome:
    """Tell which documents came and went. One that is still for the subject, but ended, is nobody else's now."""
    before = set(held.marker.sources) if held is not None and held.marker is not None else set()
    after = set(outcome.access.sources) if outcome.access is not None and held is not None else set()
    theirs = {row.id if isinstance(row, Entitlement) else row.document for row in rows}
    return replace(
        outcome,
        added_sources=tuple(sorted(after - before)),
        removed_sources=tuple(sorted(before - after - theirs)),
    )


def requeue_reassigned_documents(outcomes: Iterable[Outcome]) -> list[WorkItem]:
    """Return an item for each document that a write takes away from its subject: it is somebody else's, or pending."""
    return [
        requeue_document(document, outcome)
        for outcome in outcomes
        if outcome.error is None and outcome.writes  # one that writes nothing removes the same the next time
        for document in outcome.removed_sources
    ]


def requeue_document(document: str, outcome: Outcome) -> WorkItem:
    """Return the item that has a document's owners looked up again because of what became of one of them."""
    due = outcome.due
    return WorkItem(FANOUT + document, REPAIR_LANE, cause=due.cause, delivery=due.delivery, since=due.since)


def _stale(batch: Iterable[Due]) -> list[Outcome]:
    return [Outcome(due, error=StaleRead(", ".join(w.document for w in due.expected_revisions))) for due in batch]


def _documents(batch: Iterable[Due]) -> set[str]:
    return {expected.document for due in batch for expected in due.expected_revisions}


def _told_of_an_end(due: Due, observed: Observed) -> bool:
    """Tell whether an event said that a document is no more, or named one that gives access, and so was there."""
    sources = observed.marker.sources if observed.marker else ()
    return any(w.ends or w.document in sources for w in due.expected_revisions)


def _proof_needed(due: Due, observed: Observed) -> set[str]:
    sources = observed.marker.sources if observed.marker else ()
    return {*sources, *(expected.document for expected in due.expected_revisions if expected.ends)}


def _entry(change: Change, due: Due) -> Entry:
    return Entry(
        run=change.cause,
        subject=str(change.subject),
        kind=change.kind,
        before=change.before,
        after=change.after,
        documents=change.sources,
        cause=change.cause,
        delivery=due.delivery,
        lease=due.lease,
    )


def _failed(outcome: Outcome, error: SyncWorkerError) -> Outcome:
    return replace(outcome, error=error, added_sources=(), removed_sources=())


def _state(outcome: Outcome) -> State:
    """Name what the ledger is to say: a call that failed on the way may have been applied, or be so later."""
    if outcome.unanswered or isinstance(outcome.error, RetryableError):
        return State.UNKNOWN
    return State.APPLIED if outcome.error is None else State.REFUSED

"""The path of a batch of subjects from its claims to Clerk, used by the worker and the full reconcile alike.

Read both services until the read reflects what the events said, plan, let the guard review, record the intent in the
ledger, write, record the result. Nothing is written from a stale read, and nothing is taken away because of a read that
shows no entitlement at all.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from sync_worker.clerk.target import AddressOwners
from sync_worker.domain.clock import utc
from sync_worker.domain.subjects import Kind, Subject
from sync_worker.errors import (
    DatabaseUnavailable,
    LeaseLost,
    LossHeld,
    RetryableError,
    StaleRead,
    SyncWorkerError,
)
from sync_worker.sanity.rows import read_row
from sync_worker.storage.ledger import Entry, State
from sync_worker.storage.work_items import FANOUT, WorkItem
from sync_worker.sync.address_resolution import PENDING, REFUSED
from sync_worker.sync.empty_reads import prove_emptiness
from sync_worker.sync.fresh_reads import read_until_fresh
from sync_worker.sync.outcome import Due, Outcome
from sync_worker.sync.plan import Facts, Reading, make_plan, second_look
from sync_worker.transport import guarded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence

    from sync_worker.clerk.target import Target
    from sync_worker.domain.clock import Clock
    from sync_worker.domain.entitlements import Change, Layout, Observed
    from sync_worker.domain.timings import Timings
    from sync_worker.sanity.source import Source
    from sync_worker.storage.access_index import AccessIndex
    from sync_worker.storage.installation import InstallationRecord
    from sync_worker.storage.ledger import Ledger
    from sync_worker.storage.queue import WorkQueue
    from sync_worker.sync.guard import Guard
    from sync_worker.sync.plan import Plan

WRITES_AT_ONCE = 24
REPAIR_LANE = 2

log = structlog.get_logger("reconciler")


@dataclass(frozen=True, slots=True)
class Reconciler:
    """Reconciles batches of subjects.

    `on_applied` is called with each change that Clerk has accepted.
    """

    source: Source
    target: Target
    ledger: Ledger
    queue: WorkQueue
    access: AccessIndex
    installation: InstallationRecord
    guard: Guard
    layout: Layout
    clock: Clock
    timings: Timings
    on_applied: Callable[[Outcome], None] = lambda _: None

    async def run(self, batch: Sequence[Due]) -> AsyncIterator[list[Outcome]]:
        """Reconcile at most 100 subjects, yielding outcomes as soon as they are known.

        Subjects whose read is stale are read again while the others go on. An error of a read as a whole is raised,
        and says nothing about any subject that was not yielded yet.
        """
        dues = {due.subject: due for due in batch}
        known = await self.access.documents_of([str(due.subject) for due in batch])
        observed, first = await self._observe_and_read(batch, known)
        addresses: Collection[Subject] | None = None

        async def read(subjects: Collection[Subject]) -> Reading:
            nonlocal first, observed, addresses
            documents = _documents((dues[subject] for subject in subjects), known)
            reading = first or await self.read(subjects, documents, addresses or ())
            first = None
            if reading.snapshot.addressed and addresses is None:  # even if the index has shown none until now
                observed, addresses = await self.with_addresses(subjects, observed)
                reading = await self.read(subjects, documents, addresses) if addresses else reading
            return reading

        expected = {due.subject: due.expected_revisions for due in batch}
        reads = read_until_fresh(read, expected, source=self.source, clock=self.clock, timings=self.timings)
        async for reading, fresh, stale in reads:
            if fresh:
                yield await self._reconcile([dues[subject] for subject in fresh], reading, observed, known)
            if stale:
                yield [Outcome(dues[s], error=StaleRead(", ".join(documents))) for s, documents in stale.items()]

    async def _observe_and_read(
        self, batch: Sequence[Due], known: Mapping[str, Sequence[str]]
    ) -> tuple[Mapping[Subject, Observed], Reading | None]:
        subjects = [due.subject for due in batch]
        reading = asyncio.create_task(self.read(subjects, _documents(batch, known), ()))
        try:
            return await self.target.observe(subjects), await reading
        finally:
            reading.cancel()

    async def with_addresses(
        self, subjects: Collection[Subject], observed: Mapping[Subject, Observed]
    ) -> tuple[Mapping[Subject, Observed], set[Subject]]:
        """Return what is observed, and the addresses by which entitlements can name its people, members included.

        A membership whose user is unreadable is unreadable itself: which rows name it is not known.
        """
        users = {s: Subject(Kind.USER, s.user_id) for s in subjects if s.kind is Kind.MEMBERSHIP}
        others = set(users.values()) - observed.keys()
        people = {**observed, **(await self.target.observe(others) if others else {})}
        unreadable = {
            membership: replace(observed[membership], unreadable=people[user].unreadable)
            for membership, user in users.items()
            if membership in observed and user in people and people[user].unreadable
        }
        return {**observed, **unreadable}, {address for stored in people.values() for address in stored.addresses}

    async def read(
        self, subjects: Collection[Subject], documents: Collection[str], addresses: Collection[Subject]
    ) -> Reading:
        """Read all rows of a batch as one snapshot, then ask Clerk who has those of `addresses` that occur in them.

        The second question proves an address to be one person's at the moment of a grant. An organization's rows name
        all its members; those outside the batch are not requested.
        """
        snapshot = await self.source.by_subject([*subjects, *addresses], documents)
        named = (read_row(raw, ())[0] for raw in snapshot.rows) if addresses else ()
        wanted = {subject.address for subject in named if subject is not None} & set(addresses)
        return Reading(snapshot, await self.target.find(wanted) if wanted else AddressOwners())

    async def _reconcile(
        self,
        batch: Sequence[Due],
        reading: Reading,
        observed: Mapping[Subject, Observed],
        known: Mapping[str, Sequence[str]],
    ) -> list[Outcome]:
        """Plan, review, write and record what a fresh read shows."""
        now = utc(self.clock)
        latest_writes = await self.ledger.latest(str(due.subject) for due in batch)
        plan = make_plan(batch, Facts(reading, observed, latest_writes, now), self.layout, self.timings)
        for state, entries in plan.ended_writes.items():
            await self.ledger.settle(entries, state)
        outcomes = await prove_emptiness(self.source, plan.outcomes, reading.snapshot)
        outcomes = await self.guard.review(outcomes)
        # Before the write that takes these documents out of the marker: after it only a killed process would know.
        await self.queue.enqueue(requeue_reassigned_documents(outcomes))
        if reading.snapshot.visible:  # an empty read proves nothing about whom a document is for
            await self.queue.enqueue(await self._others_concerned(batch, reading, plan.documents))
        outcomes = await self._apply(outcomes)
        if reading.snapshot.visible:
            new = (d for s, documents in plan.documents.items() for d in set(documents).difference(known.get(s, ())))
            # What was noted of a document while it was for nobody is over; from now on it is noted of the subject.
            await self.queue.clear_notes([FANOUT + document for document in new], PENDING, REFUSED)
            await self.access.replace(known, _documents_now(plan, outcomes))
        await self.guard.withdraw(outcomes)
        return [_failed(o, LossHeld(f"changeset {o.held}")) if o.held and o.error is None else o for o in outcomes]

    async def _others_concerned(
        self, batch: Sequence[Due], reading: Reading, documents: Mapping[str, Collection[str]]
    ) -> list[WorkItem]:
        """Return items for those whom a reported document was for before: its move to this subject may be news to them.

        They come without the revision, so that their runs do not lead back here.
        """
        former = await self.access.subjects_of({expected.document for due in batch for expected in due.reported})
        return [
            WorkItem(subject, due.lane, cause=due.cause, delivery=due.delivery, enqueued_at=due.since)
            for due in batch
            for document in sorted({expected.document for expected in due.reported})
            if document in documents[str(due.subject)] or document not in reading.revisions
            for subject in former.get(document, ())
            if subject not in documents
        ]

    async def _apply(self, outcomes: list[Outcome]) -> list[Outcome]:
        """Write what differs: first the intent to the ledger, in one commit, then one PATCH per subject."""
        writes = [outcome for outcome in outcomes if outcome.writes]
        if not writes:
            return outcomes
        await self.installation.ensure()
        ids = await self.ledger.intend([_entry(o.change, o.due) for o in writes if o.change is not None])
        owned = [(row, o) for row, o in zip(ids, writes, strict=True) if row is not None]
        slots = asyncio.Semaphore(WRITES_AT_ONCE)
        done = await asyncio.gather(*(self._write(o, slots) for _, o in owned))
        done = await self._record([(row, o) for (row, _), o in zip(owned, done, strict=True)])
        lost = [_failed(o, LeaseLost(str(o.due.subject))) for row, o in zip(ids, writes, strict=True) if row is None]
        written = {outcome.due.subject: outcome for outcome in (*done, *lost)}
        return [written.get(outcome.due.subject, outcome) for outcome in outcomes]

    async def _record(self, done: Sequence[tuple[int, Outcome]]) -> list[Outcome]:
        """Record in the ledger how writes ended. Where that fails they stay open there, and are looked at again.

        Clerk's answer, such as its Retry-After, must not be lost because of it.
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
                recheck_at = second_look(utc(self.clock), self.timings)
                outcomes = [replace(outcome, recheck_at=recheck_at) for outcome in outcomes]
            recorded += outcomes
        return recorded

    async def _write(self, outcome: Outcome, slots: asyncio.Semaphore) -> Outcome:
        assert outcome.change is not None  # noqa: S101 - the caller selects those
        async with slots:
            with guarded(outcome.due.lease) as write:
                try:
                    await self.target.apply(outcome.change)
                except SyncWorkerError as error:
                    outcome = _failed(outcome, error)
        now = utc(self.clock)
        if write.unanswered:
            outcome = replace(outcome, unanswered=True, recheck_at=second_look(now, self.timings))
        if outcome.error is None:
            outcome = replace(outcome, written=now)
            self.on_applied(outcome)
        return outcome


def requeue_reassigned_documents(outcomes: Iterable[Outcome]) -> list[WorkItem]:
    """Return an item for each document that a write removes from a subject: it is another's now, or pending."""
    return [
        requeue_document(document, outcome)
        for outcome in outcomes
        if outcome.error is None and outcome.writes  # one that writes nothing removes the same the next time
        for document in outcome.removed_sources
    ]


def requeue_document(document: str, outcome: Outcome) -> WorkItem:
    """Return the item that has a document's owners looked up again after this outcome of one of them."""
    due = outcome.due
    return WorkItem(FANOUT + document, REPAIR_LANE, cause=due.cause, delivery=due.delivery, enqueued_at=due.since)


def _documents_now(plan: Plan, outcomes: Sequence[Outcome]) -> dict[str, Collection[str]]:
    """Return by subject the documents that are for it, and those that gave what could not be taken away yet."""
    left = {o.due.subject for o in outcomes if o.held or o.error is not None}
    former = {
        str(o.due.subject): o.change.former_documents
        for o in plan.outcomes
        if o.due.subject in left and o.change is not None
    }
    return {key: {*documents, *former.get(key, ())} for key, documents in plan.documents.items()}


def _documents(batch: Iterable[Due], known: Mapping[str, Sequence[str]]) -> set[str]:
    """Return the documents with an expected revision, and those that were for these subjects when they ran last."""
    dues = list(batch)
    reported = {expected.document for due in dues for expected in due.expected_revisions}
    return reported.union(*(known.get(str(due.subject), ()) for due in dues))


def _entry(change: Change, due: Due) -> Entry:
    return Entry(
        run=change.cause,
        subject=str(change.subject),
        kind=change.kind,
        before=change.before,
        after=change.after,
        documents=change.sources,
        cause=change.cause,
        by=due.cause.by,
        delivery=due.delivery,
        keys=[str(slot) for slot in change.keys],
        taken_over=change.taken_over,
        lease=due.lease.token,
    )


def _failed(outcome: Outcome, error: SyncWorkerError) -> Outcome:
    return replace(outcome, error=error, removed_sources=())


def _state(outcome: Outcome) -> State:
    """Return the state for the ledger: a call that failed on the way may have been applied, or be applied later."""
    if outcome.unanswered or isinstance(outcome.error, RetryableError):
        return State.UNKNOWN
    return State.APPLIED if outcome.error is None else State.REFUSED

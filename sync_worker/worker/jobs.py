"""One run of claimed rows: made right, looked up or fanned out, and the work set told what became of each.

Why it exists: it owns failure. It decides what a failed read or write costs its subjects, how long they wait, when they
are given up, and when everything has to stop because a key is wrong. Making subjects right is `converge`; when to
claim, and how many at once, is `worker`.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from random import Random
from typing import TYPE_CHECKING

import structlog

from sync_worker.domain.lease import Lease
from sync_worker.domain.subjects import Kind, Subject
from sync_worker.domain.work import FAN_OUT, POLL
from sync_worker.errors import (
    ConfigurationError,
    CredentialsRefused,
    LeaseLost,
    RefusedError,
    RetryableError,
    ServiceUnavailable,
    StaleRead,
    SyncWorkerError,
)
from sync_worker.storage.counters import MISSED_WEBHOOKS
from sync_worker.storage.queue import (
    ADDRESSES,
    FANOUT,
    MEMBERS,
    Claim,
    Completed,
    Released,
    WorkItem,
)
from sync_worker.sync.address_resolution import (
    AMBIGUOUS_ADDRESS,
    AMBIGUOUS_REASON,
    PENDING,
    REFUSED,
    owners,
    resolve_documents,
)
from sync_worker.sync.outcome import Due
from sync_worker.sync.reconciler import REPAIR_LANE, requeue_document
from sync_worker.worker.event_log import is_missed_webhook, log_outcome, log_resolution, why
from sync_worker.worker.fanout import fan_out
from sync_worker.worker.retry import decide

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

    from sync_worker.domain.clock import Clock
    from sync_worker.domain.timings import Timings
    from sync_worker.storage.queue import Completion, WorkQueue
    from sync_worker.sync.address_resolution import Resolution
    from sync_worker.sync.outcome import Outcome
    from sync_worker.sync.reconciler import Reconciler

BATCH = 100
"""Subjects in one run: what one list call of Clerk takes."""
HAD = 1000
"""Changes by one document that are looked through, the newest first, for who had access by an address."""

log = structlog.get_logger("worker")


def lease_of(claim: Claim, clock: Clock, timings: Timings) -> Lease:
    """Return the lease of a claim that was just made. It ends a margin before the claim does."""
    return Lease.begin(claim.key, claim.token, clock, timings.lease - timings.lease_margin)


def due_of(claim: Claim, lease: Lease, *, adopt: bool = False) -> Due:
    """Return what a claim asks of a run. Raises InvalidSubject when its key is not a subject's."""
    return Due(
        subject=Subject.parse(claim.key),
        lease=lease,
        expected_revisions=claim.expected_revisions,
        cause=claim.cause,
        since=claim.since,
        adopt=adopt,
        delivery=claim.delivery,
        transition=claim.transition,
    )


def done(claim: Claim, outcome: Outcome) -> Completed:
    """Settle a subject that was made right; rows of it that were refused stay visible as a note."""
    refusals = outcome.access.refusals if outcome.access else ()
    transition = outcome.access.next_transition if outcome.access else None
    return Completed(
        claim,
        next_due=outcome.next_due,
        wrote=outcome.writes,
        code=(AMBIGUOUS_ADDRESS if _ambiguous(outcome) else REFUSED) if refusals else "",
        detail="; ".join(str(refusal) for refusal in refusals),
        transition=transition.timestamp() if transition else None,
    )


@dataclass(frozen=True, slots=True)
class Run:
    """Claims under way, each `pending` until it is completed, and their leases."""

    pending: dict[str, Claim]
    leases: Mapping[str, Lease]
    deadline: asyncio.Timeout


@dataclass(slots=True)
class Jobs:
    """Runs claims. Until `paused_until` (of the monotonic clock) nothing should be claimed: a key was refused."""

    queue: WorkQueue
    converge: Reconciler
    clock: Clock
    timings: Timings
    random: Random = field(default_factory=Random)
    paused_until: float = 0.0

    async def reconcile_subjects(self, claims: Sequence[Claim]) -> None:
        """Make claimed subjects right."""
        async with self._run(claims) as run:
            batch = [due_of(claim, run.leases[claim.key]) for claim in claims]
            async for outcomes in self.converge.run(batch):
                ended = [(run.pending.pop(str(outcome.due.subject)), outcome) for outcome in outcomes]
                await self._follow_up(ended)
                self._pause_if_refused(outcome.error for outcome in outcomes)
                await self.queue.complete([self._completion(claim, outcome) for claim, outcome in ended])
                await self._report(outcomes)

    async def resolve(self, claims: Sequence[Claim]) -> None:
        """Look up whom claimed entitlements and addresses are for, and people's memberships, and mark those."""
        async with self._run(claims) as run:
            documents = {key.removeprefix(FANOUT): c for key, c in run.pending.items() if key.startswith(FANOUT)}
            addresses = {Subject.parse(c.key): c for c in claims if c.key.startswith(ADDRESSES)}
            people = [claim for claim in claims if claim.key.startswith(MEMBERS)]
            holders = await self.converge.target.find(addresses) if addresses else {}
            named, stale = (
                await resolve_documents(
                    self.converge.source,
                    self.converge.target.find,
                    {document: claim.expected_revisions for document, claim in documents.items()},
                    clock=self.clock,
                    timings=self.timings,
                )
                if documents
                else ({}, frozenset())
            )
            found = [(documents[document], one.subjects) for document, one in named.items()]
            found += [(claim, owners(address, holders)) for address, claim in addresses.items()]
            found += [(claim, await self.former_members(address, claim)) for address, claim in addresses.items()]
            items = [mark for claim, subjects in found for mark in _items(claim, subjects)]
            await self.queue.enqueue([*items, *await self.expand_changed_addresses(people)])
            settled: list[Completion] = [self._noted(documents[document], [one]) for document, one in named.items()]
            settled += [Completed(claim) for claim in (*addresses.values(), *people)]
            settled += [
                self._failure(documents[document], StaleRead(document), run.leases[FANOUT + document])
                for document in stale
            ]
            await self.queue.complete(settled)
            run.pending.clear()
            for document, one in named.items():
                log_resolution(one, documents[document])

    async def former_members(self, address: Subject, claim: Claim) -> tuple[Subject, ...]:
        """Return the members whom a document gave access by an address that may be nobody's, or another's, by now.

        No event about a person names their memberships, and no entitlement may name anybody by address any more.
        """
        if not address.organization_id:
            return ()
        documents = {expected.document for expected in claim.expected_revisions}
        entries = [e for one in documents for e in await self.converge.ledger.of_document(one, (), HAD)]
        subjects = {Subject.parse(entry.subject) for entry in entries}
        members = {s for s in subjects if s.kind is Kind.MEMBERSHIP and s.organization_id == address.organization_id}
        return tuple(sorted(members, key=str))

    async def expand_changed_addresses(self, people: Sequence[Claim]) -> list[WorkItem]:
        """Return what a changed address of these people may change.

        They and their memberships may have been entitled by the address before; the entitlements that name the one they
        have now may have been somebody else's. Where nobody is named by address, nothing more is asked; a read that
        shows no entitlement at all does not say so.
        """
        source, target = self.converge.source, self.converge.target
        snapshot = await source.by_subject((), ()) if people else None
        if snapshot is None or (snapshot.visible and not snapshot.addressed):
            return []
        users = {Subject(Kind.USER, claim.key.removeprefix(MEMBERS)): claim for claim in people}
        items = [mark for user, claim in users.items() for mark in _items(claim, [user])]
        members = users.items() if snapshot.addressed_members or not snapshot.visible else ()
        items += [mark for user, claim in members for mark in _items(claim, await target.memberships(user.id))]
        observed = await target.observe(users)
        addresses = {address for held in observed.values() for address in held.addresses}
        rows = (await source.by_subject(addresses, ())).rows if addresses else ()
        return [*items, *(WorkItem(FANOUT + str(row["_id"]), REPAIR_LANE, cause=people[0].cause) for row in rows)]

    async def fan_out(self, claim: Claim) -> None:
        """Mark everybody whose access leads to a claimed document."""
        document = claim.key.removeprefix(FANOUT)
        async with self._run([claim]) as run:

            async def mark(items: Sequence[WorkItem]) -> None:
                """Mark one page. However many there are, each has its own deadline and prolongs the lease."""
                await self.queue.enqueue([replace(one, delivery=claim.delivery, since=claim.since) for one in items])
                if not await self.queue.renew([claim], self.timings.lease):
                    raise LeaseLost(claim.key)
                run.deadline.reschedule(asyncio.get_running_loop().time() + self.timings.run_deadline)

            cause = claim.cause if claim.cause.startswith(POLL) else FAN_OUT + document
            found = await fan_out(
                self.converge.source,
                self.converge.target.find,
                document,
                claim.expected_revisions,
                mark,
                clock=self.clock,
                timings=self.timings,
                cause=cause,
            )
            await self.queue.complete([self._noted(claim, found)])
            log.info("document_fanned_out", document=document, **why(claim))
            for one in found:
                log_resolution(one, claim)

    @asynccontextmanager
    async def _run(self, claims: Sequence[Claim]) -> AsyncIterator[Run]:
        """Complete what a run leaves pending, however it ends. Raises nothing but a cancellation."""
        leases = {claim.key: lease_of(claim, self.clock, self.timings) for claim in claims}
        run = Run({claim.key: claim for claim in claims}, leases, asyncio.timeout(self.timings.run_deadline))
        try:
            async with run.deadline:
                yield run
        except TimeoutError:
            await self._fail(run, RetryableError(f"it took longer than {self.timings.run_deadline:.0f} s"))
        except SyncWorkerError as error:
            await self._fail(run, error)
        except asyncio.CancelledError:
            await self.queue.complete([Released(claim) for claim in run.pending.values()])
            raise
        except Exception:  # a bug must cost an attempt, or its subject would run for ever
            log.exception("run_crashed", keys=[key for key in run.pending if not key.startswith(ADDRESSES)])
            await self._fail(run, RetryableError("a bug in sync-worker; the log has the trace"))

    async def _fail(self, run: Run, error: SyncWorkerError) -> None:
        """Complete what a failed run left pending."""
        if isinstance(error, RefusedError):
            error = ServiceUnavailable(str(error))  # refused as a whole, it says nothing about any one subject
        if not self._pause_if_refused([error]):
            log.warning("run_failed", code=error.code, detail=error.detail, subjects=len(run.pending))
        await self.queue.complete([self._failure(claim, error, run.leases[key]) for key, claim in run.pending.items()])

    def _completion(self, claim: Claim, outcome: Outcome) -> Completion:
        if outcome.error is None:
            return done(claim, outcome)
        lease = outcome.due.lease
        return self._failure(claim, outcome.error, lease, next_due=outcome.next_due, wrote=outcome.writes)

    def _failure(
        self,
        claim: Claim,
        error: SyncWorkerError,
        lease: Lease,
        *,
        next_due: float | None = None,
        wrote: bool = False,
    ) -> Completion:
        return decide(
            claim,
            error,
            now=self.clock.now(),
            jitter=self.random.random(),
            timings=self.timings,
            retry_after=lease.retry_after,
            next_due=next_due,
            wrote=wrote,
        )

    def _pause_if_refused(self, errors: Iterable[SyncWorkerError | None]) -> bool:
        """Stop claiming for a while, loudly, where a key or the configuration was refused; return whether one was."""
        error = next((e for e in errors if isinstance(e, CredentialsRefused | ConfigurationError)), None)
        if error is None:
            return False
        self.paused_until = self.clock.monotonic() + self.timings.credentials_probe
        log.critical("worker_paused", code=error.code, detail=error.detail, next_step=error.next_step())
        return True

    def _noted(self, claim: Claim, told: Sequence[Resolution]) -> Completed:
        """Settle a document. While several people have its address, it is looked at again without any event."""
        shared = any(one.code == AMBIGUOUS_ADDRESS for one in told)
        return Completed(
            claim,
            next_due=self.clock.now() + self.timings.shared_address_recheck if shared else None,
            code=told[0].code if told else "",
            detail="; ".join(one.reason for one in told if one.reason),
            lane=REPAIR_LANE,  # where documents are looked up together; in the other they are walked one by one
        )

    async def _follow_up(self, ended: Sequence[tuple[Claim, Outcome]]) -> None:
        """Look again at documents whose address turned out to be shared: the others who have it do not know yet.

        It comes before the settling: that a subject is known to share an address is all that a later run would see. A
        run that failed would find the same the next time.
        """
        right = [(claim, outcome) for claim, outcome in ended if outcome.error is None]
        news = [(document, o) for claim, o in right if claim.code != AMBIGUOUS_ADDRESS for document in _ambiguous(o)]
        await self.queue.enqueue([requeue_document(document, outcome) for document, outcome in news])
        added_sources = {FANOUT + document for _, outcome in right for document in outcome.added_sources}
        if added_sources:
            await self.queue.clear_notes(added_sources, PENDING)

    async def _report(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            log_outcome(outcome, self.converge.layout)
        if silent := sum(map(is_missed_webhook, outcomes)):
            await self.queue.count({MISSED_WEBHOOKS: silent})


def _items(claim: Claim, subjects: Iterable[Subject]) -> Iterable[WorkItem]:
    """Mark each subject for all that the claim's events told, as urgently as the claim."""
    for subject in subjects:
        for told in claim.expected_revisions or (None,):
            # That a document is gone says nothing of what else somebody holds who merely has its address now.
            expected = None if told is None else replace(told, news=False)
            yield WorkItem(str(subject), claim.lane, None, expected, claim.cause, claim.delivery, claim.since)


def _ambiguous(outcome: Outcome) -> tuple[str, ...]:
    """Return the documents that do not count because several people have the address."""
    refusals = outcome.access.refusals if outcome.access is not None else ()
    return tuple(refusal.document for refusal in refusals if refusal.reason == AMBIGUOUS_REASON)

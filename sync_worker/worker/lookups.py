"""Finds out which subjects documents, addresses and changed users are about: one handler for each kind of key."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sync_worker.domain.revisions import indirect
from sync_worker.domain.subjects import Kind, Subject
from sync_worker.domain.work import CauseKind, WorkKind
from sync_worker.errors import NotListedYet, StaleRead, UnreadableAnswer
from sync_worker.storage.work_items import FANOUT, MEMBERS, Completed, WorkItem
from sync_worker.sync.address_resolution import AMBIGUOUS_ADDRESS, PENDING, owners, resolve_documents
from sync_worker.sync.plan import is_too_new
from sync_worker.sync.reconciler import REPAIR_LANE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sync_worker.clerk.target import Target
    from sync_worker.domain.clock import Clock
    from sync_worker.domain.timings import Timings
    from sync_worker.errors import SyncWorkerError
    from sync_worker.sanity.source import Source
    from sync_worker.storage.access_index import AccessIndex
    from sync_worker.storage.work_items import Claim
    from sync_worker.sync.address_resolution import Resolution


@dataclass(frozen=True, slots=True)
class Found:
    """What came of a lookup: the items to enqueue, and then how its claims end.

    `resolutions` says of documents whom they are for.
    """

    items: list[WorkItem] = field(default_factory=list)
    completed: list[Completed] = field(default_factory=list)
    failed: list[tuple[Claim, SyncWorkerError]] = field(default_factory=list)
    resolutions: list[tuple[Resolution, Claim]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Lookups:
    """Looks claims up, many with few calls, and records in the index whom documents are for.

    Errors: those of the source, the target and the index.
    """

    source: Source
    target: Target
    access: AccessIndex
    clock: Clock
    timings: Timings

    async def run(self, claims: Sequence[Claim]) -> list[Found]:
        """Look up claims, each by its kind."""
        handlers = {
            WorkKind.DOCUMENT: self.documents,
            WorkKind.ADDRESS: self.addresses,
            WorkKind.MEMBERS: self.members,
        }
        by_kind: dict[WorkKind, list[Claim]] = defaultdict(list)
        for claim in claims:
            by_kind[claim.kind].append(claim)
        return [await handlers[kind](some) for kind, some in by_kind.items()]

    async def documents(self, claims: Sequence[Claim]) -> Found:
        """Find the owners of entitlements, and whom they were for before; one that is gone has no owner."""
        by_document = {claim.key.removeprefix(FANOUT): claim for claim in claims}
        named, stale = await resolve_documents(
            self.source,
            self.target.find,
            {document: claim.expected_revisions for document, claim in by_document.items()},
            clock=self.clock,
            timings=self.timings,
        )
        found = Found(failed=[(by_document[document], StaleRead(document)) for document in stale])
        former = await self.access.subjects_of(named.keys())
        await self.access.add({(d, str(subject)) for d, one in named.items() for subject in one.subjects})
        for document, resolution in named.items():
            claim = by_document[document]
            subjects = {*resolution.subjects, *map(Subject.parse, former.get(document, ()))}
            found.items.extend(items_for(claim, sorted(subjects, key=str)))
            if resolution.unreadable:
                found.failed.append((claim, UnreadableAnswer(resolution.unreadable)))
                continue
            found.completed.append(completed_document(claim, [resolution], self.clock.now(), self.timings))
            found.resolutions.append((resolution, claim))
        return found

    async def addresses(self, claims: Sequence[Claim]) -> Found:
        """Find who has addresses that an entitlement named before, and which members had access by them."""
        by_address = {Subject.parse(claim.key): claim for claim in claims}
        holders = await self.target.find(by_address)
        found = Found(completed=[Completed(claim) for claim in claims])
        for address, claim in by_address.items():
            subjects = [*owners(address, holders), *await self._former_members(address, claim)]
            found.items.extend(items_for(claim, subjects))
        return found

    async def members(self, claims: Sequence[Claim]) -> Found:
        """Find what a new user or member, or a changed address, may change.

        Their old address may have entitled them and their memberships; the new one may have been another person's, or
        pasted with spaces, which no other query finds.
        Where no entitlement names anybody by address, no more is read. A read that shows no entitlement at all does
        not prove that.
        """
        found = Found(completed=[Completed(claim) for claim in claims])
        snapshot = await self.source.by_subject((), ())
        if snapshot.visible and not snapshot.addressed:
            return found
        users = {Subject(Kind.USER, claim.key.removeprefix(MEMBERS)): claim for claim in claims}
        for user, claim in users.items():
            found.items.extend(items_for(claim, [user]))
            if snapshot.addressed_members or not snapshot.visible:
                found.items.extend(items_for(claim, await self.target.memberships(user.id)))
        observed = await self.target.observe(users)
        now = self.clock.now()
        for user, claim in users.items():
            if user not in observed and is_too_new(claim.cause, claim.enqueued_at, now, self.timings):
                found.completed.remove(Completed(claim))
                found.failed.append((claim, NotListedYet(str(user))))
        addresses = {address for stored in observed.values() for address in stored.addresses}
        documents = await self.source.by_address(addresses) if addresses else frozenset()
        found.items.extend(WorkItem(FANOUT + one, REPAIR_LANE, cause=claims[0].cause) for one in sorted(documents))
        return found

    async def _former_members(self, address: Subject, claim: Claim) -> list[Subject]:
        """Return the members whom a document gave access by an address that may be nobody's, or another's, by now.

        No event about a person names their memberships, and by now no entitlement may name anybody by address.
        """
        if not address.organization_id:
            return []
        former = await self.access.subjects_of([expected.document for expected in claim.expected_revisions])
        subjects = {Subject.parse(key) for keys in former.values() for key in keys}
        members = {s for s in subjects if s.kind is Kind.MEMBERSHIP and s.organization_id == address.organization_id}
        return sorted(members, key=str)


def items_for(claim: Claim, subjects: Iterable[Subject]) -> Iterator[WorkItem]:
    """Yield items for subjects that a claim leads to, as urgent as it is, with the revisions that it expects."""
    for subject in subjects:
        reported = [known for known in claim.expected_revisions if not known.served]
        for known in reported or (None,):
            # That a document is gone proves nothing about what else the current owner of an address holds.
            expected = None if known is None else indirect(known)
            yield WorkItem(str(subject), claim.lane, None, expected, claim.cause, claim.delivery, claim.enqueued_at)


def completed_document(claim: Claim, resolutions: Sequence[Resolution], now: float, timings: Timings) -> Completed:
    """Complete a document. While several people have its address it is due again without any event.

    An address that nobody has is looked up once more: who signs up in this moment may not be listed yet, and what reads
    for them may come from a replica that does not show the document yet.
    """
    codes = {one.code for one in resolutions}
    next_due = None
    if AMBIGUOUS_ADDRESS in codes:
        next_due = now + timings.shared_address_recheck
    elif PENDING in codes and claim.cause.kind is not CauseKind.NONE:
        next_due = now + timings.clerk_list_lag
    return Completed(
        claim,
        next_due=next_due,
        error_code=resolutions[0].code if resolutions else "",
        error_detail="\n".join(one.reason for one in resolutions if one.reason),
        lane=REPAIR_LANE,  # where documents are looked up together; in lane 1 they are walked one by one
    )

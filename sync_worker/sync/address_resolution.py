"""Whom an entitlement is for: the subject whose id it names, or the one user who has the address that it names.

Editors rarely know a Clerk id. They write an e-mail address or their own id of a person, perhaps before that person has
signed up. A row by address counts for the one user who has the address now, and for nobody when several have it; while
nobody has it, it is pending.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sync_worker.clerk.target import AddressOwners
from sync_worker.domain.entitlements import Entitlement, Refusal
from sync_worker.domain.subjects import Kind, Subject
from sync_worker.errors import UnreadableAnswer
from sync_worker.sanity.rows import read_row
from sync_worker.sync.fresh_reads import read_until_fresh

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
    from typing import Any

    from sync_worker.domain.clock import Clock
    from sync_worker.domain.revisions import ExpectedRevision
    from sync_worker.domain.timings import Timings
    from sync_worker.sanity.source import Page, Source

    Find = Callable[[Collection[Subject]], Awaitable[AddressOwners]]

PENDING = "pending_sign_up"
PENDING_REASON = "nobody in Clerk has this address yet as primary and verified; access follows as soon as somebody has"
AMBIGUOUS_ADDRESS = "ambiguous_address"
AMBIGUOUS_REASON = "several people in Clerk have it, so it counts for none of them"
REFUSED = "row_refused"
UNRESOLVED = "references_unresolved"
FIELDS = {
    Kind.USER: "clerkUserId",
    Kind.ORGANIZATION: "clerkOrganizationId",
    Kind.MEMBERSHIP: "clerkOrganizationId",
    Kind.EMAIL: "userEmail",
    Kind.EXTERNAL: "userExternalId",
}
"""The field of a row that names a subject. A membership needs two, and the organization's makes it one."""


@dataclass(frozen=True, slots=True)
class Resolution:
    """Whom one document is for. `code` and `reason` say why it gives nobody access, or nobody yet.

    Where it is `unreadable`, for a reason, who has its address, the subjects are only some of those who may.
    """

    document: str
    subjects: tuple[Subject, ...] = ()
    code: str = ""
    reason: str = ""
    unreadable: str = ""


def owners(subject: Subject, holders: AddressOwners) -> tuple[Subject, ...]:
    """Return the users, or their memberships, that have an address: one, unless it is ambiguous or unknown."""
    return tuple(subject.for_user(user) for user in sorted(holders.users.get(subject.address, ())))


def known_owners(subject: Subject, holders: AddressOwners) -> tuple[Subject, ...]:
    """Return the owners of an address. Raises UnreadableAnswer when it is not known who they are."""
    if detail := holders.unreadable.get(subject.address):
        raise UnreadableAnswer(detail)
    return owners(subject, holders)


def rows_for_owner(
    subject: Subject, read: Entitlement | Refusal, holders: AddressOwners
) -> Iterable[tuple[Subject, Entitlement | Refusal]]:
    """Yield the subjects that a row counts for; where several have its address, each gets a refusal instead."""
    if not subject.is_address:
        yield subject, read
        return
    document = read.id if isinstance(read, Entitlement) else read.document
    owned_by = owners(subject, holders)
    for owner in owned_by:
        yield owner, read if len(owned_by) == 1 else Refusal(document, FIELDS[subject.kind], AMBIGUOUS_REASON)


async def resolve(rows: Iterable[Mapping[str, Any]], find: Find) -> list[Resolution]:
    """Return whom each row is for. Addresses are looked up together. Raises what `find` raises."""
    read = [(str(raw["_id"]), *read_row(raw, ())) for raw in rows]
    addresses = {subject for _, subject, _ in read if subject is not None and subject.is_address}
    holders = await find(addresses) if addresses else AddressOwners()
    return [_resolution(document, subject, row, holders) for document, subject, row in read]


def _resolution(
    document: str, subject: Subject | None, row: Entitlement | Refusal, holders: AddressOwners
) -> Resolution:
    if subject is None:
        return Resolution(document, (), REFUSED, str(row))
    if not subject.is_address:
        return Resolution(document, (subject,))
    owned_by = owners(subject, holders)
    if detail := holders.unreadable.get(subject.address):
        return Resolution(document, owned_by, unreadable=detail)
    match owned_by:
        case (_,):
            return Resolution(document, owned_by)
        case () if isinstance(row, Refusal):
            code, reason = REFUSED, str(row)
        case ():
            code, reason = PENDING, f"{document}: {FIELDS[subject.kind]}: {PENDING_REASON}"
        case _:
            code, reason = AMBIGUOUS_ADDRESS, f"{document}: {FIELDS[subject.kind]}: {AMBIGUOUS_REASON}"
    return Resolution(document, owned_by, code, reason)


async def resolve_documents(
    source: Source,
    find: Find,
    documents: Mapping[str, Sequence[ExpectedRevision]],
    *,
    clock: Clock,
    timings: Timings,
) -> tuple[dict[str, Resolution], frozenset[str]]:
    """Look up whom these entitlements are for, a hundred with two calls. Anything else is for nobody.

    `documents` come with the revisions that a read must reflect. Also returns those that it does not: nothing is known
    of them yet.
    """
    rows: list[Mapping[str, Any]] = []
    stale: frozenset[str] = frozenset()
    after, last = "", False
    while not last:
        expected = [revision for revisions in documents.values() for revision in revisions]
        page, behind = await fresh_page(source, documents.keys(), after, expected, clock=clock, timings=timings)
        rows += [row for row in page.rows if row["_id"] in documents]
        stale |= behind
        after, last = page.cursor, page.last
    named = {one.document: one for one in await resolve((r for r in rows if r["_id"] not in stale), find)}
    return {d: named.get(d, Resolution(d)) for d in documents if d not in stale}, stale


async def fresh_page(
    source: Source,
    documents: Collection[str],
    after: str,
    expected_revisions: Sequence[ExpectedRevision],
    *,
    clock: Clock,
    timings: Timings,
) -> tuple[Page, frozenset[str]]:
    """Read a page of what `documents` decide about, again while the index lags behind the expected revisions.

    Returns it with the documents that it still shows out of date.
    """
    ids = {expected.document for expected in expected_revisions}

    async def read(_: Collection[None]) -> Page:
        return await source.affected(documents, after, ids)

    # One key for the whole page, so it is yielded once, when all is fresh or nothing is worth waiting for.
    reads = read_until_fresh(read, {None: expected_revisions}, source=source, clock=clock, timings=timings)
    ((page, _, stale),) = [one async for one in reads]
    return page, frozenset(stale.get(None, ()))

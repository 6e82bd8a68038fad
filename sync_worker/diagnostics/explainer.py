"""Reads what an explanation needs from Sanity, Clerk and the database, the way a sync reads, and never writes.

A service that fails becomes part of the explanation: that is when people ask why access is missing.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from sync_worker.clerk.billing import UNKNOWN
from sync_worker.diagnostics.explain_document import DocumentFacts, DocumentKind, Reach, explain_document
from sync_worker.diagnostics.explain_subject import explain_subject
from sync_worker.diagnostics.explanation import PublishedRow, SubjectFacts
from sync_worker.diagnostics.token_proof import measured_at
from sync_worker.domain.entitlements import Refusal
from sync_worker.domain.ownership import NOTHING_WRITTEN
from sync_worker.domain.revisions import microseconds
from sync_worker.domain.subjects import Subject
from sync_worker.domain.work import REFERENCE_DEPTH, Cause, CauseKind
from sync_worker.errors import (
    ConfigurationError,
    CredentialsRefused,
    InvalidSubject,
    MutationInDryRun,
    SyncWorkerError,
    UnreadableAnswer,
)
from sync_worker.sanity.rows import read_row
from sync_worker.storage.approvals import changeset_id
from sync_worker.storage.work_items import FANOUT
from sync_worker.sync.address_resolution import AMBIGUOUS_REASON, FIELDS, known_owners, rows_for_owner
from sync_worker.sync.plan import last_writes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable, Mapping
    from typing import Any

    from sync_worker.clerk.billing import Billing, Subscription
    from sync_worker.diagnostics.explain_document import DocumentExplanation
    from sync_worker.diagnostics.explanation import Explanation
    from sync_worker.domain.entitlements import Entitlement
    from sync_worker.domain.timings import Timings
    from sync_worker.storage.approvals import Approvals
    from sync_worker.storage.ledger import Ledger
    from sync_worker.storage.queue import WorkQueue
    from sync_worker.sync.plan import Reading
    from sync_worker.sync.reconciler import Reconciler

A = TypeVar("A")
B = TypeVar("B")
ENTRIES = 50
"""Ledger entries read for one explanation."""
FORMER = 5
"""Former subjects of a document to explain."""
DOCUMENT_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_UNPUBLISHED = re.compile(r"^(drafts|versions\.[^.]+)\.")


def parse_target(text: str) -> Subject | str:
    """Return the subject that a text names, or else a document id. Raises InvalidSubject.

    A text that could be either is a subject, unless it starts with `document:`. A draft's id becomes the published id.
    """
    id_ = text.strip().removeprefix(FANOUT)
    if id_ == text.strip():
        try:
            return Subject.parse(text)
        except InvalidSubject:
            pass
    id_ = _UNPUBLISHED.sub("", id_)
    if not DOCUMENT_ID.fullmatch(id_):
        raise InvalidSubject(repr(text))
    return id_


@dataclass(frozen=True, slots=True)
class Explainer:
    """Explains subjects and documents. Sanity and Clerk must answer within `patience` seconds."""

    reconciler: Reconciler
    billing: Billing
    queue: WorkQueue
    ledger: Ledger
    approvals: Approvals
    timings: Timings
    patience: float

    async def subject(self, subject: Subject) -> Explanation:
        """Explain a subject, or the owner of an address, with its subscription. Raises DatabaseUnavailable."""
        explanation = await self._subject(subject)
        return replace(explanation, billing=await self._billing(explanation))

    async def _billing(self, explanation: Explanation) -> Subscription | None:
        """Return what Clerk Billing says of somebody whom Clerk knows. A failure is no reason to explain nothing."""
        if explanation.facts.observed is None:
            return None
        try:
            async with asyncio.timeout(self.patience):
                return await self.billing.subscription(explanation.subject)
        except (SyncWorkerError, TimeoutError):
            return UNKNOWN

    async def _subject(self, subject: Subject) -> Explanation:
        """Explain a subject, or the owner of an address."""
        facts = SubjectFacts(subject, await self.queue.now(), self.reconciler.layout)
        try:
            async with asyncio.timeout(self.patience):
                facts = await self._with_services(facts)
        except MutationInDryRun:
            raise
        except (SyncWorkerError, TimeoutError) as error:
            facts = replace(facts, problem=self._problem(error), advice=_advice(error))
        return explain_subject(await self._with_database(facts), self.timings)

    async def document(self, document: str) -> DocumentExplanation:
        """Explain a document. Raises DatabaseUnavailable."""
        facts = DocumentFacts(
            document,
            await self.queue.now(),
            history=tuple(await self.ledger.of_document(document, causes_of(document), ENTRIES)),
            work=await self.queue.get(FANOUT + document),
        )
        try:
            async with asyncio.timeout(self.patience):
                facts = await self._with_former(await self._with_document(facts))
        except MutationInDryRun:
            raise
        except (SyncWorkerError, TimeoutError) as error:
            facts = replace(facts, problem=self._problem(error), advice=_advice(error))
        return explain_document(facts)

    async def knows(self, document: str) -> bool:
        """Return whether a document of this id is published or has ever had an effect. Raises DatabaseUnavailable."""
        if await self.queue.get(FANOUT + document) or await self.ledger.of_document(document, causes_of(document), 1):
            return True
        try:
            async with asyncio.timeout(self.patience):
                return document in (await self.reconciler.source.stored([document])).documents
        except (SyncWorkerError, TimeoutError):
            return False

    async def _with_services(self, facts: SubjectFacts) -> SubjectFacts:
        """Add what Sanity and Clerk have, read as a sync does."""
        subject, reconciler = facts.subject, self.reconciler
        if subject.is_address:
            found = known_owners(subject, await reconciler.target.find([subject]))
            if len(found) != 1:
                reading = await reconciler.read([subject.address], (), ())
                rows = tuple(self._rows(reading, subject, ambiguous=bool(found)))
                uncounted = {} if found else await reconciler.target.uncounted(subject)
                return replace(facts, owners=found, rows=rows, uncounted=uncounted)
            subject = found[0]
        observed = await reconciler.target.observe([subject])
        observed, addresses = await reconciler.with_addresses([subject], observed)
        reading = await reconciler.read([subject], (), addresses)
        unreadable = [*reading.holders.unreadable.values(), *(one.unreadable for one in observed.values())]
        if detail := next(filter(None, unreadable), ""):
            raise UnreadableAnswer(detail)
        rows, visible = tuple(self._rows(reading, subject)), reading.snapshot.visible
        return replace(facts, subject=subject, observed=observed.get(subject), rows=rows, visible=visible)

    def _rows(self, reading: Reading, subject: Subject, *, ambiguous: bool = False) -> Iterable[PublishedRow]:
        """Yield the rows that grant the subject access, or that name it, if it is an address."""
        for raw in reading.snapshot.rows:
            named, read = read_row(raw, self.reconciler.layout.fields)
            if named == subject:
                yield _row(raw, Refusal(str(raw["_id"]), FIELDS[subject.kind], AMBIGUOUS_REASON) if ambiguous else read)
            elif named is not None and named.is_address:
                yield from (
                    _row(raw, one) for who, one in rows_for_owner(named, read, reading.holders) if who == subject
                )

    async def _with_database(self, facts: SubjectFacts) -> SubjectFacts:
        """Add what the database has."""
        key = str(facts.subject)
        beat = await self.queue.recall("heartbeat")
        return replace(
            facts,
            work=await self.queue.get(key),
            history=tuple(await self.ledger.history(key, ENTRIES)),
            written=last_writes(await self.ledger.latest([key])).get(key, NOTHING_WRITTEN),
            taken_over=tuple(await self.ledger.taken_over(key, ENTRIES)),
            held=tuple((await self.approvals.lists_of([key])).values()),
            heartbeat=beat[1] if beat else None,
            measured=await measured_at(self.queue, facts.subject),
        )

    async def _with_document(self, facts: DocumentFacts) -> DocumentFacts:
        """Add the document, and the explained subject it names."""
        source = self.reconciler.source
        page, stored = await _both(source.affected([facts.id], "", [facts.id]), source.stored([facts.id]))
        indexed = (page.revisions or {}).get(facts.id)
        known = stored.documents.get(facts.id) or (None if facts.id in stored.missing else indexed)
        if known is None and facts.id not in stored.missing:
            return replace(facts, problem="Sanity does not say whether it exists. Check that the token may read it.")
        facts = replace(facts, stored=known, indexed=indexed)
        row = next((row for row in page.rows if row["_id"] == facts.id), None)
        if row is not None:
            subject, read = read_row(row, ())
            refusal = read if subject is None and isinstance(read, Refusal) else None
            explained = await self._subject(subject) if subject is not None else None
            return replace(facts, kind=DocumentKind.ENTITLEMENT, refusal=refusal, subject=explained)
        if indexed is None:
            return facts
        held = await self.approvals.find(changeset_id(str(Cause(CauseKind.FAN_OUT, facts.id))))
        return replace(facts, kind=DocumentKind.REFERENCED, reach=await self._reach(facts.id), held=held)

    async def _reach(self, document: str) -> Reach:
        """Count what depends on a document, through as many references as a fan-out follows."""
        documents = {document}
        page = await self.reconciler.source.affected(documents, "", ())
        for _ in range(REFERENCE_DEPTH - 1):
            if documents.issuperset(page.between):
                break
            documents.update(page.between)
            page = await self.reconciler.source.affected(documents, "", ())
        subjects = {read_row(row, ())[0] for row in page.rows} - {None} if page.last else None
        waiting = await self.queue.caused_by(Cause(CauseKind.FAN_OUT, document))
        return Reach(page.remaining, None if subjects is None else len(subjects), waiting)

    async def _with_former(self, facts: DocumentFacts) -> DocumentFacts:
        """Add the subjects that the document granted access before, by the ledger."""
        if facts.kind is DocumentKind.REFERENCED:
            return facts
        now = {str(facts.subject.subject)} if facts.subject else set()
        keys = dict.fromkeys(entry.subject for entry in facts.history if facts.id in entry.documents)
        before = [Subject.parse(key) for key in keys if key not in now][:FORMER]
        return replace(facts, former=tuple(await asyncio.gather(*map(self._subject, before))))

    def _problem(self, error: Exception) -> str:
        if isinstance(error, TimeoutError):
            return f"Sanity and Clerk did not answer within {self.patience:.0f} s."
        return str(error)


def _row(raw: Mapping[str, Any], content: Entitlement | Refusal) -> PublishedRow:
    updated_at = microseconds(str(raw.get("_updatedAt")))
    published = None if updated_at is None else updated_at / 1_000_000
    return PublishedRow(str(raw["_id"]), str(raw.get("_rev") or ""), published, content)


async def _both(one: Awaitable[A], other: Awaitable[B]) -> tuple[A, B]:
    """Wait for both, even if one fails: no request may go on after the error was shown."""
    first, second = await asyncio.gather(one, other, return_exceptions=True)
    if isinstance(first, BaseException):
        raise first
    if isinstance(second, BaseException):
        raise second
    return first, second


def _advice(error: Exception) -> str:
    """Return what to do about an error that does not go away by itself; empty for all others."""
    return error.next_step() if isinstance(error, ConfigurationError | CredentialsRefused) else ""


def causes_of(document: str) -> list[str]:
    """Return the causes under which the ledger records changes triggered by a document."""
    kinds = (CauseKind.WEBHOOK, CauseKind.LISTEN, CauseKind.POLL, CauseKind.FAN_OUT)
    return [str(Cause(kind, document)) for kind in kinds]

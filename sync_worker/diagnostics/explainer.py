"""Asks Sanity, Clerk and the database about one subject or one document, and has what they say judged.

Why it exists: `explain` and `document` are pure; somebody has to read for them, in the way a run reads, and without
ever writing: the transport it is given is in its dry-run mode. Trouble with a service becomes part of the answer,
because whoever asks why access is missing must get an answer most of all when something is broken.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sync_worker.diagnostics.explain_document import DocumentFacts, Reach, Sort, explain_document
from sync_worker.diagnostics.explain_subject import Facts, Published, explain
from sync_worker.domain.freshness import moment
from sync_worker.domain.model import Refusal, Subject
from sync_worker.domain.work import FAN_OUT, POLL, REFERENCE_DEPTH, WEBHOOK
from sync_worker.errors import InvalidSubject, MutationInDryRun, SyncWorkerError
from sync_worker.sanity.rows import read_row
from sync_worker.storage.queue import FANOUT
from sync_worker.sync.address_resolution import AMBIGUOUS_REASON, FIELDS, owners, rows_for_owner

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from sync_worker.diagnostics.explain_document import DocumentExplanation
    from sync_worker.diagnostics.explain_subject import Explanation
    from sync_worker.domain.model import Entitlement
    from sync_worker.domain.timings import Timings
    from sync_worker.storage.ledger import Ledger
    from sync_worker.storage.queue import WorkQueue
    from sync_worker.storage.reconcile_runs import Runs
    from sync_worker.sync.plan import Reading
    from sync_worker.sync.reconciler import Reconciler

ENTRIES = 50
"""Ledger entries that are looked at."""
FORMER = 5
"""Subjects that a document was for before, of which Clerk is asked too."""
DOCUMENT_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_UNPUBLISHED = re.compile(r"^(drafts|versions\.[^.]+)\.")


def parse_target(text: str) -> Subject | str:
    """Return the subject that a text names, or else the id of a document. Raises InvalidSubject.

    A text that could be both is a subject; `document:` before it says otherwise. Of a draft the published id is meant.
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
    """Holds the parts. `patience` is for how many seconds Sanity and Clerk may keep somebody waiting."""

    converge: Reconciler
    queue: WorkQueue
    ledger: Ledger
    runs: Runs
    timings: Timings
    patience: float

    async def subject(self, subject: Subject) -> Explanation:
        """Explain a subject; of an address the one person who has it. Raises DatabaseUnavailable."""
        facts = Facts(subject, await self.queue.now(), self.converge.layout)
        try:
            async with asyncio.timeout(self.patience):
                facts = await self._asked(facts)
        except MutationInDryRun:
            raise
        except (SyncWorkerError, TimeoutError) as error:
            facts = replace(facts, problem=self._problem(error))
        return explain(await self._remembered(facts), self.timings)

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
                facts = await self._with_former(await self._looked_up(facts))
        except MutationInDryRun:
            raise
        except (SyncWorkerError, TimeoutError) as error:
            facts = replace(facts, problem=self._problem(error))
        return explain_document(facts)

    async def _asked(self, facts: Facts) -> Facts:
        """Ask both services as a run does."""
        subject, converge = facts.subject, self.converge
        if subject.is_address:
            holders = owners(subject, await converge.target.find([subject]))
            if len(holders) != 1:
                reading = await converge.read([subject.address], (), ())
                return replace(facts, holders=holders, rows=tuple(self._rows(reading, subject, shared=bool(holders))))
            subject = holders[0]
        observed = await converge.target.observe([subject])
        addresses = await converge.addresses([subject], observed)
        reading = await converge.read([subject], (), addresses)
        return replace(facts, subject=subject, observed=observed.get(subject), rows=tuple(self._rows(reading, subject)))

    def _rows(self, reading: Reading, subject: Subject, *, shared: bool = False) -> Iterable[Published]:
        """Return the rows that are the subject's, or that name it, if it is an address that is not one person's."""
        for raw in reading.snapshot.rows:
            named, read = read_row(raw, self.converge.layout.fields)
            if named == subject:
                yield _row(raw, Refusal(str(raw["_id"]), FIELDS[subject.kind], AMBIGUOUS_REASON) if shared else read)
            elif named is not None and named.is_address:
                yield from (
                    _row(raw, one) for who, one in rows_for_owner(named, read, reading.holders) if who == subject
                )

    async def _remembered(self, facts: Facts) -> Facts:
        """Add what the database knows."""
        key = str(facts.subject)
        beat = await self.queue.recall("heartbeat")
        return replace(
            facts,
            work=await self.queue.get(key),
            history=tuple(await self.ledger.history(key, ENTRIES)),
            held=tuple(held.id for held in await self.runs.held() if key in held.subjects),
            heartbeat=beat[1] if beat else None,
        )

    async def _looked_up(self, facts: DocumentFacts) -> DocumentFacts:
        source = self.converge.source
        page, stored = await asyncio.gather(
            source.affected([facts.id], "", [facts.id]),
            source.stored([facts.id]),
        )
        shown = (page.revisions or {}).get(facts.id)
        known = stored.documents.get(facts.id) or (None if facts.id in stored.missing else shown)
        if known is None and facts.id not in stored.missing:
            return replace(facts, problem="Sanity does not say whether it exists: may the token read it?")
        facts = replace(facts, stored=known, shown=shown)
        row = next((row for row in page.rows if row["_id"] == facts.id), None)
        if row is not None:
            subject, read = read_row(row, ())
            refusal = read if subject is None and isinstance(read, Refusal) else None
            explained = await self.subject(subject) if subject is not None else None
            return replace(facts, sort=Sort.ENTITLEMENT, refusal=refusal, subject=explained)
        return facts if shown is None else replace(facts, sort=Sort.REFERENCED, reach=await self._reach(facts.id))

    async def _reach(self, document: str) -> Reach:
        """Count what a document leads to, through as many references as a fan-out follows."""
        documents = {document}
        page = await self.converge.source.affected(documents, "", ())
        for _ in range(REFERENCE_DEPTH - 1):
            if documents.issuperset(page.between):
                break
            documents.update(page.between)
            page = await self.converge.source.affected(documents, "", ())
        people = {read_row(row, ())[0] for row in page.rows} - {None} if page.last else None
        waiting = await self.queue.caused_by(FAN_OUT + document)
        return Reach(page.remaining, None if people is None else len(people), waiting)

    async def _with_former(self, facts: DocumentFacts) -> DocumentFacts:
        """Look at those whom the ledger shows the document to have been for."""
        if facts.sort is Sort.REFERENCED:
            return facts
        now = {str(facts.subject.subject)} if facts.subject else set()
        keys = dict.fromkeys(entry.subject for entry in facts.history if facts.id in entry.documents)
        before = [Subject.parse(key) for key in keys if key not in now][:FORMER]
        return replace(facts, former=tuple(await asyncio.gather(*map(self.subject, before))))

    def _problem(self, error: Exception) -> str:
        if isinstance(error, TimeoutError):
            return f"Sanity and Clerk did not answer within {self.patience:.0f} s."
        return str(error)


def _row(raw: Mapping[str, Any], read: Entitlement | Refusal) -> Published:
    published = moment(str(raw.get("_updatedAt") or ""))
    at = published.timestamp() if published.year > 1 else None
    return Published(str(raw["_id"]), str(raw.get("_rev") or ""), at, read)


def causes_of(document: str) -> list[str]:
    """Return the causes that the ledger names for runs that a document set off."""
    return [WEBHOOK + document, POLL + document, FAN_OUT + document]

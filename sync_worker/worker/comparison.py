"""Compares everybody in Clerk with everything that Sanity publishes. It only reads."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sync_worker.domain.changeset import classify
from sync_worker.domain.clock import utc
from sync_worker.domain.diff import claims_size, diff, managed_values
from sync_worker.domain.entitlements import Entitlement, Refusal
from sync_worker.domain.merge import merge
from sync_worker.domain.ownership import NOTHING_WRITTEN, needs_ledger
from sync_worker.domain.subjects import Kind, Subject
from sync_worker.errors import DatasetEmpty, EveryoneLoses, RefusedError, SourceShrank, UnreadableAnswer
from sync_worker.sanity.row_checks import empty_fields, field_names, refuse_wrong_shape
from sync_worker.sanity.rows import read_row
from sync_worker.storage.work_items import FANOUT
from sync_worker.sync.address_resolution import AMBIGUOUS_ADDRESS, FIELDS, PENDING_REASON, owners, rows_for_owner
from sync_worker.sync.notes import code_of, remarks
from sync_worker.sync.plan import document_of, last_writes
from sync_worker.worker.desired_state import ClaimSizes, Desired, Directory, Findings
from sync_worker.worker.early_pages import EarlyPages

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
    from datetime import datetime

    from sync_worker.domain.clock import Clock
    from sync_worker.domain.entitlements import Access, Layout, Observed
    from sync_worker.domain.ownership import Adoption, LastWrites
    from sync_worker.domain.work import Cause
    from sync_worker.storage.reconcile_runs import ReconcileRuns
    from sync_worker.sync.reconciler import Reconciler


@dataclass(frozen=True, slots=True)
class Comparison:
    """Reads both sides once and compares them."""

    reconciler: Reconciler
    runs: ReconcileRuns
    clock: Clock
    cause: Cause
    adoption: Adoption
    progress: Callable[[str, int, int], None]
    accept_fewer: bool

    async def find(self) -> Findings:
        """Compare everybody. Raises whatever prevents it from reading everything, and then concludes nothing."""
        reading = asyncio.create_task(self._desired(), name="what Sanity publishes")
        try:
            findings, directory = await self._compare_everybody(reading, None)
            doubtful: frozenset[Subject] = frozenset()
            while directory.doubtful() != doubtful:
                # Who was compared before the second owner of an address was seen got too much: compare once more.
                doubtful = directory.doubtful()
                findings, _ = await self._compare_everybody(reading, directory)
            return findings
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _compare_everybody(
        self, reading: asyncio.Task[Desired], directory: Directory | None
    ) -> tuple[Findings, Directory]:
        """Compare all of Clerk once with what `reading` returns; `directory` is that of an earlier pass."""
        comparing: _Comparing | None = None
        async with aclosing(self._pages(reading)) as pages:
            async for page in pages:
                if comparing is None:
                    comparing = self._comparing(await reading, directory)
                await self._compare(page, comparing)
        comparing = comparing or self._comparing(await reading, directory)
        comparing.account_for_the_rest()
        return comparing.findings, comparing.directory

    def _comparing(self, desired: Desired, directory: Directory | None) -> _Comparing:
        known, layout = directory or Directory(desired), self.reconciler.layout
        return _Comparing(desired, known, layout, self.cause, self.adoption, utc(self.clock))

    async def _compare(self, page: Sequence[Observed], comparing: _Comparing) -> None:
        written = await self._last_writes(page)
        known = await self.reconciler.access.documents_of([str(observed.subject) for observed in page])
        for observed in page:
            comparing.directory.add(observed)
            key = str(observed.subject)
            comparing.compare(observed, written.get(key, NOTHING_WRITTEN), known.get(key, ()))
        self.progress("compared with Clerk", comparing.compared, 0)

    async def _pages(self, reading: asyncio.Task[Desired]) -> AsyncGenerator[Sequence[Observed], None]:
        """Yield the pages of Clerk, read beside those of Sanity, as soon as all of those are read."""
        early = EarlyPages()
        async with aclosing(self.reconciler.target.sweep()) as pages:
            async for page in pages:
                if reading.done():
                    for one in early:
                        yield one
                    yield page
                else:
                    early.add(page)
        await reading
        for one in early:
            yield one

    async def _last_writes(self, page: Sequence[Observed]) -> Mapping[str, LastWrites]:
        """Return what the ledger says of those whose marker does not account for all that Clerk holds."""
        layout = self.reconciler.layout
        subjects = [str(observed.subject) for observed in page if needs_ledger(observed, layout)]
        return last_writes(await self.reconciler.ledger.latest(subjects)) if subjects else {}

    async def _desired(self) -> Desired:
        fields = self.reconciler.layout.fields
        desired = Desired()
        desired.empty = field_names(fields)
        after = ""
        while True:
            page = await self.reconciler.source.everything(after)
            if not desired.rows:
                refuse_wrong_shape(page.rows, fields)
            desired.empty = empty_fields(page.rows, desired.empty)
            for raw in page.rows:
                desired.add(*read_row(raw, fields))
            self.progress("read from Sanity", desired.rows, 0)
            if page.last:
                await self._refuse_shrinking(desired.rows)
                desired.seal()
                return desired
            if page.cursor <= after:
                raise UnreadableAnswer("a page did not go on from the one before")
            after = page.cursor

    async def _refuse_shrinking(self, rows: int) -> None:
        if not rows and not self.accept_fewer:
            raise DatasetEmpty
        good = await self.runs.last_good()
        if good and rows * 2 < good.entitlements and not self.accept_fewer:
            raise SourceShrank(f"{rows} now, {good.entitlements} in the last good run")


@dataclass(slots=True)
class _Comparing:
    """One pass over everybody in Clerk."""

    desired: Desired
    directory: Directory
    layout: Layout
    cause: Cause
    adoption: Adoption
    now: datetime
    compared: int = 0
    counted: bytearray = field(init=False)
    """By the number of a row, whether it was counted for somebody in Clerk."""
    unreadable: dict[Subject, str] = field(default_factory=dict)
    findings: Findings = field(init=False)

    def __post_init__(self) -> None:
        self.findings = Findings(self.desired.rows, ClaimSizes(self.layout.claims_budget), self.desired.empty)
        for refusal in self.desired.unaddressed:
            self.findings.refuse(FANOUT + refusal.document, refusal)
        self.counted = bytearray(self.desired.numbers)

    def compare(self, observed: Observed, written: LastWrites, known: Collection[str]) -> None:
        """Compare one subject, whose documents are `known` by the index, and add what differs to the findings."""
        subject, findings = observed.subject, self.findings
        self.compared += 1
        rows = self._rows(observed)
        unreadable = observed.unreadable or self._unreadable_user(subject)
        if unreadable:
            self.unreadable[subject] = unreadable
        if unreadable := unreadable or self._unreadable_address(observed):
            self.findings.refuse(str(subject), Refusal(str(subject), UnreadableAnswer("").code, unreadable))
            return
        documents = {document_of(row) for row in rows}
        access = self._access(rows)
        live = managed_values(observed, self.layout, written)
        findings.checked += 1
        findings.managed += bool(live)
        findings.unresolved += access.unresolved
        findings.refused += access.refusals
        for remark in remarks(access):
            # An address of several people is wrong with the document, not with each of them.
            ambiguous = code_of(remark) == AMBIGUOUS_ADDRESS
            findings.remarks[FANOUT + remark.document if ambiguous else str(subject)].append(remark)
        if access.sources or live:
            self._tally(subject, access, live)
        if access.next_transition is not None:
            findings.transitions.add(str(subject), access.next_transition.timestamp())
        try:
            change = diff(
                access,
                observed,
                self.layout,
                at=self.now.isoformat(timespec="seconds"),
                cause=str(self.cause),
                written=written,
                adoption=self.adoption,
            )
        except RefusedError as error:
            findings.refuse(str(subject), Refusal(", ".join(access.sources[:3]), error.code, error.detail))
            self._index(subject, known, documents)
            return
        # Until losses are written, the documents that gave it are still for the subject.
        self._index(subject, known, documents.union(change.former_documents if change.losses else ()))
        if change.is_needed:
            findings.differences.append(classify(change, observed, self.layout))

    def _index(self, subject: Subject, known: Collection[str], documents: set[str]) -> None:
        if documents != set(known):
            self.findings.index_changes.add(str(subject), [sorted(known), sorted(documents)])

    def _unreadable_user(self, subject: Subject) -> str:
        """Return why the user of a membership cannot be read: which rows name the membership is then not known."""
        is_membership = subject.kind is Kind.MEMBERSHIP
        return self.unreadable.get(Subject(Kind.USER, subject.user_id), "") if is_membership else ""

    def _unreadable_address(self, observed: Observed) -> str:
        """Return why it is not known whether rows that name the subject by address count for it."""
        names = self.directory.names_of(observed) if self.directory.unreadable else ()
        return self.directory.why_unreadable([name for name in names if self.desired.naming(name)])

    def account_for_the_rest(self) -> None:
        """Record why rows gave nobody access: their subject is not in Clerk, or they wait for a sign-up."""
        for number in (number for number, counted in enumerate(self.counted) if not counted):
            self._account(*self.desired[number])

    def _account(self, subject: Subject, row: Entitlement | Refusal) -> None:
        if subject.address in self.directory.unreadable:
            return
        owned_by = owners(subject, self.directory.holders(subject)) if subject.is_address else (subject,)
        if isinstance(row, Refusal):
            self.findings.refuse(str(owned_by[0]) if owned_by else FANOUT + row.document, row)
        elif not owned_by:
            self.findings.pending[row.id] = f"{row.id}: {FIELDS[subject.kind]}: {PENDING_REASON}"
        elif self._counts(row):
            missing = f"{owned_by[0]} is not in Clerk"
            self.findings.refuse(str(owned_by[0]), Refusal(row.id, FIELDS[subject.kind], missing))

    def _counts(self, row: Entitlement) -> bool:
        """Return whether a row gives access, or will: one that has ended may outlive its user."""
        access = self._access([row])
        return bool(access.sources or access.next_transition)

    def _rows(self, observed: Observed) -> list[Entitlement | Refusal]:
        """Return the rows that are for a subject, and note that they are for somebody."""
        rows = []
        for name in self.directory.names_of(observed):
            holders = self.directory.holders(name)
            for number, read in self.desired.naming(name):
                self.counted[number] = True
                rows += [row for owner, row in rows_for_owner(name, read, holders) if owner == observed.subject]
        return rows

    def _access(self, rows: Sequence[Entitlement | Refusal]) -> Access:
        entitlements = [row for row in rows if isinstance(row, Entitlement)]
        return merge(entitlements, self.layout.fields, self.now, [row for row in rows if isinstance(row, Refusal)])

    def _tally(self, subject: Subject, access: Access, live: Mapping[str, object]) -> None:
        """Count what a subject should have and what it has in Clerk."""
        plan = self.layout.fields[0].name
        desired = {name: list(value) if isinstance(value, tuple) else value for name, value in access.values.items()}
        self.findings.published.add(subject, desired.get(plan), desired)
        if subject.kind is Kind.USER:
            self.findings.sizes.add(subject, claims_size(desired, self.layout))
        self.findings.held_in_clerk.add(subject, live.get(plan), live)
        if access.sources:
            self.findings.entitled_with.update(name for name, value in live.items() if value not in (None, []))


def refuse_common_loss(findings: Findings, layout: Layout) -> None:
    """Raise EveryoneLoses when a key would be taken from all who have it and stay entitled: a slug or query is wrong.

    One person is nobody's everybody, so a single one is left to the guard.
    """
    staying = [change for change in findings.losing if change.sources]
    for field_ in layout.fields:
        name = field_.name
        nothing: tuple[object, ...] = (None, [], field_.baseline)
        gone = sum(loss.key == name and loss.after in nothing for change in staying for loss in change.losses)
        if gone > 1 and gone == findings.entitled_with[name]:
            raise EveryoneLoses(f"{gone} of {gone} would lose {name}")

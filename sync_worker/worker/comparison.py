"""Compares everybody in Clerk with everything that Sanity publishes. It only reads."""

from __future__ import annotations

from collections import defaultdict
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

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
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
        desired = await self._desired()
        await self._refuse_shrinking(desired.rows)
        directory = Directory(desired.addresses())
        while True:
            doubtful = directory.doubtful()
            findings = await self._compare_everybody(desired, directory)
            if directory.doubtful() == doubtful:
                return findings
            # Who was compared before the second owner of an address was seen got too much: compare once more.

    async def _compare_everybody(self, desired: Desired, directory: Directory) -> Findings:
        layout = self.reconciler.layout
        comparing = _Comparing(desired, directory, layout, self.cause, self.adoption, utc(self.clock))
        async for page in self.reconciler.target.sweep():
            written = await self._last_writes(page)
            known = await self.reconciler.access.documents_of([str(observed.subject) for observed in page])
            for observed in page:
                directory.add(observed)
                key = str(observed.subject)
                comparing.compare(observed, written.get(key, NOTHING_WRITTEN), known.get(key, ()))
            self.progress("compared with Clerk", len(comparing.seen), 0)
        for subject, rows in desired.named.items():
            comparing.account(subject, rows)
        return comparing.findings

    async def _last_writes(self, page: Sequence[Observed]) -> Mapping[str, LastWrites]:
        """Return what the ledger says of those whose marker does not account for all that Clerk holds."""
        layout = self.reconciler.layout
        subjects = [str(observed.subject) for observed in page if needs_ledger(observed, layout)]
        return last_writes(await self.reconciler.ledger.latest(subjects)) if subjects else {}

    async def _desired(self) -> Desired:
        fields = self.reconciler.layout.fields
        named: dict[Subject, list[Entitlement | Refusal]] = defaultdict(list)
        unaddressed: list[Refusal] = []
        after, rows = "", 0
        empty = field_names(fields)
        while True:
            page = await self.reconciler.source.everything(after)
            if not rows:
                refuse_wrong_shape(page.rows, fields)
            empty = empty_fields(page.rows, empty)
            for raw in page.rows:
                subject, read = read_row(raw, fields)
                if subject is not None:
                    named[subject].append(read)
                elif isinstance(read, Refusal):
                    unaddressed.append(read)
            rows += len(page.rows)
            self.progress("read from Sanity", rows, 0)
            if page.last:
                return Desired(named, unaddressed, rows, empty)
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
    seen: set[Subject] = field(default_factory=set)
    unreadable: dict[Subject, str] = field(default_factory=dict)
    findings: Findings = field(init=False)

    def __post_init__(self) -> None:
        self.findings = Findings(self.desired.rows, ClaimSizes(self.layout.claims_budget), self.desired.empty)
        for refusal in self.desired.unaddressed:
            self.findings.refuse(FANOUT + refusal.document, refusal)

    def compare(self, observed: Observed, written: LastWrites, known: Collection[str]) -> None:
        """Compare one subject, whose documents are `known` by the index, and add what differs to the findings."""
        subject, findings = observed.subject, self.findings
        self.seen.add(subject)
        unreadable = observed.unreadable or self._unreadable_user(subject)
        if unreadable:
            self.unreadable[subject] = unreadable
        if unreadable := unreadable or self._unreadable_address(subject):
            self.findings.refuse(str(subject), Refusal(str(subject), UnreadableAnswer("").code, unreadable))
            return
        rows = self._rows(subject)
        self._index(subject, known, {document_of(row) for row in rows})
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
            findings.transitions[subject] = access.next_transition
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
            return
        if change.losses:  # until they are written, the documents that gave it are still for the subject
            self._index(subject, known, {*map(document_of, rows), *change.former_documents})
        if change.is_needed:
            findings.differences.append(classify(change, observed, self.layout))

    def _index(self, subject: Subject, known: Collection[str], documents: set[str]) -> None:
        self.findings.index_changes.pop(str(subject), None)
        if documents != set(known):
            self.findings.index_changes[str(subject)] = (known, documents)

    def _unreadable_user(self, subject: Subject) -> str:
        """Return why the user of a membership cannot be read: which rows name the membership is then not known."""
        is_membership = subject.kind is Kind.MEMBERSHIP
        return self.unreadable.get(Subject(Kind.USER, subject.user_id), "") if is_membership else ""

    def _unreadable_address(self, subject: Subject) -> str:
        """Return why it is not known whether rows that name the subject by address count for it."""
        named = [name for name in self.directory.names_of(subject) if name in self.desired.named]
        return self.directory.why_unreadable(named)

    def account(self, subject: Subject, rows: Sequence[Entitlement | Refusal]) -> None:
        """Record why rows gave nobody access: their subject is not in Clerk, or they wait for a sign-up."""
        if subject.address in self.directory.unreadable:
            return
        owned_by = owners(subject, self.directory.owners) if subject.is_address else (subject,)
        if not owned_by:
            for row in rows:
                if isinstance(row, Refusal):
                    self.findings.refuse(FANOUT + row.document, row)
                else:
                    self.findings.pending[row.id] = f"{row.id}: {FIELDS[subject.kind]}: {PENDING_REASON}"
        elif self.seen.isdisjoint(owned_by):
            missing = f"{owned_by[0]} is not in Clerk"
            for row in rows:
                if isinstance(row, Refusal):
                    self.findings.refuse(str(owned_by[0]), row)
                elif self._counts(row):
                    self.findings.refuse(str(owned_by[0]), Refusal(row.id, FIELDS[subject.kind], missing))

    def _counts(self, row: Entitlement) -> bool:
        """Return whether a row gives access, or will: one that has ended may outlive its user."""
        access = self._access([row])
        return bool(access.sources or access.next_transition)

    def _rows(self, subject: Subject) -> list[Entitlement | Refusal]:
        return [
            row
            for name in self.directory.names_of(subject)
            for read in self.desired.named.get(name, ())
            for owner, row in rows_for_owner(name, read, self.directory.owners)
            if owner == subject
        ]

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
        gone = sum(bool(change.before.get(name)) and not change.after.get(name) for change in staying)
        if gone > 1 and gone == findings.entitled_with[name]:
            raise EveryoneLoses(f"{gone} of {gone} would lose {name}")

"""The shapes in which a full reconcile keeps both sides: small enough for a hundred thousand people in memory."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sync_worker.clerk.target import AddressOwners
from sync_worker.domain.changeset import Difference, Tally
from sync_worker.domain.subjects import Kind, Subject

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime

    from sync_worker.domain.entitlements import Change, Entitlement, Observed, Refusal, Unresolved


@dataclass(frozen=True, slots=True)
class Desired:
    """All that Sanity publishes, by the subject that a row names: an id or an address.

    No row sets the fields that are `empty`.
    """

    named: Mapping[Subject, Sequence[Entitlement | Refusal]]
    unaddressed: Sequence[Refusal]
    rows: int
    empty: tuple[str, ...] = ()

    def addresses(self) -> set[Subject]:
        """Return the addresses that rows name, without their organizations."""
        return {subject.address for subject in self.named if subject.is_address}


@dataclass(frozen=True, slots=True)
class Directory:
    """Who has the addresses that rows name, as far as Clerk has been read."""

    wanted: Collection[Subject]
    holders: dict[Subject, set[str]] = field(default_factory=dict)
    unreadable: dict[Subject, str] = field(default_factory=dict)
    of: dict[str, tuple[Subject, ...]] = field(default_factory=dict)

    def add(self, observed: Observed) -> None:
        """Add the addresses of a user, as far as rows name them."""
        having = tuple(address for address in observed.addresses if address in self.wanted)
        if having:
            self.of[observed.subject.id] = having
        for address in having:
            self.holders.setdefault(address, set()).add(observed.subject.id)
        possible = (address for address in observed.possible_addresses or () if address in self.wanted)
        self.unreadable.update(dict.fromkeys(possible, observed.unreadable))

    @property
    def owners(self) -> AddressOwners:
        """Who has the addresses."""
        return AddressOwners(self.holders, self.unreadable)

    def doubtful(self) -> frozenset[Subject]:
        """Return the addresses that several users have, or may have."""
        several = (address for address, users in self.holders.items() if len(users) > 1)
        return frozenset((*several, *self.unreadable))

    def why_unreadable(self, names: Collection[Subject]) -> str:
        """Return why it is not known who has one of these addresses; empty when it is known."""
        return next((self.unreadable[name.address] for name in names if name.address in self.unreadable), "")

    def names_of(self, subject: Subject) -> tuple[Subject, ...]:
        """Return everything by which a row can name a subject: its id, and its addresses."""
        match subject.kind:
            case Kind.USER:
                return (subject, *self.of.get(subject.id, ()))
            case Kind.MEMBERSHIP:
                within = subject.organization_id
                addresses = self.of.get(subject.user_id, ())
                return (subject, *(Subject(a.kind, f"{within}/{a.id}") for a in addresses))
            case _:
                return (subject,)


@dataclass(slots=True)
class ClaimSizes:
    """How large the claims of users will be: how many are over the budget, and who has the most bytes."""

    budget: int
    over: int = 0
    largest: str = ""
    most: int = 0

    def add(self, subject: Subject, size: int) -> None:
        """Add a user."""
        self.over += size > self.budget
        if size > self.most:
            self.largest, self.most = str(subject), size


@dataclass(slots=True)
class Findings:
    """What a comparison found; nothing is written yet. `pending` are documents that wait for a sign-up, with why.

    No row sets the fields that are `empty`. `remarks` are what is wrong, by the key of the work queue on which it is to
    be noted: the subject's, or the document's where it is for nobody or for several.
    `index_changes` are the documents of subjects by the access index and by what is published, where these differ.
    """

    rows: int
    sizes: ClaimSizes
    empty: tuple[str, ...] = ()
    began: float = 0.0
    """When, by the database's clock (epoch seconds)."""
    checked: int = 0
    managed: int = 0
    differences: list[Difference] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    unresolved: list[Unresolved] = field(default_factory=list)
    remarks: defaultdict[str, list[Refusal]] = field(default_factory=lambda: defaultdict(list))
    pending: dict[str, str] = field(default_factory=dict)
    index_changes: dict[str, tuple[Collection[str], Collection[str]]] = field(default_factory=dict)
    transitions: dict[Subject, datetime] = field(default_factory=dict)
    published: Tally = field(default_factory=Tally.empty)
    held_in_clerk: Tally = field(default_factory=Tally.empty)
    entitled_with: Counter[str] = field(default_factory=Counter)
    """How many of those who stay entitled have each key in Clerk."""

    def refuse(self, key: str, *refusals: Refusal) -> None:
        """Record refusals, to be noted on `key`."""
        self.refused += refusals
        self.remarks[key] += refusals

    @property
    def losing(self) -> list[Change]:
        """The changes that take something away."""
        return [d.change for d in self.differences if d.change.losses]

    @property
    def taken_over(self) -> int:
        """How many subjects have keys of the app that become managed."""
        return sum(bool(d.change.taken_over) for d in self.differences)

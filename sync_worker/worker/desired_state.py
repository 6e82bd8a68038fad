"""The shapes in which a full reconcile keeps both sides: small enough for a million people in memory."""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sync_worker.clerk.target import AddressOwners
from sync_worker.domain.changeset import Difference, Tally
from sync_worker.domain.entitlements import Entitlement, Refusal, Unresolved
from sync_worker.domain.subjects import Kind, Subject
from sync_worker.worker.packed import Moments, Packed

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sync_worker.domain.entitlements import Change, Observed


class Desired:
    """All that Sanity publishes, by the subject that a row names: an id or an address.

    No row sets the fields that are `empty`.
    """

    def __init__(self) -> None:
        self.unaddressed: list[Refusal] = []
        self.rows = 0
        self.empty: tuple[str, ...] = ()
        self.members: dict[Subject, int] = {}
        """The addresses that rows name together with an organization, numbered."""
        self._named = Packed()

    def add(self, subject: Subject | None, read: Entitlement | Refusal) -> None:
        """Add a row. Call `seal` after the last one, before anything is looked up."""
        self.rows += 1
        if subject is not None:
            self._named.add(str(subject), _pack(read))
            if subject.is_address and subject.organization_id:
                self.members.setdefault(subject.address, len(self.members))
        elif isinstance(read, Refusal):
            self.unaddressed.append(read)

    def seal(self) -> None:
        """Make the rows ready to be looked up."""
        self._named.seal()

    def naming(self, subject: Subject) -> list[tuple[int, Entitlement | Refusal]]:
        """Return the rows that name a subject, with their numbers below `numbers`."""
        return [(number, _unpack(record, subject)) for number, record in self._named.find(str(subject))]

    def __getitem__(self, number: int) -> tuple[Subject, Entitlement | Refusal]:
        """Return the row with a number, and the subject that it names."""
        key, record = self._named[number]
        kind, _, id_ = key.partition(":")
        subject = Subject(Kind(kind), id_)
        return subject, _unpack(record, subject)

    @property
    def numbers(self) -> int:
        """How many rows name a subject."""
        return len(self._named)

    def place_of(self, address: Subject) -> int | None:
        """Return a number of its own for an address that rows name, alone or in an organization; None for another."""
        if address in self.members:
            return self.numbers + self.members[address]
        return next((number for number, _ in self._named.find(str(address))), None)


class Directory:
    """Who has the addresses that rows name, as far as Clerk has been read."""

    def __init__(self, desired: Desired) -> None:
        self.unreadable: dict[Subject, str] = {}
        """Those of which it is not known who has them, with why."""
        self._desired = desired
        self._first = array("Q", bytes(8 * (desired.numbers + len(desired.members))))
        """By the place of an address, where its first user is in `_users`; 0 for nobody."""
        self._users = bytearray(b"\n")
        self._all: dict[Subject, set[str]] = {}
        """The users of those addresses that several have."""
        self._of: dict[str, tuple[Subject, ...]] = {}
        """The addresses of each user by which rows may name a membership."""

    def add(self, observed: Observed) -> None:
        """Add the addresses of a user, as far as rows name them."""
        id_ = observed.subject.id
        if members := tuple(a for a in observed.addresses if a in self._desired.members):
            self._of[id_] = members
        for address in observed.addresses:
            if (place := self._desired.place_of(address)) is None:
                continue
            if not self._first[place]:
                self._first[place] = len(self._users)
                self._users += id_.encode() + b"\n"
            elif (first := self._user_at(self._first[place])) != id_:
                self._all.setdefault(address, {first}).add(id_)

        possible = (a for a in observed.possible_addresses or () if self._desired.place_of(a) is not None)
        self.unreadable.update(dict.fromkeys(possible, observed.unreadable))

    def doubtful(self) -> frozenset[Subject]:
        """Return the addresses that several users have, or may have."""
        return frozenset((*self._all, *self.unreadable))

    def why_unreadable(self, names: Collection[Subject]) -> str:
        """Return why it is not known who has one of these addresses; empty when it is known."""
        return next((self.unreadable[name.address] for name in names if name.address in self.unreadable), "")

    def holders(self, subject: Subject) -> AddressOwners:
        """Return who has the address of a subject, if it is one."""
        if not subject.is_address or (place := self._desired.place_of(subject.address)) is None:
            return AddressOwners()
        first = self._first[place]
        single = {self._user_at(first)} if first else set()
        return AddressOwners({subject.address: self._all.get(subject.address, single)})

    def names_of(self, observed: Observed) -> tuple[Subject, ...]:
        """Return everything by which a row can name a subject: its id, and its addresses."""
        subject = observed.subject
        if subject.kind is Kind.MEMBERSHIP:
            within = subject.organization_id
            addresses = self._of.get(subject.user_id, ())
            return (subject, *(Subject(a.kind, f"{within}/{a.id}") for a in addresses))
        return (subject, *observed.addresses)

    def _user_at(self, place: int) -> str:
        return self._users[place : self._users.index(b"\n", place)].decode()


def _pack(read: Entitlement | Refusal) -> list[Any]:
    """Return a row as JSON can hold it. A refusal has three members, an entitlement more."""
    if isinstance(read, Refusal):
        return [read.document, read.field, read.reason]
    unresolved = read.unresolved
    return [
        read.id,
        read.revision,
        read.updated_at.isoformat(),
        read.values,
        read.starts_at and read.starts_at.isoformat(),
        read.ends_at and read.ends_at.isoformat(),
        read.status,
        unresolved and [unresolved.document, unresolved.number, unresolved.detail, unresolved.left],
    ]


def _unpack(record: Sequence[Any], subject: Subject) -> Entitlement | Refusal:
    if len(record) == len(("document", "field", "reason")):
        return Refusal(*record)
    id_, revision, updated_at, values, starts_at, ends_at, status, unresolved = record
    return Entitlement(
        id_,
        revision,
        datetime.fromisoformat(updated_at),
        subject,
        {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()},
        starts_at and datetime.fromisoformat(starts_at),
        ends_at and datetime.fromisoformat(ends_at),
        status,
        unresolved and Unresolved(*unresolved),
    )


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
    index_changes: Packed = field(default_factory=Packed)
    transitions: Moments = field(default_factory=Moments)
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

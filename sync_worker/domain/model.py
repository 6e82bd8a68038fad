"""The nouns: subject, field, entitlement, access, witness, change.

Why it exists: every room speaks of these, and of nothing bigger. All are frozen and know no I/O. How rows become
access is `policy`; how access becomes a change is `changes`; where they come from and go to is `sanity` and `clerk`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from string import ascii_lowercase, ascii_uppercase
from typing import TYPE_CHECKING

from sync_worker.errors import InvalidSubject

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

Scalar = str | int | float | bool
"""A compact value that fits a session token."""

Value = Scalar | tuple[str, ...]
"""What an owned key can hold: a scalar, or a sorted tuple of strings."""

USER_ID = re.compile(r"user_\w+", re.ASCII)
ORGANIZATION_ID = re.compile(r"org_\w+", re.ASCII)
_UNFIT = r"\s\x00-\x1f\x7f-\x9f\ud800-\udfff"
"""Spaces of any sort, control characters and halves of characters: in no address, and some databases take none."""
EMAIL = re.compile(rf"[^@/{_UNFIT}]+@[^@/{_UNFIT}]+")
EXTERNAL_ID = re.compile(rf"(?!(?a:{ORGANIZATION_ID.pattern})/)[^{_UNFIT}]{{1,256}}")
_FOLDED = str.maketrans(ascii_uppercase, ascii_lowercase)
"""Only ASCII is folded: a letter that merely looks like another must not open somebody else's access."""


class Kind(StrEnum):
    """What sort of subject it is; the prefix of its key."""

    USER = "user"
    ORGANIZATION = "org"
    MEMBERSHIP = "membership"
    EMAIL = "email"
    EXTERNAL = "external"


@dataclass(frozen=True, slots=True, order=True)
class Subject:
    """Whom access is for: `user:user_…`, `org:org_…`, `membership:org_…/user_…`, `email:…` or `external:…`.

    The last two are addresses of a user, still to be resolved; `email:org_…/…` is that user's membership.
    """

    kind: Kind
    id: str

    @classmethod
    def parse(cls, text: str) -> Subject:
        """Read a subject from its key.

        A bare `user_…`, `org_…` or e-mail address is understood too, because that is what people paste.
        Raises InvalidSubject when the id could not be part of a Clerk address.
        """
        prefix, colon, rest = text.strip().partition(":")
        if not colon:
            prefix, rest = _kind_of(prefix), prefix
        if prefix not in set(Kind):
            raise InvalidSubject(repr(text))
        return cls.exactly(Kind(prefix), rest)

    @classmethod
    def exactly(cls, kind: Kind, text: str) -> Subject:
        """Return the subject of a kind whose id is all of `text`. Raises InvalidSubject like `parse`."""
        if not _SHAPES[kind].fullmatch(text):
            raise InvalidSubject(repr(f"{kind}:{text}"))
        return cls(kind, _folded(text) if kind is Kind.EMAIL else text)

    @classmethod
    def membership(cls, organization_id: str, user_id: str) -> Subject:
        """Return the subject of one user's membership in one organization."""
        return cls(Kind.MEMBERSHIP, f"{organization_id}/{user_id}")

    @property
    def is_address(self) -> bool:
        """Whether it names somebody by an address that Clerk must be asked about."""
        return self.kind in (Kind.EMAIL, Kind.EXTERNAL)

    @property
    def address(self) -> Subject:
        """The address alone, without the organization whose membership is meant."""
        organization = self.organization_id
        return Subject(self.kind, self.id.removeprefix(f"{organization}/")) if organization else self

    def for_user(self, user_id: str) -> Subject:
        """Return the subject that this address stands for when `user_id` has it: the user, or the membership."""
        organization = self.organization_id
        return Subject.membership(organization, user_id) if organization else Subject(Kind.USER, user_id)

    @property
    def organization_id(self) -> str:
        """The organization part of a membership, or of an address within one; else empty."""
        first, slash, _ = self.id.partition("/")
        return first if slash and ORGANIZATION_ID.fullmatch(first) else ""

    @property
    def user_id(self) -> str:
        """The user part of a membership."""
        return self.id.rpartition("/")[2]

    def __str__(self) -> str:
        return f"{self.kind}:{self.id}"


def _kind_of(text: str) -> str:
    if "@" in text:
        return Kind.EMAIL
    return Kind.ORGANIZATION if text.startswith("org_") else Kind.USER


def _folded(email: str) -> str:
    """Fold an address, but not the id of the organization before it."""
    organization, slash, address = email.rpartition("/")
    return organization + slash + address.translate(_FOLDED)


_OF_MEMBER = f"((?a:{ORGANIZATION_ID.pattern})/)?"
_SHAPES = {
    Kind.USER: USER_ID,
    Kind.ORGANIZATION: ORGANIZATION_ID,
    Kind.MEMBERSHIP: re.compile(f"{ORGANIZATION_ID.pattern}/{USER_ID.pattern}", re.ASCII),
    Kind.EMAIL: re.compile(_OF_MEMBER + EMAIL.pattern),
    Kind.EXTERNAL: re.compile(_OF_MEMBER + EXTERNAL_ID.pattern),
}


class Rule(StrEnum):
    """How the values of several entitlements become one."""

    HIGHEST = "highest"
    UNION = "union"
    LATEST = "latest"


class Placement(StrEnum):
    """Which Clerk metadata holds a field."""

    PUBLIC = "public"
    PRIVATE = "private"


@dataclass(frozen=True, slots=True)
class Field:
    """One owned key.

    `order` is the allow-list, lowest first; empty means any value. `baseline` is what a subject without an active
    entitlement gets; None removes the key.
    """

    name: str
    rule: Rule
    placement: Placement = Placement.PUBLIC
    order: tuple[str, ...] = ()
    baseline: Value | None = None


CORE_FIELDS = (
    Field("plan", Rule.HIGHEST),
    Field("role", Rule.HIGHEST),
    Field("courseSlugs", Rule.UNION),
)
"""The first three lines of the table of owned keys; settings add lines, and nothing else names a field."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One place in Clerk's metadata: `public.plan`, or `public.access.plan` inside the namespace `access`."""

    placement: Placement
    namespace: str | None
    name: str

    @classmethod
    def parse(cls, text: str) -> Slot:
        """Read a slot from its text. Raises ValueError when it is none."""
        placement, *namespace, name = text.split(".")
        return cls(Placement(placement), ".".join(namespace) or None, name)

    def __str__(self) -> str:
        return ".".join(filter(None, (self.placement, self.namespace, self.name)))


@dataclass(frozen=True, slots=True)
class Layout:
    """The table of owned keys, and where in Clerk's metadata they stand.

    With a `namespace` the keys are members of one object of that name, in public and in private metadata alike.
    `claims_budget` is in bytes of JSON: what public keys may add to a session token before a warning is due.
    """

    fields: tuple[Field, ...]
    namespace: str | None = None
    claims_budget: int = 1000

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The owned keys, in the order of the fields."""
        return tuple(Slot(f.placement, self.namespace, f.name) for f in self.fields)


@dataclass(frozen=True, slots=True)
class Entitlement:
    """One published row, read and valid. `values` holds the fields that are set, by field name."""

    id: str
    revision: str
    updated_at: datetime
    subject: Subject
    values: Mapping[str, Value]
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    status: str | None = None


@dataclass(frozen=True, slots=True, order=True)
class Refusal:
    """A row, or one field of it, that is wrong and therefore counts for nothing."""

    document: str
    field: str
    reason: str

    def __str__(self) -> str:
        return f"{self.document}: {self.field}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Access:
    """The merged result for one subject.

    `values` holds owned keys by field name; `sources` the ids of the documents that count; an empty `sources` means
    that nothing entitles the subject now and `values` are the baseline.
    """

    values: Mapping[str, Value] = field(default_factory=dict)
    sources: tuple[str, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    next_transition: datetime | None = None


@dataclass(frozen=True, slots=True)
class ExpectedRevision:
    """What an event told of one document: a read that does not show it is stale.

    `updated_at` is Sanity's `_updatedAt` text (RFC 3339, UTC), empty when unknown. After a delete `revision` is the
    last one that existed, because that is what Sanity sends. `news` is False for what a finished run has served: a
    delete is remembered, so that an older event which comes late does not pass for a newer one.
    """

    document: str
    revision: str
    updated_at: str = ""
    deleted: bool = False
    news: bool = True

    @property
    def ends(self) -> bool:
        """Whether it tells, and did not tell before, that the document is no more."""
        return self.deleted and self.news


@dataclass(frozen=True, slots=True)
class Marker:
    """The private note beside the owned keys which says that a subject is ours.

    `slots` are the places that were written, so that a change of the layout can clear the old ones.
    """

    sources: tuple[str, ...]
    fingerprint: str
    at: str
    slots: tuple[Slot, ...]


@dataclass(frozen=True, slots=True)
class Observed:
    """What Clerk holds for one subject: both metadata objects whole, foreign keys included, and our marker.

    `addresses` are those by which an entitlement can name a user: the primary, verified, not reserved e-mail address,
    and the external id.
    """

    subject: Subject
    public: Mapping[str, object] = field(default_factory=dict)
    private: Mapping[str, object] = field(default_factory=dict)
    marker: Marker | None = None
    addresses: tuple[Subject, ...] = ()


class ChangeKind(StrEnum):
    """What a change does to a subject's access."""

    GRANT = "grant"
    UPDATE = "update"
    REVOKE = "revoke"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Change:
    """What must be written for one subject: `public` and `private` are the merge patches, None removes a key."""

    subject: Subject
    kind: ChangeKind
    before: Mapping[str, object]
    after: Mapping[str, object]
    sources: tuple[str, ...] = ()
    cause: str = ""
    refusals: tuple[Refusal, ...] = ()
    public: Mapping[str, object] = field(default_factory=dict)
    private: Mapping[str, object] = field(default_factory=dict)

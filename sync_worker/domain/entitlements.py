"""The values of the sync: fields and their layout, entitlements, access, and the change that is written to Clerk."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from sync_worker.domain.subjects import Subject

Scalar = str | int | float | bool
"""A compact value that fits a session token."""

Value = Scalar | tuple[str, ...]
"""What an owned key can hold: a scalar, or a sorted tuple of strings."""


class MergeRule(StrEnum):
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
    rule: MergeRule
    placement: Placement = Placement.PUBLIC
    order: tuple[str, ...] = ()
    baseline: Value | None = None


CORE_FIELDS = (
    Field("plan", MergeRule.HIGHEST),
    Field("role", MergeRule.HIGHEST),
    Field("courseSlugs", MergeRule.UNION),
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

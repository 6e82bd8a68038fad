"""The values of the sync: fields and their layout, entitlements, access, and the change that is written to Clerk."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from sync_worker.domain.loss import Loss
    from sync_worker.domain.subjects import Subject

Scalar = str | int | float | bool
"""A value small enough for a session token."""

Value = Scalar | tuple[str, ...]
"""The value of a managed key: a scalar, or a sorted tuple of strings."""


UNRESOLVED_FIELD = "unresolved"
"""The field of a row that counts references that lead to nothing usable."""


class MergeRule(StrEnum):
    """How the values of several entitlements are merged into one."""

    HIGHEST = "highest"
    UNION = "union"
    LATEST = "latest"


class Placement(StrEnum):
    """The Clerk metadata in which a field is stored."""

    PUBLIC = "public"
    PRIVATE = "private"


@dataclass(frozen=True, slots=True)
class Field:
    """One managed key.

    `order` lists the allowed values, lowest first; empty allows any value. `baseline` is the value for subjects
    without an active entitlement; None removes the key.
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
"""The managed keys that always exist; EXTRA_FIELDS adds more. No other code names a field."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One place in Clerk's metadata: `plan`, `private.plan`, or `public.access.plan` in the namespace `access`."""

    placement: Placement
    namespace: str | None
    name: str

    @classmethod
    def parse(cls, text: str) -> Slot:
        """Parse a slot such as `plan` or `public.access.plan`. Raises ValueError when the text is not one."""
        placement, *namespace, name = text.split(".") if "." in text else (Placement.PUBLIC, text)
        return cls(Placement(placement), ".".join(namespace) or None, name)

    def __str__(self) -> str:
        if self.placement is Placement.PUBLIC and self.namespace is None:
            return self.name
        return ".".join(filter(None, (self.placement, self.namespace, self.name)))


@dataclass(frozen=True, slots=True)
class Layout:
    """The managed keys, and where they are stored in Clerk's metadata.

    With a `namespace`, the keys are members of an object with that name, in public and private metadata alike.
    `claims_budget` is the size in bytes of JSON that public keys may add to a session token before a warning.
    `source` names this installation in its markers: `<project>/<dataset>`.
    """

    fields: tuple[Field, ...]
    namespace: str | None = None
    claims_budget: int = 1000
    source: str = ""
    slots: tuple[Slot, ...] = field(init=False, repr=False, compare=False)
    """The slots of the managed keys, in the order of the fields."""

    def __post_init__(self) -> None:
        slots = tuple(Slot(f.placement, self.namespace, f.name) for f in self.fields)
        object.__setattr__(self, "slots", slots)  # once, because a reconcile asks a dozen times for each person


@dataclass(frozen=True, slots=True)
class Entitlement:
    """One published row, validated. `values` holds the fields that are set, by name."""

    id: str
    revision: str
    updated_at: datetime
    subject: Subject
    values: Mapping[str, Value]
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    status: str | None = None
    unresolved: Unresolved | None = None


@dataclass(frozen=True, slots=True, order=True)
class Unresolved:
    """How many references of a document led to nothing usable, and what is wrong, if known. What is left counts."""

    document: str
    number: int
    detail: str = ""
    left: str = ""

    @property
    def sentence(self) -> str:
        """Say it without the document."""
        counted = "1 reference leads" if self.number == 1 else f"{self.number} references lead"
        return f"{counted} to nothing usable" + (f" ({self.detail})" if self.detail else "")

    @property
    def remark(self) -> Refusal:
        """Say it in a note, with what is left: so another deleted document makes another note, whatever the number."""
        return Refusal(self.document, UNRESOLVED_FIELD, f"{self.sentence}; what is left: {self.left or 'nothing'}")

    def __str__(self) -> str:
        return f"{self.document}: {self.sentence}"


@dataclass(frozen=True, slots=True, order=True)
class Refusal:
    """A row that was rejected, and the field and reason. It grants nothing."""

    document: str
    field: str
    reason: str

    @classmethod
    def parse(cls, text: str) -> Refusal | None:
        """Parse what `str` returned; None for another text."""
        parts = text.split(": ", 2)
        return cls(*parts) if len(parts) == len(("document", "field", "reason")) else None

    def __str__(self) -> str:
        return f"{self.document}: {self.field}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Access:
    """The merged result for one subject.

    `values` holds managed keys by field name, `sources` the ids of the active documents. Without sources the subject
    has no active entitlement, and `values` is the baseline.
    """

    values: Mapping[str, Value] = field(default_factory=dict)
    sources: tuple[str, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    next_transition: datetime | None = None
    unresolved: tuple[Unresolved, ...] = ()


@dataclass(frozen=True, slots=True)
class Marker:
    """Our note in private metadata, beside the keys that it lists.

    `source` is the installation that wrote it, `keys` the places it manages, `documents` those that gave the values.
    """

    source: str
    keys: tuple[Slot, ...]
    documents: tuple[str, ...] = ()
    fingerprint: str = ""
    at: str = ""


@dataclass(frozen=True, slots=True)
class Observed:
    """What Clerk stores for one subject: both metadata objects, including unmanaged keys.

    `markers` are those found in it, by namespace. `addresses` are those by which an entitlement can name the user: the
    external id, and the primary e-mail address if it is verified and not reserved. An `unreadable` one has a shape that
    is not expected: nothing is known of it, and nothing is concluded. Where its
    addresses are not known either, `possible_addresses` are those that it may have.
    """

    subject: Subject
    public: Mapping[str, object] = field(default_factory=dict)
    private: Mapping[str, object] = field(default_factory=dict)
    markers: Mapping[str | None, Marker] = field(default_factory=dict)
    addresses: tuple[Subject, ...] = ()
    unreadable: str = ""
    possible_addresses: tuple[Subject, ...] | None = None


class ChangeKind(StrEnum):
    """What a change does to a subject's access."""

    GRANT = "grant"
    UPDATE = "update"
    REVOKE = "revoke"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Change:
    """The change to one subject. `public` and `private` are the merge patches to send; None removes a key.

    `before` and `after` are managed keys by field name, with those that are taken over; `taken_over` is what the app
    had in these. `keys` are managed from then on. `losses` is what it takes away, and `giving` the part of the change
    that takes nothing, if that leaves anything to write. `former_documents` gave the access until now.
    """

    subject: Subject
    kind: ChangeKind
    before: Mapping[str, object]
    after: Mapping[str, object]
    sources: tuple[str, ...] = ()
    cause: str = ""
    refusals: tuple[Refusal, ...] = ()
    public: Mapping[str, object] = field(default_factory=dict)
    private: Mapping[str, object] = field(default_factory=dict)
    keys: tuple[Slot, ...] = ()
    taken_over: Mapping[str, object] = field(default_factory=dict)
    former_documents: tuple[str, ...] = ()
    losses: tuple[Loss, ...] = ()
    giving: Change | None = None

    @property
    def is_needed(self) -> bool:
        """Whether there is anything to write."""
        return self.kind is not ChangeKind.NONE

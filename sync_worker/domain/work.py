"""The vocabulary of the work queue: what a row is about, and what caused it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum


class WorkKind(StrEnum):
    """What a row of the work queue is about, which decides how it is run."""

    SUBJECT = "subject"
    """A subject to reconcile. All other kinds are lookups: they find out which subjects to reconcile."""
    DOCUMENT = "document"
    """A document to fan out, or whose owner is to be looked up."""
    ADDRESS = "address"
    """An e-mail address or external id whose owner is to be looked up."""
    MEMBERS = "members"
    """A user who has joined or whose address may have changed: for whom entitlements may count by it is looked up."""


class CauseKind(StrEnum):
    """What led to a run. The log reference lists them for operators."""

    NONE = ""
    """No event: an earlier run scheduled this one."""
    WEBHOOK = "webhook"
    """A document was published."""
    LISTEN = "listen"
    """A document was published, and the listener received it."""
    POLL = "poll"
    """A poll found changed documents; the id is the time of the poll, so that all it found is one cause."""
    FAN_OUT = "document"
    """A document that many subjects depend on changed: a plan, a course or a cohort."""
    CLERK = "clerk"
    """Something changed in Clerk: a sign-up, an address or a membership."""
    OPERATOR = "sync"
    """An operator requested it."""
    APPROVE = "approve"
    """An operator approved a held changeset; the id is the changeset's."""
    RECONCILE = "reconcile"
    """A full reconcile found a difference; the id is the run's."""
    WINDOW = "window"
    """The full reconcile found that access starts or ends then."""
    DATASET_VISIBLE_AGAIN = "dataset_visible_again"
    """Entitlements are visible again, after reads that showed none."""
    INVALID = "invalid_content"
    """Not a run's: losses of those whose own entitlements were published, and are refused or have broken references."""


PUBLISHED = frozenset({CauseKind.WEBHOOK, CauseKind.LISTEN})
"""An editor published something, as its own event reported at once."""

COUNTED_TOGETHER = frozenset({CauseKind.POLL, CauseKind.RECONCILE, CauseKind.DATASET_VISIBLE_AGAIN})
"""Many documents are found at once: what each of them takes away is counted with the rest."""


@dataclass(frozen=True, slots=True)
class Cause:
    """What led to a run, and the id of what it came from: a document, the type of a Clerk event, a poll or a run.

    Its text, such as `webhook:ent-1`, is what logs, JSON and the ledger show. `by` is who did it, where that is known:
    the id of a Sanity user, or the name that an operator gave. It does not make another cause.
    """

    kind: CauseKind
    id: str = ""
    by: str = field(default="", compare=False)

    def __str__(self) -> str:
        return f"{self.kind}:{self.id}" if self.id else str(self.kind)


NO_CAUSE = Cause(CauseKind.NONE)

_EDITOR = re.compile(r"[A-Za-z0-9._|-]{1,128}")


def editor(value: object) -> str:
    """Return the id of a Sanity user; empty for anything that does not look like one."""
    return value if isinstance(value, str) and _EDITOR.fullmatch(value) else ""


REFERENCE_DEPTH = 3
"""How many levels of references are followed: course to plan or cohort, to entitlement, and one spare."""

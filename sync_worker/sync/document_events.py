"""Sanity's events about documents: what each may have changed becomes items of the work queue."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sync_worker.domain.revisions import Deletion, ExpectedRevision, expected_revision, microseconds
from sync_worker.domain.work import Cause, CauseKind, editor
from sync_worker.errors import InvalidSubject
from sync_worker.sanity.rows import SubjectFields
from sync_worker.storage.work_items import FANOUT, WorkItem

if TYPE_CHECKING:
    from sync_worker.domain.subjects import Subject

ENTITLEMENT = "entitlement"
DIRECT, FANOUT_LANE = 0, 1


class DocumentEvent(BaseModel):
    """The signed body, as `groq/webhook_projection.groq` makes it."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    operation: Literal["create", "update", "delete"]
    project_id: str = Field(alias="projectId")
    dataset: str
    id: str = Field(pattern=r"^[A-Za-z0-9._-]{1,256}$")
    type: str
    rev: str | None = Field(pattern=r"^[A-Za-z0-9._-]{0,256}$", default=None)
    by: Any = None
    updated_at: str | None = Field(alias="updatedAt", pattern=r"^[0-9TZ:.+-]{0,64}$", default=None)
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None

    def expected(self, now: float, tolerance: float) -> ExpectedRevision:
        """Return what a read must show, of an event that arrived at `now` (epoch seconds).

        `_updatedAt` is an order only near the arrival, within `tolerance` seconds. One that is stated, as by an import
        or a restore, proves nothing: then the document store has to decide.
        """
        deletion = Deletion.REPORTED if self.operation == "delete" else None
        updated_at = microseconds(self.updated_at)
        if updated_at is not None and abs(now - updated_at / 1_000_000) > tolerance:
            return expected_revision(self.id, None, int(now * 1_000_000), deletion)
        return expected_revision(self.id, self.rev, updated_at, deletion)


def parse(body: bytes) -> DocumentEvent | None:
    """Read a signed body; None when it does not have the expected shape."""
    try:
        return DocumentEvent.model_validate(json.loads(body))
    except (ValidationError, ValueError, RecursionError):
        return None


def items_of(event: DocumentEvent, delivery: str, now: float, tolerance: float) -> list[WorkItem]:
    """Return what an event may have changed: the subjects before and after, or the document to look up.

    A side that is no entitlement names nobody: a document that changes into another type is gone for us. A body of an
    earlier projection does not say the types of both sides. An entitlement by address, or one that names nobody, is
    enqueued as a document, and looked up by the worker. An address that it named before, and does not name now, is
    enqueued by itself.
    """
    entitled = [fields if _is_entitlement(fields) else None for fields in (event.before, event.after)]
    before, after = map(_subject, entitled)
    keys = {str(subject) for subject in (before, after) if subject is not None and not subject.is_address}
    if before is not None and before.is_address and before != after:
        keys.add(str(before))
    addressed = any(subject is not None and subject.is_address for subject in (before, after))
    nameless = any(fields and not who for fields, who in zip(entitled, (before, after), strict=True))
    items = [(key, DIRECT) for key in sorted(keys)]
    if event.type != ENTITLEMENT or (event.before is not None and not _is_entitlement(event.before)):
        items.append((FANOUT + event.id, FANOUT_LANE))
    elif addressed or nameless or not items:
        items.append((FANOUT + event.id, DIRECT))
    cause = Cause(CauseKind.WEBHOOK, event.id, editor(event.by))
    expected = event.expected(now, tolerance)
    return [WorkItem(key, lane, expected=expected, cause=cause, delivery=delivery) for key, lane in items]


def _is_entitlement(fields: dict[str, Any] | None) -> bool:
    return fields is not None and fields.get("_type", ENTITLEMENT) == ENTITLEMENT


def _subject(fields: dict[str, Any] | None) -> Subject | None:
    if fields is None:
        return None
    try:
        return SubjectFields.model_validate(fields).subject()
    except (ValidationError, InvalidSubject):
        return None

"""The routes that take webhooks: size, signature, mark, answer.

Why it exists: a webhook is a poke. It is answered 2xx only once the mark is durable, and 4xx only when repeating it
could never help, because Sanity never repeats a delivery that was answered 4xx. Our own trouble is always 503. Nothing
is read from Sanity or Clerk here; what a mark leads to is `worker`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse

from sync_worker.errors import DatabaseUnavailable, InvalidSubject
from sync_worker.model import Witness
from sync_worker.rows import SubjectFields
from sync_worker.signatures import verify_sanity
from sync_worker.workset import Mark

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from starlette.requests import Request

    from sync_worker.model import Subject
    from sync_worker.workset import WorkSet

BODY_LIMIT = 256 * 1024
RETRY_AFTER = "5"
ENTITLEMENT = "entitlement"
log = structlog.get_logger("receiver")


class Delivery(BaseModel):
    """The signed body, as `groq/webhook_projection.groq` makes it."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    operation: Literal["create", "update", "delete"]
    project_id: str = Field(alias="projectId")
    dataset: str
    id: str = Field(pattern=r"^[A-Za-z0-9._-]{1,256}$")
    type: str
    rev: str | None = Field(pattern=r"^[A-Za-z0-9._-]{0,256}$", default=None)
    updated_at: str | None = Field(alias="updatedAt", pattern=r"^[0-9TZ:.+-]{0,64}$", default=None)
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None

    @property
    def witness(self) -> Witness:
        """What a later read must show."""
        return Witness(self.id, self.rev or "", self.updated_at or "", deleted=self.operation == "delete")


@dataclass(frozen=True, slots=True)
class Receiver:
    """Takes Sanity's webhooks for one project and dataset."""

    workset: WorkSet
    secrets: Sequence[str]
    project_id: str
    dataset: str
    count: Callable[[str], None] = field(default=lambda _: None)

    async def sanity(self, request: Request) -> JSONResponse:
        """Answer POST /webhooks/sanity."""
        try:
            body = await read_body(request)
        except ClientDisconnect:
            return self._refuse(400, "incomplete")
        if body is None:
            return self._refuse(413, "body_too_large")
        if not self.secrets:
            log.error("webhook_secret_missing", next_step="set SANITY_WEBHOOK_SECRET")
            return self._unavailable("not_configured")
        if not verify_sanity(request.headers, body, self.secrets):
            return self._refuse(401, "bad_signature")
        delivery = parse(body)
        return self._refuse(400, "bad_body") if delivery is None else await self._accept(delivery)

    async def _accept(self, delivery: Delivery) -> JSONResponse:
        if not self._is_ours(delivery):
            self.count("ignored")
            log.info("webhook_ignored", document=delivery.id, dataset=delivery.dataset)
            return JSONResponse({"ok": True}, 202)
        try:
            await self.workset.mark(marks_of(delivery))
        except DatabaseUnavailable as error:
            log.error("webhook_not_accepted", code=error.code, detail=error.detail)  # noqa: TRY400 - the cause is the server
            return self._unavailable("unavailable")
        self.count("accepted")
        log.info("webhook_accepted", document=delivery.id, revision=delivery.rev, operation=delivery.operation)
        return JSONResponse({"ok": True}, 202)

    def _is_ours(self, delivery: Delivery) -> bool:
        return (
            delivery.project_id == self.project_id
            and delivery.dataset == self.dataset
            and not delivery.id.startswith(("drafts.", "versions."))
        )

    def _refuse(self, status: int, code: str) -> JSONResponse:
        self.count(code)
        log.warning("webhook_refused", code=code, status=status)
        return JSONResponse({"error": code}, status)

    def _unavailable(self, code: str) -> JSONResponse:
        self.count(code)
        return JSONResponse({"error": code}, 503, headers={"Retry-After": RETRY_AFTER})


async def read_body(request: Request) -> bytes | None:
    """Read the body as it streams in; None as soon as it is longer than the limit."""
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > BODY_LIMIT:
            return None
        chunks.append(chunk)
    return b"".join(chunks)


def parse(body: bytes) -> Delivery | None:
    """Read a signed body; None when it is not of our shape."""
    try:
        return Delivery.model_validate(json.loads(body))
    except (ValidationError, ValueError, RecursionError):
        return None


def marks_of(delivery: Delivery) -> list[Mark]:
    """Return what a delivery may have changed: the subjects before and after, or the document to fan out.

    An entitlement that names nobody we can address is marked as a document: the walk looks at it again and says why.
    """
    document = Mark(f"document:{delivery.id}", lane=1, witness=delivery.witness, cause=f"webhook:{delivery.id}")
    before, after = _subject(delivery.before), _subject(delivery.after)
    subjects = {subject for subject in (before, after) if subject is not None}
    marks = [
        Mark(str(subject), lane=0, witness=delivery.witness, cause=f"webhook:{delivery.id}")
        for subject in sorted(subjects)
    ]
    nameless = [fields for fields, who in ((delivery.before, before), (delivery.after, after)) if fields and not who]
    return [*marks, document] if nameless or not marks or delivery.type != ENTITLEMENT else marks


def _subject(fields: dict[str, Any] | None) -> Subject | None:
    if fields is None:
        return None
    try:
        return SubjectFields.model_validate(fields).subject()
    except (ValidationError, InvalidSubject):
        return None

"""Documents and subjects in some state, and their explanations."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from sync_worker.domain.subjects import Subject
from sync_worker.runtime.service import running_worker
from sync_worker.runtime.wiring import open_explainer
from sync_worker.storage.work_items import WorkItem
from tests.causes import cause_of

if TYPE_CHECKING:
    from sync_worker.diagnostics.explain_document import DocumentExplanation
    from sync_worker.diagnostics.explanation import Explanation
    from tests.parts import Parts


ADA = "ada@example.org"


async def sync(parts: Parts, *keys: str, cause: str = "") -> None:
    """Enqueue the keys, and run a worker until they are done."""
    await parts.store.queue.enqueue([WorkItem(key, lane=0, cause=cause_of(cause)) for key in keys])
    async with running_worker(parts.settings, parts.store):
        for key in keys:
            while (row := await parts.store.queue.get(key)) and row.pending and not row.dead:
                await parts.store.database.changed(0.05)


async def document(parts: Parts, id_: str) -> DocumentExplanation:
    async with open_explainer(parts.settings, parts.store, patience=2) as explainer:
        return await explainer.document(id_)


async def subject(parts: Parts, key: str) -> Explanation:
    async with open_explainer(parts.settings, parts.store, patience=2) as explainer:
        return await explainer.subject(Subject.parse(key))


def ahead(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()

"""Finds what somebody typed: a subject, a document, or people and organizations by name."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sync_worker.clerk.directory import is_searchable
from sync_worker.diagnostics.explainer import parse_target
from sync_worker.domain.subjects import Subject
from sync_worker.errors import InvalidSubject, NobodyFound, SyncWorkerError
from sync_worker.storage.work_items import FANOUT

if TYPE_CHECKING:
    from sync_worker.clerk.directory import Directory, Listing
    from sync_worker.diagnostics.explainer import Explainer


@dataclass(frozen=True, slots=True)
class LookUp:
    """Finds subjects and documents. An id wins over a name: a document that is known is not searched as a name."""

    explainer: Explainer
    directory: Directory

    async def find(self, text: str) -> Subject | str | list[Listing]:
        """Return a subject, a document id, or several matches by name.

        Raises NobodyFound, and, if the text can only be a name, what prevents the search.
        """
        text = text.strip()
        try:
            target: Subject | str | None = parse_target(text)
        except InvalidSubject:
            if not is_searchable(text):
                raise
            target = None
        if isinstance(target, Subject) or (target and (text.startswith(FANOUT) or await self.explainer.knows(target))):
            return target
        try:
            async with asyncio.timeout(self.explainer.patience):
                found = await self._named(text)
        except (SyncWorkerError, TimeoutError):
            if target:
                return target
            raise
        if len(found) == 1:
            return Subject.parse(found[0].id)
        if not found and not target:
            raise NobodyFound
        return found or target or ""

    async def _named(self, text: str) -> list[Listing]:
        people, organizations = await asyncio.gather(
            self.directory.search_people(text), self.directory.search_organizations(text)
        )
        return [*sorted(people, key=_by_name), *sorted(organizations, key=_by_name)]


def _by_name(one: Listing) -> tuple[str, str]:
    return one.name.casefold(), one.id

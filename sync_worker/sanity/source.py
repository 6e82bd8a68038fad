"""What the program reads from Sanity, whatever answers: snapshots, pages, and the port that returns them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from sync_worker.domain.freshness import DocumentRevision, Stored
    from sync_worker.domain.subjects import Subject


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One query result: raw rows, the revisions of the expected documents, and the count of all visible entitlements.

    `addressed` counts those that name a user by e-mail address or external id, `addressed_members` those that name a
    member of an organization in this way.
    """

    rows: tuple[Mapping[str, Any], ...]
    revisions: Mapping[str, DocumentRevision]
    visible: int
    addressed: int
    addressed_members: int


@dataclass(frozen=True, slots=True)
class Page:
    """One page of rows, ordered by `_id`. `between` are the ids of documents that lead to further entitlements.

    `remaining` counts the rows from here on, including this page; `visible` all entitlements, if the query counts them.
    """

    rows: tuple[Mapping[str, Any], ...]
    remaining: int
    between: tuple[str, ...] = ()
    revisions: Mapping[str, DocumentRevision] | None = None
    visible: int | None = None
    hidden: tuple[str, ...] = ()
    """The ids of rows that were on this page and do not count."""

    @property
    def last(self) -> bool:
        """Whether this is the last page."""
        return len(self.rows) + len(self.hidden) >= self.remaining

    @property
    def cursor(self) -> str:
        """The id after which the next page starts."""
        return max((*(str(row["_id"]) for row in self.rows[-1:]), *self.hidden[-1:]), default="")

    def without(self, ids: Collection[str]) -> Page:
        """Return the page without the rows of these documents."""
        rows = tuple(row for row in self.rows if row["_id"] not in ids)
        return replace(self, rows=rows, hidden=tuple(row["_id"] for row in self.rows if row["_id"] in ids))


class Source(Protocol):
    """The source of published entitlements."""

    async def by_subject(self, subjects: Collection[Subject], documents: Collection[str]) -> Snapshot:
        """Read the entitlements of `subjects`, and those among `documents` with their revisions, in one snapshot.

        `subjects` are users, organizations, memberships, and addresses without an organization.
        """

    async def by_address(self, addresses: Collection[Subject]) -> frozenset[str]:
        """Return the ids of the entitlements that name somebody by one of `addresses`, however they are written."""

    async def everything(self, after: str) -> Page:
        """Read the page of all entitlements whose ids follow `after`."""

    async def affected(self, documents: Collection[str], after: str, expected_revisions: Collection[str]) -> Page:
        """Read a page of the entitlements that reference one of `documents` or are one of them."""

    async def changed(self, since: str, after: str, before: str) -> tuple[Mapping[str, Any], ...]:
        """Read what was published between (`since`, `after`) and `before`: `_updatedAt` times, and an id for ties."""

    async def deleted(self, since: str, until: str) -> Mapping[str, str]:
        """Read from the transaction log which published documents were deleted between two times (RFC 3339), by whom.

        The ids of the documents, and of the Sanity users who deleted them last; empty where the log does not say.
        """

    async def stored(self, ids: Collection[str]) -> Stored:
        """Read documents by id from the strongly consistent store."""

"""Which published entitlements are for which subject, as the last run of each subject saw it.

A document that moved, was deleted or changed its type no longer says whom it was for, and its webhook may be lost. The
index does: so whatever reports a document also reaches those who had access by it. It also finds rows again whose ids
an index of Sanity cannot find, because an editor pasted them with spaces.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from sync_worker.storage.database import Database, Transaction

SUBJECTS_OF = "SELECT document, subject FROM access WHERE document IN (EACH(?)) ORDER BY document, subject"
DOCUMENTS_OF = "SELECT subject, document FROM access WHERE subject IN (EACH(?)) ORDER BY subject, document"
DOCUMENTS_AFTER = "SELECT DISTINCT document FROM access WHERE document > ? ORDER BY document LIMIT ?"
FORGET = "DELETE FROM access WHERE subject = ? AND document = ?"
REMEMBER = "INSERT INTO access (document, subject) VALUES (?, ?) ON CONFLICT (document, subject) DO NOTHING"


class AccessIndex:
    """The table `access`. Errors: DatabaseUnavailable."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def subjects_of(self, documents: Collection[str]) -> dict[str, list[str]]:
        """Return by document the subjects that it was for when they were last reconciled."""
        return await self._pairs(SUBJECTS_OF, documents)

    async def documents_of(self, subjects: Collection[str]) -> dict[str, list[str]]:
        """Return by subject the documents that were for it when it was last reconciled."""
        return await self._pairs(DOCUMENTS_OF, subjects)

    async def documents_after(self, document: str, limit: int) -> list[str]:
        """Return the documents of the index in order, from behind `document`."""
        return [row[0] for row in await self._db.read(lambda tx: tx.execute(DOCUMENTS_AFTER, (document, limit)))]

    async def add(self, pairs: Collection[tuple[str, str]]) -> None:
        """Record that documents are for subjects, beside what else is known of them: pairs of both."""
        if pairs:
            await self._db.run(lambda tx: tx.executemany(REMEMBER, sorted(pairs)))

    async def replace(self, before: Mapping[str, Collection[str]], after: Mapping[str, Collection[str]]) -> None:
        """Record by subject the documents that are for it now, where they differ from those before."""
        gone = sorted((s, d) for s in after for d in set(before.get(s, ())) - set(after[s]))
        new = sorted((d, s) for s in after for d in set(after[s]) - set(before.get(s, ())))

        def work(tx: Transaction) -> None:
            if gone:
                tx.executemany(FORGET, gone)
            if new:
                tx.executemany(REMEMBER, new)

        if gone or new:
            await self._db.run(work)

    async def _pairs(self, sql: str, keys: Collection[str]) -> dict[str, list[str]]:
        if not keys:
            return {}
        given = json.dumps(sorted(keys))
        found: dict[str, list[str]] = {}
        for key, value in await self._db.read(lambda tx: tx.execute(sql, (given,))):
            found.setdefault(key, []).append(value)
        return found

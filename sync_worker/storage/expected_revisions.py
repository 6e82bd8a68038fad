"""The revisions that reads of a subject must reflect: one row per subject and document.

Each function is called in a transaction that holds the subjects' rows of `work`, so no two of them merge at once.
"""

from __future__ import annotations

from collections import defaultdict
from operator import itemgetter
from typing import TYPE_CHECKING

from sync_worker.domain.revisions import Deletion, deletion_of, expected_revision, merge, revision_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sync_worker.domain.revisions import ExpectedRevision
    from sync_worker.storage.database import Transaction

Place = tuple[str, str]
"""The key of a subject, and the id of a document."""

# Add what is expected of a document of which nothing is expected yet: nearly always all that a webhook needs.
ADD = """
INSERT INTO expected_revision (key, document, revision, updated_at, deletion, generation)
VALUES (:key, :document, :revision, :updated_at, :deletion, (SELECT generation FROM work WHERE key = :key))
ON CONFLICT (key, document) DO NOTHING RETURNING key, document
"""

KNOWN = """
SELECT key, document, revision, updated_at, deletion, served_at FROM expected_revision
WHERE key = :key AND document = :document
"""

# Store what was merged. It counts as new: a run under way does not serve it.
REPLACE = """
UPDATE expected_revision SET revision = :revision, updated_at = :updated_at, deletion = :deletion,
  served_at = CASE WHEN :served = 1 THEN served_at END,
  generation = (SELECT generation FROM work WHERE key = :key)
WHERE key = :key AND document = :document
"""

OF_CLAIM = """
SELECT e.key, document, revision, updated_at, deletion, served_at
FROM expected_revision e JOIN work ON work.key = e.key WHERE work.lease_token = :token ORDER BY document
"""

# Remember that a finished run has served it: an older event may arrive later, or a read fall behind.
SERVE = """
UPDATE expected_revision SET served_at = NOW() WHERE key = :key AND generation <= :generation AND served_at IS NULL
"""

# Forget what was served long ago, and of the rest the oldest of more than so many documents.
TRIM = """
DELETE FROM expected_revision WHERE key = :key AND served_at IS NOT NULL AND (
  served_at < NOW() - :memory OR document IN (
    SELECT document FROM expected_revision WHERE key = :key AND served_at IS NOT NULL
    ORDER BY served_at DESC, document LIMIT 1000000 OFFSET :kept
  )
)
"""

# The row of an address goes as soon as it is looked up.
FORGET = """
DELETE FROM expected_revision WHERE key = :key AND NOT EXISTS (SELECT 1 FROM work WHERE work.key = :key)
"""


def expect(tx: Transaction, reported: Iterable[tuple[str, ExpectedRevision]]) -> None:
    """Merge what events reported, each for the subject with a key, into what is expected of the reads."""
    new: dict[Place, ExpectedRevision] = {}
    for key, expected in reported:
        place = key, expected.document
        new[place] = merge(new[place], expected) if place in new else expected
    if not new:
        return
    for place in tx.executemany(ADD, _parameters(new)):
        del new[place[0], place[1]]
    if new:
        for key, document, *row in tx.executemany(KNOWN, _parameters(new)):
            new[key, document] = merge(_expected(document, *row), new[key, document])
        tx.executemany(REPLACE, _parameters(new))


def of_claim(tx: Transaction, token: str) -> Mapping[str, tuple[ExpectedRevision, ...]]:
    """Return what the reads of the subjects claimed with `token` must reflect, by key."""
    expected: dict[str, tuple[ExpectedRevision, ...]] = defaultdict(tuple)
    for key, *row in tx.execute(OF_CLAIM, {"token": token}):
        expected[key] += (_expected(*row),)
    return expected


def _parameters(expected: Mapping[Place, ExpectedRevision]) -> list[dict[str, object]]:
    return [
        {
            "key": key,
            "document": document,
            "revision": revision_of(one),
            "updated_at": one.updated_at,
            "deletion": None if (deletion := deletion_of(one)) is None else deletion.value,
            "served": int(one.served),
        }
        for (key, document), one in sorted(expected.items(), key=itemgetter(0))
    ]


def _expected(
    document: str, revision: str | None, updated_at: int | None, deletion: int | None, served_at: float | None
) -> ExpectedRevision:
    known = None if deletion is None else Deletion(deletion)
    return expected_revision(document, revision, updated_at, known, served=served_at is not None)

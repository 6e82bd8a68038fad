from __future__ import annotations

import pytest

from sync_worker.domain.freshness import DocumentRevision, Stored, matches_store, reflects
from sync_worker.domain.revisions import Ambiguous, Deletion, ExpectedRevision, microseconds
from tests.expected import deleted, updated

OLD, NEW = "2026-05-01T12:00:00Z", "2026-05-01T12:00:01Z"
PUBLISHED = updated("e1", "r2", OLD)
DELETED = deleted("e1", "r2", OLD)
GONE_IN_A_MOMENT_OF_SEVERAL = Ambiguous("e1", microseconds(OLD), Deletion.REPORTED)


def shown(revision: str, updated_at: str) -> DocumentRevision:
    return DocumentRevision(revision, microseconds(updated_at))


@pytest.mark.parametrize(
    ("expected", "seen", "fresh"),
    [
        pytest.param(PUBLISHED, shown("r2", OLD), True, id="the published revision"),
        pytest.param(PUBLISHED, shown("r3", NEW), True, id="a later one"),
        pytest.param(PUBLISHED, shown("r1", "2026-05-01T11:59:59Z"), False, id="an earlier one"),
        pytest.param(PUBLISHED, shown("r1", OLD), False, id="another one of the same second"),
        pytest.param(PUBLISHED, None, False, id="not there yet, or deleted since"),
        pytest.param(DELETED, None, True, id="gone after a delete"),
        pytest.param(DELETED, shown("r2", OLD), False, id="still there after a delete"),
        pytest.param(
            Ambiguous("e1", microseconds(OLD), Deletion.REPORTED),
            None,
            False,
            id="gone in a moment of several revisions",
        ),
        pytest.param(DELETED, shown("r3", NEW), True, id="created again after a delete"),
        pytest.param(
            updated("e1", "r2"),
            shown("r2", OLD),
            True,
            id="the revision, when the event had no time",
        ),
        pytest.param(updated("e1", "r2", "odd"), shown("r1", "odd"), False, id="times that cannot be read"),
        pytest.param(PUBLISHED, shown("r3", "2026-05-01T12:00:00.001Z"), True, id="a millisecond later"),
    ],
)
def test_a_read_reflects_the_expected_revision_or_is_stale(
    expected: ExpectedRevision, seen: DocumentRevision | None, fresh: bool
) -> None:
    assert reflects({"e1": seen} if seen else {}, expected) is fresh


@pytest.mark.parametrize(
    ("seen", "stored", "missing", "equal"),
    [
        pytest.param("r2", "r2", False, True, id="both the same"),
        pytest.param("r1", "r2", False, False, id="the index is behind"),
        pytest.param(None, "r2", False, False, id="the index does not have it yet"),
        pytest.param(None, None, True, True, id="proven gone"),
        pytest.param("r1", None, True, False, id="the index still has it"),
        pytest.param(None, None, False, False, id="not readable proves nothing"),
    ],
)
def test_the_document_store_decides(seen: str | None, stored: str | None, missing: bool, equal: bool) -> None:
    store = Stored({"e1": shown(stored, OLD)} if stored else {}, frozenset({"e1"} if missing else ()))
    assert matches_store({"e1": shown(seen, OLD)} if seen else {}, store, "e1") is equal

from __future__ import annotations

import pytest

from sync_worker.domain.entitlements import ExpectedRevision
from sync_worker.domain.freshness import DocumentRevision, Stored, matches_store, reflects

OLD, NEW = "2026-05-01T12:00:00Z", "2026-05-01T12:00:01Z"
PUBLISHED = ExpectedRevision("e1", "r2", OLD)
DELETED = ExpectedRevision("e1", "r2", OLD, deleted=True)


@pytest.mark.parametrize(
    ("expected", "seen", "fresh"),
    [
        pytest.param(PUBLISHED, DocumentRevision("r2", OLD), True, id="the published revision"),
        pytest.param(PUBLISHED, DocumentRevision("r3", NEW), True, id="a later one"),
        pytest.param(PUBLISHED, DocumentRevision("r1", "2026-05-01T11:59:59Z"), False, id="an earlier one"),
        pytest.param(PUBLISHED, DocumentRevision("r1", OLD), False, id="another one of the same second"),
        pytest.param(PUBLISHED, None, False, id="not there yet, or deleted since"),
        pytest.param(DELETED, None, True, id="gone after a delete"),
        pytest.param(DELETED, DocumentRevision("r2", OLD), False, id="still there after a delete"),
        pytest.param(
            ExpectedRevision("e1", "", OLD, deleted=True), None, False, id="gone in a moment of several revisions"
        ),
        pytest.param(DELETED, DocumentRevision("r3", NEW), True, id="created again after a delete"),
        pytest.param(
            ExpectedRevision("e1", "r2"),
            DocumentRevision("r2", OLD),
            True,
            id="the revision, when the event had no time",
        ),
        pytest.param(
            ExpectedRevision("e1", "r2", "odd"), DocumentRevision("r1", "odd"), False, id="times that cannot be read"
        ),
        pytest.param(PUBLISHED, DocumentRevision("r3", "2026-05-01T12:00:00.001Z"), True, id="a millisecond later"),
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
    store = Stored({"e1": DocumentRevision(stored, OLD)} if stored else {}, frozenset({"e1"} if missing else ()))
    assert matches_store({"e1": DocumentRevision(seen, OLD)} if seen else {}, store, "e1") is equal

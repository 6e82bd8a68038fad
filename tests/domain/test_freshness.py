from __future__ import annotations

import pytest

from sync_worker.domain.freshness import Sighting, Stored, agrees, shows
from sync_worker.domain.model import Witness

OLD, NEW = "2026-05-01T12:00:00Z", "2026-05-01T12:00:01Z"
PUBLISHED = Witness("e1", "r2", OLD)
DELETED = Witness("e1", "r2", OLD, deleted=True)


@pytest.mark.parametrize(
    ("witness", "seen", "fresh"),
    [
        pytest.param(PUBLISHED, Sighting("r2", OLD), True, id="the published revision"),
        pytest.param(PUBLISHED, Sighting("r3", NEW), True, id="a later one"),
        pytest.param(PUBLISHED, Sighting("r1", "2026-05-01T11:59:59Z"), False, id="an earlier one"),
        pytest.param(PUBLISHED, Sighting("r1", OLD), False, id="another one of the same second"),
        pytest.param(PUBLISHED, None, False, id="not there yet, or deleted since"),
        pytest.param(DELETED, None, True, id="gone after a delete"),
        pytest.param(DELETED, Sighting("r2", OLD), False, id="still there after a delete"),
        pytest.param(Witness("e1", "", OLD, deleted=True), None, False, id="gone in a moment of several revisions"),
        pytest.param(DELETED, Sighting("r3", NEW), True, id="created again after a delete"),
        pytest.param(Witness("e1", "r2"), Sighting("r2", OLD), True, id="the revision, when the event had no time"),
        pytest.param(Witness("e1", "r2", "odd"), Sighting("r1", "odd"), False, id="times that cannot be read"),
        pytest.param(PUBLISHED, Sighting("r3", "2026-05-01T12:00:00.001Z"), True, id="a millisecond later"),
    ],
)
def test_a_read_shows_a_witness_or_is_stale(witness: Witness, seen: Sighting | None, fresh: bool) -> None:
    assert shows({"e1": seen} if seen else {}, witness) is fresh


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
    store = Stored({"e1": Sighting(stored, OLD)} if stored else {}, frozenset({"e1"} if missing else ()))
    assert agrees({"e1": Sighting(seen, OLD)} if seen else {}, store, "e1") is equal

"""How long a publish took, counted from its events."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from sync_worker.domain.subjects import Subject
from sync_worker.sync.outcome import Due, Outcome
from tests.expected import deleted, updated
from tests.leases import lease_of

if TYPE_CHECKING:
    from sync_worker.domain.revisions import ExpectedRevision

USER = Subject.parse("user:user_1")
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def seconds(after_noon: float) -> float:
    return NOON.timestamp() + after_noon


def published(document: str, after_noon: float, *, delete: bool = False) -> ExpectedRevision:
    event = deleted if delete else updated
    return event(document, "r", (NOON + timedelta(seconds=after_noon)).isoformat())


def outcome(*expected_revisions: ExpectedRevision, enqueued: float | None, written: float | None) -> Outcome:
    due = Due(USER, lease_of(str(USER)), expected_revisions, since=None if enqueued is None else seconds(enqueued))
    return Outcome(due, written=None if written is None else NOON + timedelta(seconds=written))


def test_a_publish_counts_from_its_time_in_sanity_and_not_from_its_webhook() -> None:
    assert outcome(published("e1", 0), enqueued=5, written=7).publish_latency_seconds == 7


def test_of_several_publishes_the_oldest_counts() -> None:
    assert outcome(published("e1", 3), published("e2", 1), enqueued=4, written=7).publish_latency_seconds == 6


def test_a_publish_that_a_later_one_of_the_same_document_overtook_still_counts_from_its_item() -> None:
    assert outcome(published("e1", 60), enqueued=2, written=61).publish_latency_seconds == 59


def test_a_delete_counts_from_its_item_because_its_time_is_that_of_the_last_edit() -> None:
    assert outcome(published("e1", -86_400, delete=True), enqueued=2, written=3).publish_latency_seconds == 1


@pytest.mark.parametrize("text", ["", "yesterday"])
def test_a_publish_without_a_time_that_can_be_read_counts_from_its_item(text: str) -> None:
    assert outcome(updated("e1", "r", text), enqueued=2, written=3).publish_latency_seconds == 1


def test_a_clock_that_is_ahead_makes_no_publish_faster_than_its_item() -> None:
    assert outcome(published("e1", 30), enqueued=2, written=3).publish_latency_seconds == 1


def test_what_no_publish_led_to_has_no_such_time_but_a_wait() -> None:
    window = outcome(enqueued=2, written=3)
    assert (window.publish_latency_seconds, window.queue_seconds) == (None, 1)


def test_what_was_not_written_took_no_time() -> None:
    unwritten = outcome(published("e1", 0), enqueued=2, written=None)
    assert (unwritten.publish_latency_seconds, unwritten.queue_seconds) == (None, None)

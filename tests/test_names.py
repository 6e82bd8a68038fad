"""One idea has one name, the field's own: names that were given up do not come back."""

from __future__ import annotations

import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("sync_worker", "tests", "bench")
SOURCES = sorted(
    path
    for folder in FOLDERS
    for path in (ROOT / folder).rglob("*.py")
    if path != Path(__file__) and "node_modules" not in path.parts
)
PYTEST_NAMES = {"mark", "marks"}

GIVEN_UP = {
    "Admission": "Authenticator",
    "Attempts": "Jobs",
    "Converge": "Reconciler",
    "Done": "Completed",
    "Glance": "StatusReader",
    "Good": "LastSuccess",
    "Guesses": "LoginThrottle",
    "Heard": "Liveness",
    "Holders": "AddressOwners",
    "Inquiry": "Explainer",
    "LANDS_WITHIN": "Timings.max_write_delay",
    "Mark": "WorkItem",
    "Named": "Resolution",
    "Overview": "QueueAdmin",
    "Patient": "Installation",
    "SHARED": "AMBIGUOUS_ADDRESS",
    "Settlement": "Completion",
    "Sighting": "DocumentRevision",
    "Totals": "Counters",
    "Witness": "ExpectedRevision",
    "WorkSet": "WorkQueue",
    "_giving_back": "release_on_error",
    "_had": "former_members",
    "_leave_alone": "record_retry_after",
    "_where_addresses_count": "expand_changed_addresses",
    "agrees": "matches_store",
    "alone": "exclusive_run",
    "asked": "retry_after",
    "assigned": "rows_for_owner",
    "blind": "dataset_empty",
    "deaf": "is_listening",
    "foreign": "unmanaged",
    "gained": "added_sources",
    "hears": "is_listening",
    "held_by": "for_user",
    "left_to_the_worker": "deferred_to_worker",
    "look_again": "requeue_after_empty_read",
    "mark": "enqueue",
    "marks": "items",
    "moved": "requeue_reassigned_documents",
    "nothing_visible": "dataset_empty",
    "ours": "managed",
    "paced": "next_write_at",
    "release_gone": "reclaim_orphaned",
    "room": "slots",
    "run_broken": "run_crashed",
    "saw_nothing": "report_empty_read",
    "screen": "review",
    "seize": "enqueue_and_claim",
    "settlement": "completion",
    "shows": "reflects",
    "sightings": "revisions",
    "since_publish": "publish_latency_seconds",
    "tell_of_document": "log_resolution",
    "tell_of_subject": "log_outcome",
    "tied": "is_ambiguous",
    "told": "payload, result, or on_applied",
    "unannounced": "missed_webhooks",
    "visible_again": "dataset_visible_again",
    "waited": "queue_seconds",
    "webhook_silent": "missed_webhook_detected",
    "witness": "expected",
    "witnesses": "expected_revisions",
    "work_stopped": "worker_paused",
    "workset": "queue",
}
"""What each became."""


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_name_that_was_given_up_is_not_used(path: Path) -> None:
    with path.open("rb") as file:
        names = {(token.string, token.start[0]) for token in tokenize.tokenize(file.readline)}
    given_up = GIVEN_UP.keys() - (PYTEST_NAMES if "tests" in path.relative_to(ROOT).parts else set())
    assert [f"{line}: {name} is now {GIVEN_UP[name]}" for name, line in sorted(names) if name in given_up] == []

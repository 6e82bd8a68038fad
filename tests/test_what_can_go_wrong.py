"""Each row of the table in docs/operations.md is a test: what it promises to say is said.

REPORTED ties a row, by its first cell, to a test that contains a word of the row's second cell.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

from sync_worker.diagnostics.issues import IssueKind
from sync_worker.diagnostics.metrics import NAMES
from sync_worker.errors import SyncWorkerError
from sync_worker.webhooks.receiver import REFUSALS
from tests.test_docs import DOCS, commands
from tests.test_logs_documented import logged

TESTS = Path(__file__).parent
TROUBLE = "test_reported_trouble.py"

REPORTED = {
    "the webhook is off, or posts elsewhere": (
        "triggers/test_poll.py::test_a_publish_whose_webhook_was_lost_is_found_and_reported",
        "missed_webhook_detected",
    ),
    "the webhook's URL has a wrong path": (
        "webhooks/test_receiver.py::test_a_webhook_to_a_wrong_path_is_logged_and_counted",
        "webhook_path_unknown",
    ),
    "the webhook's secret differs": (
        "webhooks/test_receiver.py::test_without_a_good_signature_nothing_is_enqueued",
        "bad_signature",
    ),
    "the webhook's secret is not set": (
        f"{TROUBLE}::test_a_secret_that_is_not_set_is_named",
        "webhook_secret_missing",
    ),
    "Clerk's webhooks are of another instance": (
        "webhooks/test_clerk_events.py::test_events_of_another_instance_are_ignored",
        "webhook_ignored",
    ),
    "the listen stream breaks": (f"{TROUBLE}::test_a_stream_that_breaks_goes_on", "listener_reconnects"),
    "Sanity refuses the listen stream": (f"{TROUBLE}::test_a_stream_that_is_refused_is_logged", "listener_refused"),
    "the transaction log cannot be read": (
        f"{TROUBLE}::test_a_transaction_log_that_cannot_be_read_is_logged",
        "transaction_log_unavailable",
    ),
    "the database is down, full or removed": (
        f"{TROUBLE}::test_webhooks_that_the_database_cannot_keep_are_logged",
        "webhook_not_accepted",
    ),
    "a key or token is refused, or a GROQ file is invalid": (
        "worker/test_loop.py::test_401_stops_the_work_loudly_and_it_goes_on_when_the_key_is_right_again",
        "worker_paused",
    ),
    "a process has other settings than the database remembers": (
        f"{TROUBLE}::test_other_settings_than_the_database_remembers_pause_the_worker",
        "worker_paused",
    ),
    "another installation manages the same keys": (
        "cli/test_failed.py::test_everything_that_a_reconcile_refuses_is_listed_and_counted_until_it_is_repaired",
        "managed_elsewhere",
    ),
    "the app has a value where the namespace would be": (
        "sync/test_ownership.py::test_a_namespace_named_like_a_key_of_the_app_is_refused",
        "namespace_occupied",
    ),
    "the webhook's filter or projection, or a query, leaves something out": (
        "cli/test_verbs.py::test_release_finds_what_a_webhook_would_not_report",
        "release",
    ),
    "a field is empty in every row, or a plan is on no list": (
        "cli/test_verbs.py::test_empty_fields_and_plans_on_no_list_are_reported_before_anything_is_written",
        "release",
    ),
    "no worker runs": ("webhooks/test_health.py::test_readyz_says_that_no_worker_is_there", "/readyz"),
    "a process was killed": (f"{TROUBLE}::test_work_of_a_killed_process_is_reclaimed", "orphans_reclaimed"),
    "Sanity or Clerk is down": (f"{TROUBLE}::test_a_service_that_is_down_is_logged", "run_failed"),
    "Clerk answers 429": (f"{TROUBLE}::test_a_429_of_clerk_is_logged", "rate_limited"),
    "Clerk refuses a write": (f"{TROUBLE}::test_a_write_that_clerk_refuses_is_logged", "subject_failed"),
    "no entitlement is visible": (
        "worker/test_expected_reads.py::test_where_nothing_is_visible_and_nothing_was_deleted_access_stays",
        "dataset_empty",
    ),
    "most entitlements are gone": (
        "cli/test_reconcile_trouble.py::test_fewer_than_half_of_the_last_good_run_takes_nothing_away",
        "Far fewer entitlements are visible",
    ),
    "everybody would lose one key": (
        f"{TROUBLE}::test_a_reconcile_in_which_everybody_loses_a_key_says_so",
        "Everybody who stays entitled would lose the same key",
    ),
    "many would lose access": (f"{TROUBLE}::test_losses_that_are_held_are_logged", "losses_held"),
    "values of an old webhook handler stay": (
        f"{TROUBLE}::test_that_nothing_has_reconciled_yet_is_logged",
        "never_reconciled",
    ),
    "the reconcile is old or failed": (
        "diagnostics/test_situations.py::test_an_overdue_reconcile_is_news_every_day",
        "reconcile_overdue",
    ),
    "a document is invalid": ("worker/test_worker_logs.py::test_no_address_and_no_key_is_in_the_log", "row_refused"),
    "references lead nowhere": (
        "diagnostics/test_explain_document.py::test_unresolved_references_are_noted_until_they_resolve",
        "references_unresolved",
    ),
    "a subject's access is too large for a session": (
        "worker/test_worker_logs.py::test_claims_that_would_not_fit_a_cookie_are_written_and_logged_with_their_size",
        "claims_large",
    ),
    "a subject's access is larger than 8 KB": (
        "worker/test_loop.py::test_more_than_clerk_stores_is_refused_by_name_and_nothing_is_written",
        "access_too_large",
    ),
    "a bug": ("worker/test_worker_logs.py::test_a_bug_is_logged_with_its_subjects_but_no_address", "run_crashed"),
}


def rows() -> dict[str, str]:
    """Return what says so, by what can go wrong."""
    _, _, section = (DOCS / "operations.md").read_text().partition("\n## What can go wrong\n")
    table, _, _ = section.partition("\n## ")
    cells = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("| ")][1:]
    return {first.strip(): second.strip() for first, second, _ in cells}


def source_of(test: str) -> str:
    file, _, name = test.partition("::")
    text = (TESTS / file).read_text()
    found = [
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name
    ]
    assert found, f"there is no test {test}"
    return ast.get_source_segment(text, found[0]) or ""


def test_each_row_has_a_test_that_sees_what_the_row_promises() -> None:
    table = rows()
    assert list(table) == list(REPORTED)
    assert [row for row, (_, word) in REPORTED.items() if word not in table[row]] == []
    assert [test for test, word in REPORTED.values() if word not in source_of(test)] == []


def test_what_the_rows_name_is_in_the_product() -> None:
    errors = {re.sub(r"(?<!^)(?=[A-Z])", "_", one.__name__).lower() for one in _errors(SyncWorkerError)}
    known = logged() | NAMES | errors | {*REFUSALS, *map(str, IssueKind), "/readyz", "/status"}
    known |= {*commands(), *(f"sync-worker {name}" for name in commands())}
    named = {word for says_so in rows().values() for word in re.findall(r"`([^`]+)`", says_so)}
    assert {word for word in named - known if not _is_message(word)} == set()


def _errors(base: type[SyncWorkerError]) -> list[type[SyncWorkerError]]:
    return [one for sub in base.__subclasses__() for one in (sub, *_errors(sub))]


def _is_message(text: str) -> bool:
    return any(one.headline().startswith(text) for one in _errors(SyncWorkerError))

"""Bugs that are planted into the worker to prove that the simulation would catch them.

Each has on record a seed, and a number of its steps, that break one of its rules; that they break none without the bug
is proven by the worlds that are run beside the tests. When a change of the worker lets that seed happen another way,
`python -m tests.sim --bugs` searches for seeds to record instead.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from sync_worker.clerk import client as clerk
from sync_worker.domain import diff, ownership
from sync_worker.domain.lease import Lease
from sync_worker.domain.ownership import NOTHING_WRITTEN, Adoption
from sync_worker.sanity import client as sanity
from sync_worker.storage import expected_revisions, queue_statements
from sync_worker.storage.access_index import AccessIndex
from sync_worker.storage.approvals import Approvals
from sync_worker.storage.installation import InstallationRecord
from sync_worker.storage.ledger import Ledger
from sync_worker.storage.rate_limit import Budget
from sync_worker.sync import document_events, fresh_reads, plan, reconciler
from sync_worker.sync.guard import Guard
from sync_worker.triggers.deletes import Deletes
from sync_worker.webhooks import receiver
from sync_worker.worker import comparison
from tests.sim.lake import PAGE
from tests.sim.run import STEPS, config_of, run, trace_of
from tests.sim.truth import OTHER_SOURCE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    import httpx

    from sync_worker.domain.entitlements import Layout, Observed
    from sync_worker.domain.ownership import LastWrites, Managed
    from sync_worker.domain.revisions import ExpectedRevision
    from sync_worker.sanity.source import Page, Source
    from sync_worker.storage.ledger import Entry
    from sync_worker.storage.work_items import WorkItem
    from sync_worker.sync.document_events import DocumentEvent
    from sync_worker.sync.outcome import Outcome
    from tests.sim.run import Outcome as Ended

FORGET_UPDATES = """
DELETE FROM expected_revision WHERE key = :key AND generation <= :generation AND deletion IS NULL
"""
Plant = tuple[object, str, object]
"""Where, under which name, what instead."""


@dataclass(frozen=True)
class Bug:
    """One bug. `rules` are those of which it must break one in the first `steps` of `seed`, or when they are over."""

    seed: int
    steps: int
    plants: tuple[Plant, ...]
    rules: tuple[str, ...]


def believe_any_read(_: Mapping[str, object], __: ExpectedRevision) -> bool:
    return True


def forget_who_had_it(event: DocumentEvent, delivery: str, *when: float) -> Sequence[WorkItem]:
    reported = event.model_copy(update={"before": None}) if event.after else event
    return original_marks_of(reported, delivery, *when)


def never_look_at_the_lease(_: Lease) -> None:
    return


def end_at_a_short_page(result: Mapping[str, Any]) -> Page:
    page = original_page(result)
    return replace(page, remaining=len(page.rows) + (len(page.rows) == PAGE))


def forget_retry_after(response: httpx.Response, _: float | None) -> Exception | None:
    return original_explain(response, None)


async def take_emptiness_for_the_truth(_: Source, outcomes: list[Outcome], *__: object) -> list[Outcome]:
    return outcomes


async def take_without_asking(_: Budget, __: int = 0) -> None:
    return


async def intend_later(_: Ledger, entries: Iterable[Entry]) -> list[int]:
    return [0 for _ in entries]


async def intend_for_anybody(ledger: Ledger, entries: Sequence[Entry]) -> list[int | None]:
    return await original_intend(ledger, [replace(entry, lease="") for entry in entries])


def manage_every_value(observed: Observed, layout: Layout, *given: Any) -> Managed:
    written = given[0] if given else NOTHING_WRITTEN
    return original_managed(observed, layout, written, Adoption(unmarked=True))


def trust_only_the_marker(_: Iterable[Entry]) -> dict[str, LastWrites]:
    return {}


def take_over_from_others(observed: Observed, layout: Layout, *given: Any) -> Managed:
    written = given[0] if given else NOTHING_WRITTEN
    return original_managed(observed, layout, written, Adoption(source=OTHER_SOURCE))


async def count_no_loss(_: Guard, __: str, ___: Sequence[str]) -> str:
    return ""


async def forget_lists(_: Approvals, __: Collection[str]) -> dict[str, str]:
    return {}


def always(*_: object) -> bool:
    return True


async def keep_lists(_: Guard, __: Sequence[Outcome]) -> None:
    return


async def take_an_unreadable_log_for_an_empty_one(deletes: Deletes, *gap: str) -> Mapping[str, str]:
    return await original_logged(deletes, *gap) or {}


async def look_at_entitlements_alone(_: Deletes, __: Collection[str]) -> bool:
    return False


async def forget_whom_it_was_for(_: AccessIndex, __: Collection[str]) -> dict[str, list[str]]:
    return {}


async def write_under_any_settings(_: InstallationRecord, **__: str) -> None:
    return


original_logged = Deletes._logged
original_explain = clerk.error_from_response
original_intend = Ledger.intend
original_managed = ownership.managed
original_marks_of = document_events.items_of
original_page = sanity._page

BUGS = {
    "skip the witness check": Bug(
        6,
        25,
        ((fresh_reads, "reflects", believe_any_read),),
        ("no write from a stale read", "right after a quiet while"),
    ),
    "forget the subject before a move": Bug(
        19,
        50,
        ((receiver, "items_of", forget_who_had_it),),
        ("no write from a stale read", "right after a quiet while", "right without a reconcile"),
    ),
    "finish without the generation check": Bug(
        2,
        25,
        ((queue_statements, "REQUEUE", queue_statements.COMPLETE),),
        ("everything comes to an end",),
    ),
    "ignore Retry-After": Bug(
        28,
        25,
        ((clerk, "error_from_response", forget_retry_after),),
        ("Retry-After is honoured", "a pause is kept"),
    ),
    "ignore the pace of a subject": Bug(
        3,
        25,
        ((queue_statements, "WAIT_FOR_PACE", "UPDATE work SET next_write_at = 0 WHERE key = :key"),),
        ("writes of a subject are paced", "Retry-After is honoured"),
    ),
    "ignore the budget": Bug(
        5,
        25,
        ((Budget, "take", take_without_asking),),
        ("the budget is kept", "a pause is kept"),
    ),
    "revoke on an empty read": Bug(
        275,
        25,
        ((reconciler, "prove_emptiness", take_emptiness_for_the_truth),),
        ("a write is what a read showed",),
    ),
    "end at a short page": Bug(
        207,
        25,
        ((sanity, "_page", end_at_a_short_page),),
        ("right after a quiet while", "right without a reconcile", "right after a reconcile"),
    ),
    "drop both lease checks": Bug(
        97,
        100,
        ((Lease, "ensure_held", never_look_at_the_lease), (Ledger, "intend", intend_for_anybody)),
        (
            "one write of a subject at a time",
            "a write follows a ledger row",
            "a write is what a read showed",
            "no write from a stale read",
        ),
    ),
    "write before the ledger": Bug(
        1,
        25,
        ((Ledger, "intend", intend_later),),
        ("a write follows a ledger row",),
    ),
    "manage every key that has a value": Bug(
        2,
        25,
        ((diff, "managed", manage_every_value),),
        ("unmanaged keys stay as they are",),
    ),
    "trust only the marker": Bug(
        28,
        25,
        ((plan, "last_writes", trust_only_the_marker), (comparison, "last_writes", trust_only_the_marker)),
        ("right after a quiet while", "right without a reconcile", "right after a reconcile"),
    ),
    "revoke another installation's keys": Bug(
        10,
        25,
        ((diff, "managed", take_over_from_others),),
        ("another installation's keys stay as they are", "only managed keys are written"),
    ),
    "count nobody's losses": Bug(
        59,
        25,
        ((Guard, "verdict", count_no_loss),),
        ("no cause takes more than it may",),
    ),
    "keep lists of those who would lose nothing": Bug(
        56,
        25,
        ((Guard, "withdraw", keep_lists),),
        ("a list is withdrawn once nothing would be lost",),
    ),
    "take every loss for the own end": Bug(
        129,
        50,
        ((Guard, "_ended", always),),
        ("no cause takes more than it may",),
    ),
    "take what is held for approved": Bug(
        6,
        50,
        ((Guard, "_is_approved", always),),
        ("what is held waits for approval",),
    ),
    "forget what is held": Bug(
        18,
        25,
        ((Approvals, "held_of", forget_lists), (Approvals, "lists_of", forget_lists)),
        ("what is held waits for approval",),
    ),
    "forget served updates": Bug(
        59,
        25,
        ((expected_revisions, "SERVE", FORGET_UPDATES),),
        ("no write from a stale read", "right after a quiet while"),
    ),
    "take a log error for no deletes": Bug(
        16,
        25,
        ((Deletes, "_logged", take_an_unreadable_log_for_an_empty_one),),
        ("right without a reconcile", "right after a quiet while"),
    ),
    "ignore the deletes of what entitlements refer to": Bug(
        206,
        100,
        ((Deletes, "_are_referred_to", look_at_entitlements_alone),),
        ("right without a reconcile", "right after a quiet while"),
    ),
    "forget whom a document was for": Bug(
        8,
        25,
        ((AccessIndex, "subjects_of", forget_whom_it_was_for),),
        ("right without a reconcile", "right after a quiet while"),
    ),
    "write under other settings": Bug(
        3,
        25,
        ((InstallationRecord, "ensure", write_under_any_settings),),
        ("nothing is written under settings that were replaced",),
    ),
}
LENGTHS = (25, 50, 100, 200, STEPS)
"""How many steps a search tries: a short world ends soon, and what is wrong in the end is found as well."""
SEARCHED = 300
"""How many seeds a search tries of each length."""


def run_with(name: str, seed: int, steps: int) -> Ended:
    """Run a seed with this bug planted."""
    with ExitStack() as planted:
        for where, what, instead in BUGS[name].plants:
            planted.enter_context(patch.object(where, what, instead))
        config = config_of(seed)
        return run(config, trace_of(config, steps))


def broken_by(name: str) -> str:
    """Return the rule that the bug breaks at the seed on record; empty when it breaks none."""
    broken = run_with(name, BUGS[name].seed, BUGS[name].steps).broken
    return broken[0] if broken else ""


def search(name: str) -> tuple[int, int, str]:
    """Return the first seed among the shortest worlds that catch the bug, their steps, and the rule."""
    for steps in LENGTHS:
        for seed in range(SEARCHED):
            broken = None if config_of(seed).real_clients else run_with(name, seed, steps).broken
            if broken and broken[0] in BUGS[name].rules:
                return seed, steps, broken[0]
    return -1, 0, "no rule is broken"

"""Tests of the simulation: each bug that is planted here into the worker is caught within a few seeds, by its rule."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest

from sync_worker import attempt, clerk, converge, http, receiver, sanity, workset
from sync_worker.budget import Budget
from sync_worker.converge import Converge
from sync_worker.ledger import Ledger
from tests.sim.lake import PAGE
from tests.sim.run import config_of, run, trace_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import httpx

    from sync_worker.ledger import Entry
    from sync_worker.model import Witness
    from sync_worker.outcome import Outcome
    from sync_worker.receiver import DocumentEvent
    from sync_worker.sanity import Page
    from sync_worker.workset import Mark

Bug = tuple[object, str, object]


def believe_any_read(_: Mapping[str, object], __: Witness) -> bool:
    return True


def forget_who_had_it(event: DocumentEvent, delivery: str) -> Sequence[Mark]:
    told = event.model_copy(update={"before": None}) if event.after else event
    return original_marks_of(told, delivery)


def never_look_at_the_lease(*_: object) -> Callable[[], None]:
    return lambda: None


def end_at_a_short_page(result: Mapping[str, Any]) -> Page:
    page = original_page(result)
    return replace(page, remaining=len(page.rows) + (len(page.rows) == PAGE))


def forget_retry_after(response: httpx.Response, _: float | None) -> Exception | None:
    return original_explain(response, None)


async def take_emptiness_for_the_truth(_: Converge, outcomes: list[Outcome], *__: object) -> list[Outcome]:
    return outcomes


async def take_without_asking(_: Budget, __: int = 0) -> None:
    return


async def intend_later(_: Ledger, entries: Iterable[Entry]) -> list[int]:
    return [0 for _ in entries]


async def intend_for_anybody(ledger: Ledger, entries: Sequence[Entry]) -> list[int | None]:
    return await original_intend(ledger, [replace(entry, lease="") for entry in entries])


original_explain = clerk.explain
original_intend = Ledger.intend
original_marks_of = receiver.marks_of
original_page = sanity._page

BUGS: dict[str, tuple[Sequence[Bug], str]] = {
    "skip the witness check": (
        [(converge, "shows", believe_any_read)],
        "no write from a stale read|right after a quiet while",
    ),
    "forget the subject before a move": (
        [(receiver, "marks_of", forget_who_had_it)],
        "no write from a stale read|right after a quiet while|right without a reconcile",
    ),
    "finish without the generation check": (
        [(workset, "DONE", workset.DONE.replace("wanted > ?", "0 > ?"))],
        "everything comes to an end",
    ),
    "ignore Retry-After": (
        [(clerk, "explain", forget_retry_after)],
        "Retry-After is honoured|a pause is kept",
    ),
    "ignore the pace of a subject": (
        [(workset, "WROTE", "UPDATE work SET paced = 0 * (? + ? + ?) WHERE key = ?")],
        "writes of a subject are paced|Retry-After is honoured",
    ),
    "ignore the budget": (
        [(Budget, "take", take_without_asking)],
        "the budget is kept|a pause is kept",
    ),
    "revoke on an empty read": (
        [(Converge, "_prove_emptiness", take_emptiness_for_the_truth)],
        "a write is what a read showed",
    ),
    "end at a short page": (
        [(sanity, "_page", end_at_a_short_page)],
        "right after a quiet while|right without a reconcile|right after a reconcile",
    ),
    "drop both lease checks": (
        [(attempt, "lease_check", never_look_at_the_lease), (Ledger, "intend", intend_for_anybody)],
        (
            "one write of a subject at a time|a write follows a ledger row|a write is what a read showed"
            "|no write from a stale read"
        ),
    ),
    "write before the ledger": (
        [(Ledger, "intend", intend_later)],
        "a write follows a ledger row",
    ),
}
SEEDS = 120


def broken_by(bugs: Sequence[Bug], seed: int) -> str:
    """Return the rule that a seed breaks with the bugs planted; empty when it breaks none."""
    with ExitStack() as planted:
        for where, name, instead in bugs:
            planted.enter_context(patch.object(where, name, instead))
        config = config_of(seed)
        broken = run(config, trace_of(config)).broken
    return broken[0] if broken else ""


def caught(bugs: Sequence[Bug], seeds: Iterable[int]) -> tuple[int, str]:
    """Return the first seed that breaks a rule only with the bugs planted, and the rule."""
    for seed in seeds:
        rule = broken_by(bugs, seed)
        if rule and not broken_by((), seed):
            return seed, rule
    return -1, "nothing"


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_caught(bug: str) -> None:
    planted, rules = BUGS[bug]
    seed, rule = caught(planted, range(1000, 1000 + SEEDS))
    print(f"{bug}: seed {seed}, {rule}")
    assert rule in rules.split("|")


def test_without_a_planted_bug_nothing_is_caught() -> None:
    assert caught([(http, "SAFE_METHODS", http.SAFE_METHODS)], range(1000, 1003)) == (-1, "nothing")

"""What counts as a loss, and how a change is split into the part that gives and the part that takes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync_worker.domain.entitlements import CORE_FIELDS, Field, MergeRule
from sync_worker.domain.loss import Loss, giving, losses, taking

PLANS = ("free", "pro", "team")
FIELDS = (
    replace(CORE_FIELDS[0], order=PLANS, baseline="free"),
    CORE_FIELDS[1],
    CORE_FIELDS[2],
    Field("flag", MergeRule.LATEST),
    Field("tier", MergeRule.LATEST, baseline="none"),
)
values = st.fixed_dictionaries(
    {},
    optional={
        "plan": st.sampled_from((*PLANS, "by-hand")),
        "role": st.sampled_from(("tutor", "student")),
        "courseSlugs": st.lists(st.sampled_from("abcd"), unique=True).map(sorted),
        "flag": st.sampled_from((1, True, "x")),
        "tier": st.sampled_from(("gold", "none")),
    },
)


@pytest.mark.parametrize(
    ("before", "after", "lost"),
    [
        ({"plan": "pro"}, {}, {"plan"}),
        ({"plan": "team"}, {"plan": "pro"}, {"plan"}),
        ({"plan": "pro"}, {"plan": "team"}, set()),
        ({"plan": "by-hand"}, {"plan": "pro"}, set()),
        ({"plan": "by-hand"}, {"plan": "free"}, {"plan"}),
        ({"role": "tutor"}, {"role": "student"}, set()),
        ({"role": "tutor"}, {}, {"role"}),
        ({"courseSlugs": ["a", "b"]}, {"courseSlugs": ["a", "renamed"]}, set()),
        ({"courseSlugs": ["a", "b"]}, {"courseSlugs": ["c"]}, {"courseSlugs"}),
        ({"courseSlugs": []}, {"courseSlugs": []}, set()),
        ({"flag": 1}, {"flag": True}, set()),
        ({"flag": 1}, {}, {"flag"}),
        ({"tier": "gold"}, {"tier": "none"}, {"tier"}),
        ({"tier": "none"}, {"tier": "gold"}, set()),
        ({"tier": "none"}, {"tier": "none"}, set()),
        ({"of former settings": 1}, {}, {"of former settings"}),
        ({}, {"plan": "pro"}, set()),
    ],
)
def test_a_loss_is_what_is_removed_or_lowered(
    before: dict[str, object], after: dict[str, object], lost: set[str]
) -> None:
    assert {loss.key for loss in losses(before, after, FIELDS)} == lost


def test_a_loss_says_what_it_was_and_what_is_left() -> None:
    assert losses({"plan": "team"}, {"plan": "pro"}, FIELDS) == (Loss("plan", "team", "pro"),)


@given(values, values)
def test_the_part_that_gives_takes_nothing(before: dict[str, object], after: dict[str, object]) -> None:
    assert losses(before, giving(before, after, FIELDS), FIELDS) == ()


@given(values, values)
def test_the_part_that_gives_has_all_that_is_new(before: dict[str, object], after: dict[str, object]) -> None:
    given_ = giving(before, after, FIELDS)
    lost = {loss.key for loss in losses(before, after, FIELDS)}
    assert {name: given_[name] for name in after if name not in lost} == {
        n: v for n, v in after.items() if n not in lost
    }
    if "courseSlugs" in lost and "courseSlugs" in after:
        assert set(after["courseSlugs"]) <= set(given_["courseSlugs"])  # type: ignore[call-overload]


@given(values, values)
def test_the_part_that_takes_loses_all_that_is_lost_and_adds_nothing(
    before: dict[str, object], after: dict[str, object]
) -> None:
    taken = taking(before, after, FIELDS)
    lost = {loss.key for loss in losses(before, after, FIELDS)}
    assert {loss.key for loss in losses(before, taken, FIELDS)} == lost
    assert {n: v for n, v in taken.items() if n not in lost} == {n: v for n, v in before.items() if n not in lost}


@given(values)
def test_what_stays_the_same_is_no_loss(before: dict[str, object]) -> None:
    assert losses(before, before, FIELDS) == ()

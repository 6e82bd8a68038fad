from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from sync_worker.domain.entitlements import CORE_FIELDS, Entitlement, Field, MergeRule, Refusal
from sync_worker.domain.merge import is_active, merge
from tests.strategies import NOW, PLANS, USER, layouts, rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sync_worker.domain.entitlements import Layout, Value

ORDERED = (Field("plan", MergeRule.HIGHEST, order=PLANS), *CORE_FIELDS[1:])


def entitlement(document: str = "ent-1", *, hours_old: int = 1, **values: Value) -> Entitlement:
    return Entitlement(document, "r", NOW - timedelta(hours=hours_old), USER, values)


@given(rows, layouts(), st.randoms())
def test_access_does_not_depend_on_the_order_of_rows(found: list[Entitlement], layout: Layout, random: object) -> None:
    shuffled = list(found)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis types it as object
    assert merge(found, layout.fields, NOW) == merge(shuffled, layout.fields, NOW)


@given(rows, layouts())
def test_only_active_rows_are_sources(found: list[Entitlement], layout: Layout) -> None:
    active = {row.id for row in found if is_active(row, NOW)}
    assert set(merge(found, layout.fields, NOW).sources) <= active


@given(rows)
def test_nothing_outside_the_allow_list_is_ever_granted(found: Sequence[Entitlement]) -> None:
    assert merge(found, ORDERED, NOW).values.get("plan") in (*PLANS, None)


@given(rows)
def test_access_does_not_change_before_the_next_transition(found: Sequence[Entitlement]) -> None:
    access = merge(found, CORE_FIELDS, NOW)
    if access.next_transition is not None:
        just_before = access.next_transition - timedelta(microseconds=1)
        assert merge(found, CORE_FIELDS, just_before).values == access.values


def test_the_highest_plan_of_the_order_wins() -> None:
    access = merge([entitlement("a", plan="pro"), entitlement("b", plan="free", hours_old=0)], ORDERED, NOW)
    assert access.values["plan"] == "pro"


def test_without_an_order_the_plan_updated_last_wins() -> None:
    access = merge([entitlement("a", plan="pro"), entitlement("b", plan="free", hours_old=0)], CORE_FIELDS, NOW)
    assert access.values["plan"] == "free"


def test_courses_of_all_entitlements_are_merged_and_sorted() -> None:
    found = [entitlement("a", courseSlugs=("b", "c")), entitlement("b", courseSlugs=("a", "b"))]
    assert merge(found, CORE_FIELDS, NOW).values["courseSlugs"] == ("a", "b", "c")


def test_an_entitlement_without_courses_grants_an_empty_list() -> None:
    assert merge([entitlement(plan="pro")], CORE_FIELDS, NOW).values["courseSlugs"] == ()


def test_a_plan_that_is_not_allowed_refuses_the_whole_row() -> None:
    access = merge([entitlement("bad", plan="root", courseSlugs=("a",))], ORDERED, NOW)
    assert (access.values, access.sources) == ({}, ())
    assert access.refusals == (Refusal("bad", "plan", "'root' is not one of free, pro, team"),)


def test_a_refused_row_leaves_the_others_alone() -> None:
    access = merge([entitlement("bad", plan="root"), entitlement("good", plan="pro")], ORDERED, NOW)
    assert access.values["plan"] == "pro"
    assert access.sources == ("good",)


def test_a_row_starts_at_its_start_and_ends_before_its_end() -> None:
    row = replace(entitlement(), starts_at=NOW, ends_at=NOW + timedelta(hours=1))
    assert not is_active(row, NOW - timedelta(seconds=1))
    assert is_active(row, NOW)
    assert not is_active(row, NOW + timedelta(hours=1))


def test_the_next_transition_is_the_nearest_in_the_future() -> None:
    found = [
        replace(entitlement("a"), starts_at=NOW - timedelta(hours=1), ends_at=NOW + timedelta(hours=2)),
        replace(entitlement("b"), starts_at=NOW + timedelta(hours=1)),
    ]
    assert merge(found, CORE_FIELDS, NOW).next_transition == NOW + timedelta(hours=1)


def test_a_paused_row_grants_nothing_and_has_no_transition() -> None:
    row = replace(entitlement(plan="pro"), status="paused", ends_at=NOW + timedelta(hours=1))
    access = merge([row], CORE_FIELDS, NOW)
    assert (access.values, access.next_transition) == ({}, None)


def test_without_an_active_entitlement_the_baseline_remains() -> None:
    fields = (Field("plan", MergeRule.HIGHEST, baseline="free"), *CORE_FIELDS[1:])
    assert merge([], fields, NOW).values == {"plan": "free"}

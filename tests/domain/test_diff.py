from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given

from sync_worker.clerk.objects import read_marker
from sync_worker.domain.diff import MARKER_KEY, claims_size, diff, merge_patch
from sync_worker.domain.entitlements import CORE_FIELDS, Access, ChangeKind, Layout, Observed
from sync_worker.domain.merge import merge
from sync_worker.errors import AccessTooLarge
from tests.strategies import NOW, USER, layouts, observations, rows

if TYPE_CHECKING:
    from sync_worker.domain.entitlements import Change, Entitlement

AT = "2026-05-01T12:00:00+00:00"
LAYOUT = Layout(CORE_FIELDS)
ENTITLED = Access({"plan": "pro", "courseSlugs": ("algebra",)}, ("ent-1",))
NOTHING = Access()


def written(observed: Observed, change: Change) -> Observed:
    """Return what Clerk stores after the change."""
    private = merge_patch(observed.private, change.private)
    return Observed(USER, merge_patch(observed.public, change.public), private, read_marker(private))


def granted(**public: object) -> Observed:
    """Return a subject with access that was granted before."""
    blank = Observed(USER, {}, {})
    after = written(blank, diff(ENTITLED, blank, LAYOUT, at=AT))
    return replace(after, public={**after.public, **public})


@given(rows, observations(), layouts())
def test_applying_a_diff_and_diffing_again_is_none(found: list[Entitlement], stored: Observed, layout: Layout) -> None:
    access = merge(found, layout.fields, NOW)
    after = written(stored, diff(access, stored, layout, at=AT))
    assert diff(access, after, layout, at="2027-01-01T00:00:00+00:00").kind is ChangeKind.NONE


@given(rows, observations(), layouts())
def test_a_change_never_names_an_unmanaged_key(found: list[Entitlement], stored: Observed, layout: Layout) -> None:
    change = diff(merge(found, layout.fields, NOW), stored, layout, at=AT)
    managed = {"plan", "role", "courseSlugs"}
    top = {layout.namespace} if layout.namespace else managed
    assert set(change.public) <= top | managed
    assert set(change.private) <= top | managed | {MARKER_KEY}


@given(rows, observations(unmanaged_plan=False), layouts())
def test_unmanaged_keys_stay_as_they_are(found: list[Entitlement], stored: Observed, layout: Layout) -> None:
    after = written(stored, diff(merge(found, layout.fields, NOW), stored, layout, at=AT))
    for before, now in ((stored.public, after.public), (stored.private, after.private)):
        assert {k: now.get(k) for k in before} == before


@given(rows, observations(), layouts())
def test_a_diff_changes_neither_of_its_inputs(found: list[Entitlement], stored: Observed, layout: Layout) -> None:
    access, copied = merge(found, layout.fields, NOW), copy.deepcopy((stored.public, stored.private))
    diff(access, stored, layout, at=AT)
    assert (stored.public, stored.private) == copied


def test_the_first_entitlement_is_a_grant_with_a_marker() -> None:
    change = diff(ENTITLED, Observed(USER), LAYOUT, at=AT, cause="webhook:ent-1")
    assert change.kind is ChangeKind.GRANT
    assert change.public == {"plan": "pro", "courseSlugs": ["algebra"]}
    marker = change.private[MARKER_KEY]
    assert isinstance(marker, dict)
    assert (marker["sources"], marker["at"], set(marker)) == (["ent-1"], AT, {"sources", "fingerprint", "at"})


def test_an_equal_subject_needs_no_write() -> None:
    change = diff(ENTITLED, granted(), LAYOUT, at=AT)
    assert (change.kind, change.public, change.private) == (ChangeKind.NONE, {}, {})


def test_only_what_differs_is_written() -> None:
    change = diff(replace(ENTITLED, values={"plan": "team", "courseSlugs": ("algebra",)}), granted(), LAYOUT, at=AT)
    assert (change.kind, change.public) == (ChangeKind.UPDATE, {"plan": "team"})


def test_the_last_entitlement_gone_removes_the_managed_keys_and_the_marker() -> None:
    change = diff(NOTHING, granted(theme="dark"), LAYOUT, at=AT)
    assert change.kind is ChangeKind.REVOKE
    assert change.public == {"plan": None, "courseSlugs": None}
    assert change.private == {MARKER_KEY: None}


def test_a_plan_set_by_hand_without_our_marker_is_left_alone() -> None:
    assert diff(NOTHING, Observed(USER, {"plan": "vip"}), LAYOUT, at=AT).kind is ChangeKind.NONE


def test_a_plan_without_our_marker_is_removed_when_an_event_reports_the_end_of_its_entitlement() -> None:
    change = diff(NOTHING, Observed(USER, {"plan": "pro"}), LAYOUT, at=AT, witnessed=True)
    assert (change.kind, change.public) == (ChangeKind.REVOKE, {"plan": None})


def test_a_subject_that_already_has_the_access_gets_the_marker() -> None:
    stored = Observed(USER, {"plan": "pro", "courseSlugs": ["algebra"]})
    change = diff(ENTITLED, stored, LAYOUT, at=AT)
    assert change.public == {}
    assert MARKER_KEY in change.private


def test_an_edit_in_clerk_is_reverted() -> None:
    change = diff(ENTITLED, granted(plan="enterprise"), LAYOUT, at=AT)
    assert change.public == {"plan": "pro"}


def test_a_changed_placement_moves_the_keys() -> None:
    moved = Layout(CORE_FIELDS, namespace="access")
    after = written(granted(theme="dark"), diff(ENTITLED, granted(theme="dark"), moved, at=AT))
    assert after.public == {"theme": "dark", "access": {"plan": "pro", "courseSlugs": ["algebra"]}}


def test_access_over_8_kb_is_refused() -> None:
    many = tuple(f"course-with-a-long-slug-{n:04}" for n in range(400))
    with pytest.raises(AccessTooLarge, match="user:user_1"):
        diff(Access({"courseSlugs": many}, ("ent-1",)), Observed(USER), LAYOUT, at=AT)


def test_access_over_8_kb_can_still_be_reduced() -> None:
    many = [f"course-with-a-long-slug-{n:04}" for n in range(400)]
    stored = granted(courseSlugs=many)
    fewer = Access({"courseSlugs": tuple(many[:390])}, ("ent-1",))
    assert diff(fewer, stored, LAYOUT, at=AT).kind is ChangeKind.UPDATE


def test_the_claims_size_counts_public_managed_keys_in_bytes() -> None:
    assert claims_size({"plan": "é", "other": "x"}, LAYOUT) == len('{"plan":"é"}'.encode())

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given

from sync_worker.domain.diff import METADATA_LIMIT, claims_size, diff, json_size, merge_patch
from sync_worker.domain.entitlements import CORE_FIELDS, Access, ChangeKind, Field, Layout, MergeRule, Observed, Slot
from sync_worker.domain.loss import Loss
from sync_worker.domain.merge import merge
from sync_worker.domain.ownership import MARKER_KEY, Adoption, LastWrites, needs_ledger, read_markers
from sync_worker.errors import AccessTooLarge, ManagedElsewhere
from tests.strategies import NOW, USER, layouts, observations, rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sync_worker.domain.entitlements import Change, Entitlement

AT = "2026-05-01T12:00:00+00:00"
LAYOUT = Layout(CORE_FIELDS, source="project/production")
ENTITLED = Access({"plan": "pro", "courseSlugs": ("algebra",)}, ("ent-1",))
NOTHING = Access()


def written(observed: Observed, change: Change) -> Observed:
    """Return what Clerk stores after the change."""
    private = merge_patch(observed.private, change.private)
    return Observed(USER, merge_patch(observed.public, change.public), private, read_markers(private))


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
    del marker["fingerprint"]
    assert marker == {
        "source": "project/production",
        "keys": ["plan", "courseSlugs"],
        "documents": ["ent-1"],
        "at": AT,
    }


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


def test_values_without_a_marker_are_adopted_when_an_operator_says_so() -> None:
    stored = Observed(USER, {"plan": "pro", "theme": "dark"})
    change = diff(NOTHING, stored, LAYOUT, at=AT, adoption=Adoption(unmarked=True))
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
    reassigned = replace(LAYOUT, namespace="access")
    after = written(granted(theme="dark"), diff(ENTITLED, granted(theme="dark"), reassigned, at=AT))
    assert after.public == {"theme": "dark", "access": {"plan": "pro", "courseSlugs": ["algebra"]}}
    assert (list(after.markers), MARKER_KEY in after.private) == (["access"], False)


def test_access_over_8_kb_is_refused() -> None:
    many = tuple(f"course-with-a-long-slug-{n:04}" for n in range(400))
    with pytest.raises(AccessTooLarge, match="user:user_1"):
        diff(Access({"courseSlugs": many}, ("ent-1",)), Observed(USER), LAYOUT, at=AT)


def test_access_over_8_kb_can_still_be_reduced() -> None:
    many = [f"course-with-a-long-slug-{n:04}" for n in range(400)]
    stored = granted(courseSlugs=many)
    fewer = Access({"courseSlugs": tuple(many[:390])}, ("ent-1",))
    assert diff(fewer, stored, LAYOUT, at=AT).kind is ChangeKind.UPDATE


APPS = Observed(USER, {"role": "admin", "plan": "team", "theme": "dark"})
ONE_COURSE = Access({"courseSlugs": ("algebra",)}, ("ent-1",))


def test_a_grant_leaves_the_keys_of_the_app_that_no_row_sets() -> None:
    change = diff(ONE_COURSE, APPS, LAYOUT, at=AT)
    assert (change.public, change.taken_over, change.losses) == ({"courseSlugs": ["algebra"]}, {}, ())


def test_the_end_of_an_entitlement_leaves_the_keys_of_the_app() -> None:
    granted_one = written(APPS, diff(ONE_COURSE, APPS, LAYOUT, at=AT))
    assert written(granted_one, diff(NOTHING, granted_one, LAYOUT, at=AT)).public == APPS.public


def test_a_row_without_courses_leaves_the_courses_of_the_app() -> None:
    stored = Observed(USER, {"courseSlugs": ["own"]})
    change = diff(Access({"plan": "pro", "courseSlugs": ()}, ("ent-1",)), stored, LAYOUT, at=AT)
    assert (change.public, change.taken_over) == ({"plan": "pro"}, {})


def test_a_row_that_sets_a_key_of_the_app_takes_it_over() -> None:
    change = diff(replace(ONE_COURSE, values={"plan": "pro"}), APPS, LAYOUT, at=AT)
    assert (change.public, change.taken_over) == ({"plan": "pro"}, {"plan": "team"})


def test_taking_a_key_over_is_a_loss_where_it_lowers_it() -> None:
    ordered = replace(LAYOUT, fields=(replace(CORE_FIELDS[0], order=("pro", "team")), *CORE_FIELDS[1:]))
    change = diff(replace(ONE_COURSE, values={"plan": "pro", "role": "tutor"}), APPS, ordered, at=AT)
    assert change.losses == (Loss("plan", "team", "pro"),)
    assert change.giving is not None
    assert (change.giving.public, change.giving.keys) == ({"role": "tutor"}, (Slot.parse("role"),))


def test_what_is_kept_while_a_loss_waits_does_not_move_onto_a_key_of_the_app() -> None:
    before = written(Observed(USER), diff(ENTITLED, Observed(USER), replace(LAYOUT, namespace="access"), at=AT))
    stored = replace(before, public={**before.public, "plan": "team"})
    change = diff(Access({"courseSlugs": ("algebra",)}, ("ent-1",)), stored, LAYOUT, at=AT)
    assert (change.losses, change.giving) == ((Loss("plan", "pro"),), None)


def test_a_wiped_marker_keeps_nobodys_access_because_the_ledger_knows_what_we_wrote() -> None:
    wiped = Observed(USER, granted().public)
    last = LastWrites({Slot.parse("plan"): ["pro"], Slot.parse("courseSlugs"): [["algebra"]]}, ("ent-1",))
    change = diff(NOTHING, wiped, LAYOUT, at=AT, written=last)
    assert (change.kind, change.public) == (ChangeKind.REVOKE, {"plan": None, "courseSlugs": None})


def test_a_value_that_the_app_has_changed_since_is_its_own_once_the_marker_is_gone() -> None:
    last = LastWrites({Slot.parse("plan"): ["pro"]})
    change = diff(NOTHING, Observed(USER, {"plan": "vip"}), LAYOUT, at=AT, written=last)
    assert change.kind is ChangeKind.NONE


def test_a_key_that_nothing_sets_any_more_gets_its_baseline_and_is_unmanaged_from_then_on() -> None:
    with_baseline = replace(LAYOUT, fields=(replace(CORE_FIELDS[0], baseline="free"), *CORE_FIELDS[1:]))
    stored = granted()
    after = written(stored, diff(NOTHING, stored, with_baseline, at=AT))
    assert (after.public, after.markers) == ({"plan": "free"}, {})
    assert diff(NOTHING, after, with_baseline, at=AT).kind is ChangeKind.NONE


def test_a_key_that_nothing_sets_and_that_is_not_managed_gets_no_baseline() -> None:
    with_baseline = replace(LAYOUT, fields=(replace(CORE_FIELDS[0], baseline="free"), *CORE_FIELDS[1:]))
    assert diff(ONE_COURSE, Observed(USER), with_baseline, at=AT).public == {"courseSlugs": ["algebra"]}


def test_values_are_compared_as_json() -> None:
    flags = replace(LAYOUT, fields=(*CORE_FIELDS, Field("beta", MergeRule.LATEST)))
    stored = written(Observed(USER), diff(Access({"beta": 1}, ("e",)), Observed(USER), flags, at=AT))
    assert diff(Access({"beta": True}, ("e",)), stored, flags, at=AT).public == {"beta": True}
    assert diff(Access({"beta": 1.0}, ("e",)), stored, flags, at=AT).kind is ChangeKind.NONE


def test_what_another_installation_manages_is_neither_revoked_nor_overwritten() -> None:
    theirs = granted()
    own = replace(LAYOUT, source="project/staging")
    assert diff(NOTHING, theirs, own, at=AT).kind is ChangeKind.NONE
    with pytest.raises(ManagedElsewhere, match="project/production"):
        diff(ENTITLED, theirs, own, at=AT)


def test_a_key_that_we_wrote_and_another_installation_lists_now_is_its_own() -> None:
    last = LastWrites({Slot.parse("plan"): ["pro"], Slot.parse("role"): ["tutor"]})
    own = replace(LAYOUT, source="project/staging")
    theirs = granted(role="tutor")
    assert diff(NOTHING, theirs, own, at=AT, written=last).public == {"role": None}


def test_what_we_wrote_is_taken_away_although_another_installation_moved_in() -> None:
    moved_in = granted(role="tutor")
    own = replace(LAYOUT, source="project/staging", fields=(*CORE_FIELDS[:1], replace(CORE_FIELDS[1], baseline="user")))
    change = diff(NOTHING, moved_in, own, at=AT, written=LastWrites({Slot.parse("role"): ["tutor"]}))
    assert (change.public, change.private, change.giving) == ({"role": None}, {}, None)


def test_an_operator_takes_another_installation_over() -> None:
    theirs, own = granted(), replace(LAYOUT, source="project/staging")
    adoption = Adoption(source="project/production")
    after = written(theirs, diff(ENTITLED, theirs, own, at=AT, adoption=adoption))
    assert after.markers[None].source == "project/staging"
    assert diff(NOTHING, theirs, own, at=AT, adoption=adoption).kind is ChangeKind.REVOKE


def test_taking_one_installation_over_leaves_the_others() -> None:
    second = replace(LAYOUT, source="project/second", namespace="second")
    stored = granted()
    stored = written(stored, diff(ENTITLED, stored, second, at=AT))
    own, adoption = replace(LAYOUT, source="project/staging"), Adoption(source="project/second")
    with pytest.raises(ManagedElsewhere, match="project/production"):
        diff(ENTITLED, stored, own, at=AT, adoption=adoption)
    after = written(stored, diff(NOTHING, stored, own, at=AT, adoption=adoption))
    assert (after.public, list(after.markers)) == ({**granted().public, "second": {}}, [None])


def test_installations_with_namespaces_of_their_own_do_not_touch_each_other() -> None:
    theirs, own = granted(), replace(LAYOUT, source="project/staging", namespace="staging")
    after = written(theirs, diff(ENTITLED, theirs, own, at=AT))
    assert {place: marker.source for place, marker in after.markers.items()} == {
        None: "project/production",
        "staging": "project/staging",
    }
    assert written(after, diff(NOTHING, after, LAYOUT, at=AT)).public == {
        "staging": {"plan": "pro", "courseSlugs": ["algebra"]}
    }


FULL = {"app": "x" * 8100}


def test_a_downgrade_is_written_although_the_marker_does_not_fit() -> None:
    ordered = replace(LAYOUT, fields=(replace(CORE_FIELDS[0], order=("basic", "pro")), *CORE_FIELDS[1:]))
    wiped = Observed(USER, {"plan": "pro"}, FULL)
    last = LastWrites({Slot.parse("plan"): ["pro"]}, ("ent-1",))
    change = diff(Access({"plan": "basic"}, ("ent-1",)), wiped, ordered, at=AT, written=last)
    assert (change.public, change.private) == ({"plan": "basic"}, {})


def test_a_lower_plan_that_is_too_long_to_fit_does_not_keep_the_higher_one() -> None:
    ordered = replace(LAYOUT, fields=(replace(CORE_FIELDS[0], order=("free of charge", "pro")), *CORE_FIELDS[1:]))
    lower = Access({"plan": "free of charge", "courseSlugs": ("algebra",)}, ("ent-1",))
    stored = granted(courseSlugs=["algebra", "b"], app="")
    stored = replace(stored, public={**stored.public, "app": "x" * (METADATA_LIMIT - json_size(stored.public))})
    change = diff(lower, stored, ordered, at=AT)
    assert change.public == {"plan": None, "courseSlugs": ["algebra"]}
    assert [loss.key for loss in change.losses] == ["plan", "courseSlugs"]
    assert [(refusal.document, refusal.field) for refusal in change.refusals] == [("ent-1", "plan")]


def test_a_grant_whose_marker_does_not_fit_is_refused() -> None:
    with pytest.raises(AccessTooLarge, match="private metadata"):
        diff(ENTITLED, Observed(USER, {}, FULL), LAYOUT, at=AT)


def test_what_is_lowered_is_written_where_the_rest_does_not_fit() -> None:
    many = tuple(f"course-with-a-long-slug-{n:04}" for n in range(400))
    change = diff(Access({"courseSlugs": many}, ("cohort",)), granted(), LAYOUT, at=AT)
    assert change.public in ({"plan": None, "courseSlugs": []}, {"plan": None})
    assert [(refusal.document, refusal.field) for refusal in change.refusals] == [("cohort", "courseSlugs")]


def test_what_the_part_of_a_change_that_does_fit_takes_over_is_told() -> None:
    ordered = replace(LAYOUT, fields=(replace(CORE_FIELDS[0], order=("pro", "team")), *CORE_FIELDS[1:]))
    change = diff(replace(ONE_COURSE, values={"plan": "pro"}), replace(APPS, private=FULL), ordered, at=AT)
    assert (change.public, change.taken_over) == ({"plan": "pro"}, {"plan": "team"})


def crowded(stored: Observed, private: Mapping[str, object]) -> Observed:
    """Return the subject with so much of the app's own that `private` would have one byte too many."""
    spare = METADATA_LIMIT + 1 - json_size({**private, "app": ""})
    return replace(stored, private={**stored.private, "app": "x" * spare})


MANY = tuple(f"ent-{n:03}" for n in range(60))


@pytest.mark.parametrize(("documents", "is_crowded", "named"), [(MANY, False, 50), (("ent-1", "ent-2"), True, 0)])
def test_a_shortened_marker_loses_no_document_because_the_change_names_all(
    documents: tuple[str, ...], is_crowded: bool, named: int
) -> None:
    access, stored = Access({"plan": "pro"}, documents), Observed(USER)
    if is_crowded:
        stored = crowded(stored, written(stored, diff(access, stored, LAYOUT, at=AT)).private)
    change = diff(access, stored, LAYOUT, at=AT)
    after = written(stored, change)
    assert (change.sources, len(after.markers[None].documents)) == (documents, named)
    last = LastWrites({Slot.parse("plan"): ["pro"]}, change.sources)
    assert needs_ledger(after, LAYOUT)
    assert diff(NOTHING, after, LAYOUT, at=AT, written=last).former_documents == documents


def test_the_harmless_part_of_a_change_names_what_gave_the_rest_although_the_marker_has_no_room() -> None:
    access = Access({"role": "tutor", "courseSlugs": ("algebra",)}, ("ent-2",))
    roomy = diff(access, granted(), LAYOUT, at=AT).giving
    assert roomy is not None
    stored = crowded(granted(), written(granted(), roomy).private)
    change = diff(access, stored, LAYOUT, at=AT)
    assert change.losses == (Loss("plan", "pro"),)
    assert change.giving is not None
    assert change.giving.sources == ("ent-1", "ent-2")
    assert written(stored, change.giving).markers[None].documents == ()


def test_the_claims_size_counts_public_managed_keys_in_bytes() -> None:
    assert claims_size({"plan": "é", "other": "x"}, LAYOUT) == len('{"plan":"é"}'.encode())

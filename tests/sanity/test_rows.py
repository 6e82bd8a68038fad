from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync_worker.domain.entitlements import CORE_FIELDS, Entitlement, Refusal
from sync_worker.domain.subjects import Subject
from sync_worker.sanity.rows import read_row


def row(**fields: Any) -> dict[str, Any]:
    return {"_id": "ent-1", "_rev": "r1", "_updatedAt": "2026-05-01T12:00:00Z", "clerkUserId": "user_1", **fields}


def read(**fields: Any) -> Entitlement:
    _, result = read_row(row(**fields), CORE_FIELDS)
    assert isinstance(result, Entitlement), result
    return result


def refused(**fields: Any) -> Refusal:
    _, result = read_row(row(**fields), CORE_FIELDS)
    assert isinstance(result, Refusal), result
    return result


def test_a_row_becomes_an_entitlement() -> None:
    found = read(plan="pro", role="member", courseSlugs=["b", "a"])
    assert found.subject == Subject.parse("user:user_1")
    assert found.values == {"plan": "pro", "role": "member", "courseSlugs": ("a", "b")}


def test_spaces_around_an_id_are_trimmed() -> None:
    assert read(clerkUserId="  user_1 ").subject == Subject.parse("user_1")


def test_both_ids_name_a_membership() -> None:
    assert str(read(clerkOrganizationId="org_9").subject) == "membership:org_9/user_1"


def test_nulls_in_a_list_are_dropped_and_doubles_are_one() -> None:
    assert read(courseSlugs=["a", None, "a", " "]).values["courseSlugs"] == ("a",)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"clerkUserId": "../organizations/org_1"}, "clerkUserId"),
        ({"clerkUserId": "user_1?x=1"}, "clerkUserId"),
        ({"clerkUserId": "user_1 user_2"}, "clerkUserId"),
        ({"clerkUserId": 7}, "clerkUserId"),
        ({"clerkUserId": None}, "clerkUserId"),
        ({"clerkOrganizationId": "org_é"}, "clerkOrganizationId"),
        ({"plan": {"_ref": "plan-1"}}, "plan"),
        ({"plan": "x" * 1001}, "plan"),
        ({"courseSlugs": "algebra"}, "courseSlugs"),
        ({"courseSlugs": ["a", {"b": 1}]}, "courseSlugs"),
        ({"startsAt": "soon"}, "startsAt"),
        ({"endsAt": "2026-05-01T12:00:00"}, "endsAt"),
        ({"status": 1}, "status"),
    ],
)
def test_a_wrong_row_is_refused_by_document_and_field(fields: dict[str, Any], field: str) -> None:
    refusal = refused(**fields)
    assert (refusal.document, refusal.field) == ("ent-1", field)
    assert refusal.reason


def test_the_subject_of_a_refused_row_is_known_where_its_id_is_good() -> None:
    subject, _ = read_row(row(plan=[]), CORE_FIELDS)
    assert subject == Subject.parse("user_1")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from(["_id", "_rev", "_updatedAt", "clerkUserId", "plan", "courseSlugs", "startsAt", "status"])


@given(st.dictionaries(names, json_values) | json_values)
def test_any_row_is_read_or_refused(raw: object) -> None:
    _, result = read_row(raw, CORE_FIELDS)
    assert isinstance(result, Entitlement | Refusal)


@pytest.mark.parametrize("fields", [{"plan": "pro\ud83d"}, {"courseSlugs": ["algebra", "\ud83d"]}])
def test_half_a_character_is_refused_because_it_cannot_be_written(fields: dict[str, Any]) -> None:
    assert refused(**fields).field == next(iter(fields))


@pytest.mark.parametrize("space", ["\t", "\n", "\u00a0"])
@pytest.mark.parametrize(
    "name", [{"clerkUserId": "user_1"}, {"userEmail": "ada@example.org"}, {"userExternalId": "crm-7"}]
)
def test_a_space_that_the_queries_do_not_split_at_is_refused(name: dict[str, str], space: str) -> None:
    ((field, text),) = name.items()
    assert refused(**{"clerkUserId": None, field: text + space}).field == field

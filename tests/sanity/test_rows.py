from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sync_worker.domain.entitlements import CORE_FIELDS, Entitlement, Refusal
from sync_worker.domain.subjects import Subject
from sync_worker.sanity.rows import Row, SubjectFields, _reason, read_row


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


def test_a_user_id_and_an_organization_id_name_a_membership() -> None:
    assert str(read(clerkOrganizationId="org_9").subject) == "membership:org_9/user_1"


def test_nulls_and_duplicates_in_a_list_are_dropped() -> None:
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
def test_an_invalid_row_is_refused_with_document_and_field(fields: dict[str, Any], field: str) -> None:
    refusal = refused(**fields)
    assert (refusal.document, refusal.field) == ("ent-1", field)
    assert refusal.reason


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"clerkUserId": 7}, "must be a string; correct the field, or what entitlement.groq returns for it"),
        ({"clerkUserId": "ada"}, "is not a Clerk user id; write one such as user_2abc"),
        ({"clerkOrganizationId": "acme"}, "is not a Clerk organization id; write one such as org_2abc"),
        ({"clerkUserId": None, "userEmail": "ada"}, "is not an e-mail address; write a single address without spaces"),
        (
            {"clerkUserId": None, "userExternalId": "a b"},
            "is not an external id; write at most 256 characters without spaces",
        ),
        (
            {"clerkUserId": None},
            "is empty; fill in one of clerkUserId, clerkOrganizationId, userEmail, userExternalId",
        ),
        ({"clerkUserId": "x" * 1001}, "is longer than 1000 characters; shorten it"),
        ({"_id": None}, "must be a string; correct the field, or what entitlement.groq returns for it"),
        ({"_id": ""}, "is empty; entitlement.groq must return it"),
        ({"plan": "x" * 1001}, "is longer than 1000 characters; shorten it"),
        ({"plan": {"_ref": "plan-1"}}, "must be a string, a number or a boolean, not an object"),
        ({"courseSlugs": "algebra"}, "must be a list of strings, not a string"),
        ({"courseSlugs": [7]}, "must be a list of strings only"),
        ({"plan": "pro\ud83d"}, "contains an invalid character; type the text again"),
        ({"status": "\ud83d"}, "contains an invalid character; type the text again"),
        ({"status": 1}, "must be a string; correct the field, or what entitlement.groq returns for it"),
        ({"startsAt": "soon"}, "is not a date and time; write one such as 2026-05-01T12:00:00Z"),
        ({"startsAt": "2026-13-01T00:00:00Z"}, "is not a date and time; write one such as 2026-05-01T12:00:00Z"),
        ({"startsAt": 1e30}, "is not a date and time; write one such as 2026-05-01T12:00:00Z"),
        ({"startsAt": True}, "is not a date and time; write one such as 2026-05-01T12:00:00Z"),
        ({"endsAt": "2026-05-01T12:00:00"}, "has no time zone; write a time such as 2026-05-01T12:00:00Z"),
    ],
)
def test_a_refusal_says_what_is_wrong_and_what_to_write(fields: dict[str, Any], reason: str) -> None:
    assert refused(**fields).reason == reason


@pytest.mark.parametrize(
    ("raw", "field", "reason"),
    [
        (None, "row", "is not an object; entitlement.groq must return one object per entitlement"),
        ({"clerkUserId": "user_1"}, "_id", "is missing; entitlement.groq must return it"),
    ],
)
def test_a_row_of_another_shape_is_refused_with_what_to_return(raw: object, field: str, reason: str) -> None:
    assert read_row(raw, CORE_FIELDS)[1] == Refusal("?", field, reason)


def test_an_unknown_kind_of_error_has_a_plain_reason() -> None:
    assert _reason("new_in_pydantic") == "is not valid; correct the field, or what entitlement.groq returns for it"


def test_a_refused_row_has_a_subject_if_its_id_is_valid() -> None:
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


@given(st.dictionaries(names, json_values) | json_values)
def test_no_reason_repeats_what_pydantic_says(raw: object) -> None:
    _, result = read_row(raw, CORE_FIELDS)
    for model in (SubjectFields, Row):
        try:
            model.model_validate(raw)
        except ValidationError as error:
            messages = {problem["msg"] for problem in error.errors()}
            assert not isinstance(result, Refusal) or result.reason not in messages


@pytest.mark.parametrize("fields", [{"plan": "pro\ud83d"}, {"courseSlugs": ["algebra", "\ud83d"]}])
def test_a_lone_surrogate_is_refused(fields: dict[str, Any]) -> None:
    assert refused(**fields).field == next(iter(fields))


@pytest.mark.parametrize("space", ["\t", "\n", "\u00a0"])
@pytest.mark.parametrize(
    "name", [{"clerkUserId": "user_1"}, {"userEmail": "ada@example.org"}, {"userExternalId": "crm-7"}]
)
def test_whitespace_that_the_queries_do_not_strip_is_refused(name: dict[str, str], space: str) -> None:
    ((field, text),) = name.items()
    assert refused(**{"clerkUserId": None, field: text + space}).field == field

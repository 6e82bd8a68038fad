from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sync_worker.domain.entitlements import CORE_FIELDS, Entitlement, Refusal, Unresolved
from sync_worker.domain.merge import is_active
from sync_worker.domain.subjects import Subject
from sync_worker.formatting import rfc3339
from sync_worker.sanity.rows import Row, SubjectFields, _reason, read_row

NOT_A_TIME = "is not a date and time; write one such as 2026-05-01T12:00:00Z, or a date such as 2026-05-01"


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
        ({"courseSlugs": ""}, "courseSlugs"),
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
        ({"plan": "pro\ud83d"}, r"contains the invisible character \ud83d in position 4; type the text again"),
        ({"status": "\ud83d"}, r"contains the invisible character \ud83d in position 1; type the text again"),
        ({"status": 1}, "must be a string; correct the field, or what entitlement.groq returns for it"),
        ({"startsAt": "soon"}, NOT_A_TIME),
        ({"startsAt": "2026-13-01T00:00:00Z"}, NOT_A_TIME),
        ({"startsAt": 1e30}, NOT_A_TIME),
        ({"startsAt": True}, NOT_A_TIME),
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


@pytest.mark.parametrize("space", ["\t", "\n", "\u00a0"])
@pytest.mark.parametrize(
    "name", [{"clerkUserId": "user_1"}, {"userEmail": "ada@example.org"}, {"userExternalId": "crm-7"}]
)
def test_whitespace_that_the_queries_do_not_strip_is_refused(name: dict[str, str], space: str) -> None:
    ((field, text),) = name.items()
    assert refused(**{"clerkUserId": None, field: text + space}).field == field


INVISIBLE = {"\u200b": r"\u200b", "\u2060": r"\u2060", "\u00ad": r"\xad", "\ufeff": r"\ufeff", "\n": r"\n"}
INVISIBLE |= {"\u00a0": r"\xa0", "\u202e": r"\u202e", "\u3164": r"\u3164", "\x1b": r"\x1b", "\ud83d": r"\ud83d"}


@pytest.mark.parametrize("character", INVISIBLE)
@pytest.mark.parametrize("field", ["clerkUserId", "clerkOrganizationId", "userEmail", "userExternalId", "plan", "role"])
def test_an_invisible_character_refuses_the_row_and_is_shown_escaped(field: str, character: str) -> None:
    refusal = refused(**{field: f"ab{character}c"})
    shown = INVISIBLE[character]
    assert refusal.field == field
    assert refusal.reason == f"contains the invisible character {shown} in position 3; type the text again"


@pytest.mark.parametrize("text", ["Zoë", "プロ", "pro ⭐", "à la carte"])
def test_letters_of_any_script_are_no_invisible_characters(text: str) -> None:
    assert read(plan=text).values["plan"] == text


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("mailto:ada@example.org", 'starts with "mailto:"'),
        ("ada@example.org;", "ends with ';'"),
        ("ada@example.org.", "ends with '.'"),
        ("ada@example.org,", "ends with ','"),
        ("<ada@example.org>", "contains '<'"),
        ("ada@example.org;ben@example.org", "contains ';'"),
    ],
)
def test_what_was_pasted_along_with_an_address_is_named(address: str, problem: str) -> None:
    refusal = refused(clerkUserId=None, userEmail=address)
    assert refusal == Refusal("ent-1", "userEmail", f"{problem}; write the address alone")


@pytest.mark.parametrize(
    "value",
    ["20270601", 20270601, "2027", 2027, 1.5, True, "2026-W05-1", "2026-05-01T12:00Z", "2026-05-01T24:00:00Z"],
)
@pytest.mark.parametrize("field", ["startsAt", "endsAt", "_updatedAt"])
def test_only_rfc_3339_and_dates_are_times(field: str, value: object) -> None:
    assert refused(**{field: value}) == Refusal("ent-1", field, NOT_A_TIME)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-05-01T12:00:00Z", datetime(2026, 5, 1, 12, tzinfo=UTC)),
        ("2026-05-01t14:00:00.250+02:00", datetime(2026, 5, 1, 12, 0, 0, 250_000, tzinfo=UTC)),
        (" 2026-05-01 ", datetime(2026, 5, 1, tzinfo=UTC)),
    ],
)
def test_a_time_has_a_zone_and_a_date_is_midnight_in_utc(text: str, moment: datetime) -> None:
    assert read(endsAt=text).ends_at == moment


@pytest.mark.parametrize("text", ["9999-12-31T23:00:00-05:00", "0001-01-01T00:00:00+05:00"])
def test_a_time_outside_all_years_is_refused(text: str) -> None:
    assert refused(endsAt=text).reason == "is not between the years 1 and 9999 in UTC; correct the year"


@pytest.mark.parametrize("text", ["9999-12-31T23:59:59.999Z", "9999-12-31T23:59:59.999999999Z", "0001-01-01"])
def test_the_first_and_the_last_moment_can_be_shown(text: str) -> None:
    ends_at = read(endsAt=text).ends_at
    assert ends_at is not None
    assert (rfc3339(ends_at.timestamp()) or "")[:4] == text[:4]


@pytest.mark.parametrize("status", [None, "", " ", "active", "active ", " active"])
def test_no_status_is_active_and_spaces_do_not_matter(status: str | None) -> None:
    assert is_active(read(status=status), datetime(2026, 5, 1, tzinfo=UTC))


@pytest.mark.parametrize("field", ["startsAt", "endsAt"])
def test_an_empty_time_is_none(field: str) -> None:
    found = read(**{field: ""})
    assert (found.starts_at, found.ends_at) == (None, None)


@pytest.mark.parametrize(
    ("slug", "reason"),
    [
        ({"current": "b"}, "must be a string, not an object"),
        (7, "must be a string, not a number"),
        ("x" * 1001, "is longer than 1000 characters; shorten it"),
        ("al\u200bgebra", r"contains the invisible character \u200b in position 3; type the text again"),
    ],
)
def test_a_slug_that_cannot_be_used_costs_that_course_alone(slug: object, reason: str) -> None:
    found = read(plan="pro", courseSlugs=["a", slug])
    assert found.values == {"plan": "pro", "courseSlugs": ("a",)}
    assert found.unresolved == Unresolved("ent-1", 1, f"courseSlugs: an item {reason}", "plan, 1 courseSlugs")

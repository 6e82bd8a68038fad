from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from sync_worker.domain.entitlements import CORE_FIELDS, Field, MergeRule
from sync_worker.sanity.catalogue import Catalogue, Plan
from sync_worker.sanity.entitlement_csv import Conversion, convert, read_lines

NOW = datetime(2026, 5, 1, tzinfo=UTC)
CATALOGUE = Catalogue(
    courses={"algebra": ["c1"], "biology": ["c2"], "twice": ["c3", "c4"]},
    plans={"pro": [Plan("plan-pro", ("statistics",))]},
)


def converted(text: str, **renamed: str) -> Conversion:
    lines, errors = read_lines(text, renamed)
    conversion = convert(lines, CATALOGUE, CORE_FIELDS, NOW)
    conversion.errors[:0] = errors
    return conversion


def documents(text: str, **renamed: str) -> list[dict[str, Any]]:
    conversion = converted(text, **renamed)
    assert conversion.errors == []
    return [{k: v for k, v in document.items() if k != "_id"} for document in conversion.documents.values()]


def errors(text: str, **renamed: str) -> list[str]:
    conversion = converted(text, **renamed)
    assert conversion.errors
    return [str(error) for error in conversion.errors]


def test_a_line_becomes_an_entitlement() -> None:
    assert documents("clerkUserId,role,startsAt,endsAt\nuser_1,member,2026-09-01,2027-07-01T00:00:00+02:00\n") == [
        {
            "_type": "entitlement",
            "clerkUserId": "user_1",
            "role": "member",
            "startsAt": "2026-09-01T00:00:00Z",
            "endsAt": "2027-06-30T22:00:00Z",
        }
    ]


def test_courses_become_references_to_the_documents_with_these_slugs() -> None:
    (document,) = documents("userEmail,courses\na@example.org,biology; algebra;\n")
    assert document["courses"] == [
        {"_type": "reference", "_ref": "c1", "_key": "c1"},
        {"_type": "reference", "_ref": "c2", "_key": "c2"},
    ]


def test_a_plan_becomes_a_reference_where_a_plan_has_the_slug_and_else_stays_text() -> None:
    first, second = documents("clerkUserId,plan\nuser_1,pro\nuser_2,basic\n")
    assert (first["plan"], second["plan"]) == ({"_type": "reference", "_ref": "plan-pro"}, "basic")


def test_the_courses_of_the_plan_count_in_the_preview() -> None:
    (one,) = converted("clerkUserId,plan,courses\nuser_1,pro,algebra\n").entitlements
    assert one.values == {"plan": "pro", "courseSlugs": ("algebra", "statistics")}


def test_ids_depend_on_the_content_alone() -> None:
    one = converted("clerkUserId,plan,courses\nuser_1,basic,algebra;biology\n")
    other = converted("courses,clerkUserId,plan,role\nbiology;algebra, user_1,basic,\n")
    changed = converted("clerkUserId,plan,courses\nuser_1,basic,algebra\n")
    assert one.documents == other.documents
    assert one.documents.keys().isdisjoint(changed.documents)


def test_a_repeated_line_is_one_document() -> None:
    conversion = converted("clerkUserId,plan\nuser_1,basic\nuser_1,basic\n")
    assert (len(conversion.documents), len(conversion.entitlements), conversion.repeated) == (1, 1, 1)


def test_an_address_is_lowercased_as_subjects_are() -> None:
    kelvin = "\u212a"
    (document,) = documents(f"userEmail,plan\nA{kelvin}@Example.org,basic\n")
    assert document["userEmail"] == f"a{kelvin}@example.org"


@pytest.mark.parametrize("text", ["clerkUserId;plan\nuser_1;basic\n", "CLERKUSERID\tPlan\r\nuser_1\tbasic\r\n\r\n"])
def test_what_spreadsheets_write_is_recognized(text: str) -> None:
    assert documents(text) == [{"_type": "entitlement", "clerkUserId": "user_1", "plan": "basic"}]


@pytest.mark.parametrize(
    ("text", "role"),
    [
        ('clerkUserId,role\nuser_1,"a;b, c"\n', "a;b, c"),
        ('clerkUserId;role\nuser_1;"a ""b"" c"\n', 'a "b" c'),
        ("\r\n\r\nclerkUserId;role\r\nuser_1;a,b\r\n", "a,b"),
        ("clerkUserId,role\ruser_1,a\r", "a"),
        ('"clerkUserId","role",""\n"user_1","a",""\n', "a"),
        ("clerkUserId,role\n\n,\nuser_1,=1+1\n", "=1+1"),
    ],
)
def test_quotes_line_ends_and_empty_lines_are_understood(text: str, role: str) -> None:
    assert documents(text) == [{"_type": "entitlement", "clerkUserId": "user_1", "role": role}]


def test_headers_are_mapped_and_ignored_by_name() -> None:
    text = "E-Mail,Name,Tariff\na@example.org,Ada,basic\n"
    renamed = {"e-mail": "userEmail", "Name": "", "Tariff": "plan"}
    assert documents(text, **renamed) == [{"_type": "entitlement", "userEmail": "a@example.org", "plan": "basic"}]


@pytest.mark.parametrize(
    ("text", "where", "reason"),
    [
        ("", "line 1", "no lines below a header"),
        ("clerkUserId,plan\n", "line 1", "no lines below a header"),
        ("clerkUserId,endAt\nuser_1,2026-05-01\n", "line 1, endAt", "is not one of clerkUserId"),
        ("clerkUserId,plan,Plan\nuser_1,a,b\n", "line 1, Plan", "another header stands for plan too"),
        ("plan,role\nbasic,member\n", "line 1", "no column names a subject"),
        (" \n\r\n", "line 1", "no lines below a header"),
        ("clerkUserId,clerkuserid\nuser_1,user_2\n", "line 1, clerkuserid", "another header stands for clerkUserId"),
        (f"clerkUserId,plan\nuser_1,{'x' * 200_000}\n", "line 2", "is not valid CSV"),
        ("clerkUserId,plan\nuser_1,a\0b\n", "line 2, plan", "invisible character"),
        ("clerkUserId,plan\nuser_1,basic,x\n", "line 2", "has 3 cells, but the header has 2"),
        ('clerkUserId,plan\nuser_1,"basic\n', "line 2", "is not valid CSV"),
        ("clerkUserId,plan\n7,basic\n", "line 2, clerkUserId", "is not a Clerk user id"),
        ("clerkUserId,plan\n,basic\n", "line 2, clerkUserId", "is empty"),
        ("userEmail,plan\nada,basic\n", "line 2, userEmail", "is not an e-mail address"),
        ("clerkUserId,plan,role\nuser_1,,\n", "line 2, plan", "fill in one of plan, role, courses"),
        (
            "clerkUserId,courses\nuser_1,algebra;algbra\n",
            "line 2, courses",
            "no published course has the slug 'algbra'",
        ),
        ("clerkUserId,courses\nuser_1,twice\n", "line 2, courses", "2 documents have the slug 'twice'"),
        ("clerkUserId,plan,endsAt\nuser_1,basic,1.5.2026\n", "line 2, endsAt", "is not a time or a date"),
        ("clerkUserId,plan,endsAt\nuser_1,basic,2026-02-30\n", "line 2, endsAt", "is not a time or a date"),
        ("clerkUserId,plan,endsAt\nuser_1,basic,2026-05-01T12:00\n", "line 2, endsAt", "has no time zone"),
        (
            "clerkUserId,plan,startsAt,endsAt\nuser_1,a,2026-05-01,2026-05-01\n",
            "line 2, endsAt",
            "is not after startsAt",
        ),
        ("clerkUserId,plan\nuser_1,ba\u200bsic\n", "line 2, plan", "invisible character"),
    ],
)
def test_a_wrong_line_is_named_with_its_column_and_the_reason(text: str, where: str, reason: str) -> None:
    (error,) = errors(text)
    assert error.startswith(f"{where}: ")
    assert reason in error


def test_a_mapped_header_that_is_not_there_is_named() -> None:
    (error,) = errors("clerkUserId,plan\nuser_1,basic\n", Tariff="role")
    assert error == "line 1, Tariff: there is no such header, but --columns names it"


def test_one_moment_written_in_two_ways_is_one_document() -> None:
    conversion = converted("clerkUserId,plan,endsAt\nuser_1,basic,2099-01-01\nuser_1,basic,2099-01-01T01:00:00+01:00\n")
    assert (len(conversion.documents), conversion.repeated) == (1, 1)


def test_each_wrong_line_is_named() -> None:
    text = 'clerkUserId,plan,role\nuser_1,basic,"a\nb"\nuser_2,basic,\n7,basic,\n'
    assert [error.partition(":")[0] for error in errors(text)] == ["line 2, role", "line 5, clerkUserId"]


def test_a_plan_outside_its_order_is_refused() -> None:
    lines, _ = read_lines("clerkUserId,plan\nuser_1,gold\n", {})
    fields = (Field("plan", MergeRule.HIGHEST, order=("basic", "pro")), *CORE_FIELDS[1:])
    (error,) = convert(lines, CATALOGUE, fields, NOW).errors
    assert str(error) == "line 2, plan: 'gold' is not one of basic, pro"

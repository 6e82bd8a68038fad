"""What a full reconcile keeps in little memory: nothing is lost or changed by packing it."""

from __future__ import annotations

import tracemalloc
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from sync_worker.domain.entitlements import CORE_FIELDS, Entitlement, Observed, Refusal
from sync_worker.domain.ownership import read_markers
from sync_worker.domain.subjects import Kind, Subject
from sync_worker.sanity.rows import read_row
from sync_worker.worker import packed
from sync_worker.worker.desired_state import Desired, Directory
from sync_worker.worker.early_pages import EarlyPages
from sync_worker.worker.packed import Moments, Packed

if TYPE_CHECKING:
    import pytest

TEXT = st.text(max_size=20)
VALUES = st.recursive(st.none() | st.booleans() | st.integers() | TEXT, st.lists, max_leaves=5)


@given(records=st.lists(st.tuples(st.sampled_from("abc") | TEXT, st.lists(VALUES, max_size=3))))
def test_packed_records_come_back_by_their_key_in_order(records: list[tuple[str, list[Any]]]) -> None:
    kept = Packed()
    for key, record in records:
        kept.add(key, record)
    kept.seal()
    assert [kept[number] for number in range(len(kept))] == records
    for key in {key for key, _ in records} | {"another"}:
        assert kept.find(key) == [(n, record) for n, (other, record) in enumerate(records) if other == key]


def test_two_keys_with_one_hash_stay_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "hash", lambda _: 1, raising=False)
    kept = Packed()
    for number, key in enumerate("abab"):
        kept.add(key, [number])
    kept.seal()
    assert kept.find("b") == [(1, [1]), (3, [3])]


def test_moments_come_back_in_order() -> None:
    moments = Moments()
    pairs = [("user:user_1", 1.5), ("email:å@example.com", -3.0)]
    for pair in pairs:
        moments.add(*pair)
    assert (list(moments), len(moments)) == (pairs, 2)


ROWS: list[dict[str, Any]] = [
    {"_id": "e1", "_rev": "r1", "clerkUserId": "user_1", "plan": "pro", "courseSlugs": ["b", "a"]},
    {"_id": "e2", "_updatedAt": "2026-05-01T12:00:00.123456Z", "clerkUserId": "user_1", "endsAt": "2026-06-01"},
    {"_id": "e3", "userEmail": "Ada@example.com", "status": "ended", "startsAt": "2026-05-01T12:00:00+02:00"},
    {"_id": "e4", "userExternalId": "crm-7", "clerkOrganizationId": "org_1", "role": 3, "unresolved": 2},
    {"_id": "e5", "clerkOrganizationId": "org_1", "plan": ["no", "scalar"]},
    {"_id": "e6", "courseSlugs": [7, "x"], "userEmail": "ada@example.com"},
]


def desired() -> Desired:
    found = Desired()
    for row in [*ROWS, {"_id": "nobody"}]:
        found.add(*read_row(row, CORE_FIELDS))
    found.seal()
    return found


def test_rows_come_back_as_they_were_read() -> None:
    kept, read = desired(), [read_row(row, CORE_FIELDS) for row in ROWS]
    assert [kept[number] for number in range(kept.numbers)] == read
    assert {type(row) for _, row in read} == {Entitlement, Refusal}
    for subject in {subject for subject, _ in read if subject is not None}:
        assert [row for _, row in kept.naming(subject)] == [row for other, row in read if other == subject]
    assert kept.naming(Subject.parse("user_2")) == []
    assert [refusal.document for refusal in kept.unaddressed] == ["nobody"]
    assert kept.rows == len(ROWS) + 1


ADA, CRM = Subject.parse("email:ada@example.com"), Subject.parse("external:crm-7")


def person(number: int, *addresses: Subject) -> Observed:
    return Observed(Subject(Kind.USER, f"user_{number}"), addresses=addresses)


def test_the_directory_knows_who_has_the_addresses_that_rows_name() -> None:
    directory = Directory(desired())
    for one in (person(1, ADA, Subject.parse("email:bob@example.com")), person(2, CRM), person(1, ADA)):
        directory.add(one)
    member = Subject.parse("external:org_1/crm-7")
    assert directory.holders(ADA).users == {ADA: {"user_1"}}
    assert directory.holders(member).users == {CRM: {"user_2"}}
    assert directory.holders(Subject.parse("email:bob@example.com")).users == {}
    assert directory.holders(Subject.parse("user_1")).users == {}
    assert directory.doubtful() == frozenset()
    assert directory.names_of(Observed(Subject.membership("org_1", "user_2"))) == (
        Subject.membership("org_1", "user_2"),
        member,
    )
    directory.add(person(3, ADA))
    assert directory.holders(ADA).users == {ADA: {"user_1", "user_3"}}
    assert directory.doubtful() == {ADA}
    directory.add(Observed(Subject.parse("user_4"), unreadable="no list", possible_addresses=(CRM,)))
    assert directory.doubtful() == {ADA, CRM}
    assert (directory.why_unreadable([ADA]), directory.why_unreadable([member])) == ("", "no list")


def test_pages_that_come_early_come_back_as_they_were() -> None:
    marker = {"entitlementSync": {"source": "p/d", "keys": ["plan"], "documents": ["e1"]}}
    pages = [
        [Observed(Subject.parse("user_1"), {"plan": "pro", "å": [None]}, marker, read_markers(marker), (ADA, CRM))],
        [],
        [
            Observed(Subject.membership("org_1", "user_1"), unreadable="what it is not", possible_addresses=(CRM,)),
            person(2),
        ],
    ]
    early = EarlyPages()
    for page in pages:
        early.add(page)
    assert list(early) == pages
    assert list(early) == []


def test_a_row_takes_a_small_part_of_what_its_object_does() -> None:
    at = datetime(2026, 5, 1, tzinfo=UTC)
    many = 5_000
    tracemalloc.start()
    try:
        kept = Desired()
        for number in range(many):
            subject = Subject(Kind.USER, f"user_{number:06}")
            kept.add(subject, Entitlement(f"ent-{number}", "r" * 22, at, subject, {"plan": "pro"}))
        kept.seal()
        assert tracemalloc.get_traced_memory()[0] < many * 210
    finally:
        tracemalloc.stop()

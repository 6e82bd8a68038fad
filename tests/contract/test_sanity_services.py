"""What the worker relies on in Sanity, tried at the stand-in and at a real account alike.

A test that passes here and fails at an account means that the stand-in is wrong, and everything that was proven with
it. Set the variables that a skipped test names to find out; use a dataset for tests.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from sync_worker.domain.subjects import Kind, Subject
from sync_worker.errors import ConfigurationError, CredentialsRefused
from sync_worker.sanity.client import DOCUMENTS_PER_CALL
from tests.contract.places import SANITY_ACCOUNT

if TYPE_CHECKING:
    from sync_worker.domain.freshness import DocumentRevision
    from tests.contract.places import SanityPlace

pytestmark = pytest.mark.anyio


@pytest.mark.skipif(
    not all(os.environ.get(name) for name in SANITY_ACCOUNT),
    reason=f"set {', '.join(SANITY_ACCOUNT)} (a token that may write) to try all this at a Sanity dataset too",
)
async def test_the_sanity_token_may_write(sanity: SanityPlace) -> None:
    await sanity.create("e1")


async def test_only_what_is_published_is_seen(sanity: SanityPlace) -> None:
    ids = [before + sanity.id("e1") for before in ("", "drafts.", "versions.r1.")]
    for before in ("", "drafts.", "versions.r1."):
        await sanity.create("e1", before=before)
    published = await sanity.query("*[_id in $ids]._id", ids=ids, perspective="published")
    assert published.json()["result"] == [sanity.id("e1")]
    raw = await sanity.query("*[_id in $ids]._id", ids=ids, perspective="raw")
    assert set(raw.json()["result"]) == set(ids)


async def test_one_query_shows_rows_revisions_and_a_count(sanity: SanityPlace) -> None:
    user = f"user_{secrets.token_hex(8)}"
    revision = await sanity.create("e1", clerkUserId=f" {user} ", plan="pro")
    await sanity.create("e2", clerkUserId="user_somebody_else")
    snapshot = await sanity.source.by_subject([Subject(Kind.USER, user)], [sanity.id("e1"), sanity.id("gone")])
    assert [(row["_id"], row["plan"], row["courseSlugs"]) for row in snapshot.rows] == [(sanity.id("e1"), "pro", [])]
    assert snapshot.revisions.keys() == {sanity.id("e1")}
    assert snapshot.revisions[sanity.id("e1")].revision == revision
    assert snapshot.visible >= 2


def moment_of(revision: DocumentRevision) -> datetime:
    assert revision.updated_at is not None
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=revision.updated_at)


def rfc3339(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


async def test_a_revision_is_the_same_in_the_index_and_in_the_store(sanity: SanityPlace) -> None:
    before = datetime.now(UTC) - timedelta(minutes=2)
    await sanity.create("e1", clerkUserId="user_1")
    await sanity.mutate({"patch": {"id": sanity.id("e1"), "set": {"plan": "pro"}}})
    snapshot = await sanity.source.by_subject([], [sanity.id("e1")])
    stored = await sanity.source.stored([sanity.id("e1")])
    seen: DocumentRevision = snapshot.revisions[sanity.id("e1")]
    assert replace(stored.documents[sanity.id("e1")], type="") == seen
    assert before < moment_of(seen) < datetime.now(UTC) + timedelta(minutes=2)


async def test_references_lead_to_courses_and_dead_ones_to_nothing(sanity: SanityPlace) -> None:
    user = f"user_{secrets.token_hex(8)}"
    for course in ("c0", "c1", "c2"):
        await sanity.create(course, _type="course", slug={"_type": "slug", "current": course})
    await sanity.create("p", _type="plan", slug={"_type": "slug", "current": "team"}, courses=[sanity.reference("c0")])
    await sanity.create("h", _type="cohort", courses=[sanity.reference("c1")])
    dead = {**sanity.reference("nowhere"), "_weak": True}
    await sanity.create(
        "e1",
        clerkUserId=user,
        plan={"_type": "reference", "_ref": sanity.id("p")},
        cohorts=[sanity.reference("h")],
        courses=[sanity.reference("c2"), dead],
    )
    (row,) = (await sanity.source.by_subject([Subject(Kind.USER, user)], [])).rows
    assert (row["plan"], sorted(row["courseSlugs"])) == ("team", ["c0", "c1", "c2"])
    page = await sanity.source.affected([sanity.id("c2")], "", [sanity.id("c2")])
    assert [found["_id"] for found in page.rows] == [sanity.id("e1")]
    assert page.revisions is not None
    assert page.revisions.keys() == {sanity.id("c2")}
    assert (await sanity.source.affected([sanity.id("c0")], "", [])).between == (sanity.id("p"),)


async def test_a_walk_over_everything_comes_by_and_ends(sanity: SanityPlace) -> None:
    for name in ("e1", "e2", "e3"):
        await sanity.create(name, clerkUserId="user_1")
    seen: list[str] = []
    after, last = "", False
    while not last:
        page = await sanity.source.everything(after)
        seen += [str(row["_id"]) for row in page.rows]
        after, last = page.cursor, page.last
    assert seen == sorted(set(seen))
    assert {sanity.id(name) for name in ("e1", "e2", "e3")} <= set(seen)


async def test_what_was_published_since_a_moment_is_found(sanity: SanityPlace) -> None:
    await sanity.create("e1", clerkUserId="user_1")
    (reported,) = (await sanity.source.by_subject([], [sanity.id("e1")])).revisions.values()
    since, before = (rfc3339(moment_of(reported) + timedelta(seconds=seconds)) for seconds in (0, 1))
    rows = await sanity.source.changed(since, "", before)
    assert sanity.id("e1") in [row["_id"] for row in rows]
    later = await sanity.source.changed(before, "", "2999-01-01T00:00:00Z")
    assert sanity.id("e1") not in [row["_id"] for row in later]


async def test_a_deleted_document_is_proven_missing(sanity: SanityPlace) -> None:
    await sanity.create("e1")
    await sanity.create("e2")
    await sanity.mutate({"delete": {"id": sanity.id("e1")}})
    answer = await sanity.stored("e1", "e2")
    assert [document["_id"] for document in answer["documents"]] == [sanity.id("e2")]
    assert answer["omitted"] == [{"id": sanity.id("e1"), "reason": "existence"}]
    stored = await sanity.source.stored([sanity.id("e1"), sanity.id("e2")])
    assert stored.missing == {sanity.id("e1")}
    snapshot = await sanity.source.by_subject([], [sanity.id("e1"), sanity.id("e2")])
    assert snapshot.revisions.keys() == {sanity.id("e2")}


async def test_as_many_documents_as_we_ask_for_come_in_one_call(sanity: SanityPlace) -> None:
    await sanity.create("e1")
    ids = [sanity.id("e1"), *(sanity.id(f"gone-{n}") for n in range(DOCUMENTS_PER_CALL - 1))]
    stored = await sanity.source.stored(ids)
    assert (len(stored.documents), len(stored.missing)) == (1, DOCUMENTS_PER_CALL - 1)


async def test_a_question_too_long_for_an_address_is_answered_likewise(sanity: SanityPlace) -> None:
    user = f"user_{secrets.token_hex(8)}"
    await sanity.create("e1", clerkUserId=user)
    many = [Subject(Kind.USER, f"user_{n}_{'x' * 200}") for n in range(99)]
    snapshot = await sanity.source.by_subject([*many, Subject(Kind.USER, user)], [])
    assert [row["_id"] for row in snapshot.rows] == [sanity.id("e1")]


async def test_a_query_that_cannot_be_read_is_400_with_a_description(sanity: SanityPlace) -> None:
    answer = await sanity.query("*[_type ==")
    assert answer.status_code == 400
    assert answer.json()["error"]["description"]


async def test_a_wrong_token_is_401_and_not_an_empty_answer(sanity: SanityPlace) -> None:
    answer = await sanity.http.get(
        f"/data/query/{sanity.dataset}",
        params={"query": "*[0]", "perspective": "published"},
        headers={"authorization": "Bearer skwrong"},
    )
    assert answer.status_code == 401
    # httpx knows our transport by its base only
    sanity.source._client._transport.headers = {"Authorization": "Bearer skwrong"}  # type: ignore[attr-defined]  # ours
    with pytest.raises(CredentialsRefused):
        await sanity.source.everything("")


async def test_a_dataset_that_does_not_exist_is_an_error_and_not_an_empty_answer(sanity: SanityPlace) -> None:
    sanity.source._dataset = f"no-such-{secrets.token_hex(4)}"
    with pytest.raises(ConfigurationError):
        await sanity.source.everything("")

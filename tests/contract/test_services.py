"""What the worker relies on in Clerk and in Sanity, tried at the stand-ins and at real accounts alike.

A test that passes here and fails at an account means that the stand-in is wrong, and everything that was proven with
it. Set the variables that a skipped test names to find out; use a development instance and a dataset for tests.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from sync_worker.domain.entitlements import Change, ChangeKind
from sync_worker.domain.subjects import Kind, Subject
from sync_worker.errors import ConfigurationError, CredentialsRefused, NoSuchSubject
from sync_worker.sanity.client import DOCUMENTS_PER_CALL
from tests.contract.places import CLERK_KEY, SANITY_ACCOUNT, clerk_account

if TYPE_CHECKING:
    import httpx

    from sync_worker.domain.freshness import DocumentRevision
    from tests.contract.places import ClerkPlace, SanityPlace

pytestmark = pytest.mark.anyio


@pytest.mark.skipif(not os.environ.get(CLERK_KEY), reason=f"set {CLERK_KEY} to try all this at a Clerk account too")
def test_the_clerk_account_is_a_development_instance() -> None:
    assert clerk_account()


@pytest.mark.skipif(
    not all(os.environ.get(name) for name in SANITY_ACCOUNT),
    reason=f"set {', '.join(SANITY_ACCOUNT)} (a token that may write) to try all this at a Sanity dataset too",
)
async def test_the_sanity_token_may_write(sanity: SanityPlace) -> None:
    await sanity.create("e1")


RESERVED = {"email_address_identification_status": ["reserved"]}
NESTED = {"app": {"theme": "dark", "deep": {"kept": 1, "gone": 2}}, "list": [1, {"a": 1}, None], "plan": "free"}


def error(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["errors"][0]["code"]


async def public(clerk: ClerkPlace, path: str) -> dict[str, Any]:
    found: dict[str, Any] = (await clerk.get(path))["public_metadata"]
    return found


async def address_of(clerk: ClerkPlace, user: str) -> Subject:
    return Subject(Kind.EMAIL, (await clerk.get(f"/users/{user}"))["email_addresses"][0]["email_address"])


async def test_metadata_is_merged_at_every_depth_and_foreign_keys_stay(clerk: ClerkPlace) -> None:
    path = f"/users/{await clerk.user(public_metadata=NESTED)}"
    answer = await clerk.patch(path, public_metadata={"plan": "pro", "app": {"deep": {"new": True}}})
    merged = {**NESTED, "plan": "pro", "app": {"theme": "dark", "deep": {"kept": 1, "gone": 2, "new": True}}}
    assert answer.json()["public_metadata"] == merged
    assert await public(clerk, path) == merged


async def test_null_removes_a_key_at_every_depth(clerk: ClerkPlace) -> None:
    path = f"/users/{await clerk.user(public_metadata=NESTED)}"
    await clerk.patch(path, public_metadata={"plan": None, "never": None, "app": {"deep": {"gone": None}}})
    assert await public(clerk, path) == {"app": {"theme": "dark", "deep": {"kept": 1}}, "list": NESTED["list"]}


async def test_an_array_is_replaced_whole(clerk: ClerkPlace) -> None:
    path = f"/users/{await clerk.user(public_metadata={'courseSlugs': ['a', 'b', 'c']})}"
    await clerk.patch(path, public_metadata={"courseSlugs": ["d"]})
    assert await public(clerk, path) == {"courseSlugs": ["d"]}


async def test_one_side_of_the_metadata_does_not_touch_the_other(clerk: ClerkPlace) -> None:
    path = f"/users/{await clerk.user(public_metadata={'a': 1}, private_metadata={'b': 2})}"
    await clerk.patch(path, private_metadata={"entitlementSync": {"sources": ["e1"]}})
    user = await clerk.get(path)
    assert user["public_metadata"] == {"a": 1}
    assert user["private_metadata"] == {"b": 2, "entitlementSync": {"sources": ["e1"]}}


async def test_the_same_write_twice_leaves_what_one_leaves(clerk: ClerkPlace) -> None:
    path = f"/users/{await clerk.user(public_metadata=NESTED)}"
    for _ in range(2):
        await clerk.patch(path, public_metadata={"plan": None, "courseSlugs": ["a"]})
    expected = {key: value for key, value in NESTED.items() if key != "plan"} | {"courseSlugs": ["a"]}
    assert await public(clerk, path) == expected


async def test_metadata_of_8_kb_is_taken_and_more_is_refused_whole(clerk: ClerkPlace) -> None:
    path = f"/users/{await clerk.user(public_metadata={'plan': 'free'})}"
    refused = await clerk.patch(path, public_metadata={"plan": "pro", "text": "x" * 8192})
    assert error(refused) == (422, "form_param_exceeds_allowed_size")
    assert await public(clerk, path) == {"plan": "free"}
    assert (await clerk.patch(path, public_metadata={"text": "x" * 8000})).status_code == 200
    # The limit is of what is stored, not of what is sent.
    assert error(await clerk.patch(path, public_metadata={"more": "x" * 500}))[0] == 422


async def test_metadata_that_is_no_object_is_refused(clerk: ClerkPlace) -> None:
    path = f"/users/{await clerk.user()}"
    assert (await clerk.patch(path, public_metadata="pro")).status_code == 422


async def test_metadata_is_not_taken_by_the_profile_route(clerk: ClerkPlace) -> None:
    user = await clerk.user()
    answer = await clerk.http.patch(f"/users/{user}", json={"public_metadata": {"plan": "pro"}})
    assert error(answer) == (422, "form_param_unknown")


async def test_who_does_not_exist_is_404_by_code(clerk: ClerkPlace) -> None:
    user = f"user_2{secrets.token_hex(13)}"
    assert error(await clerk.patch(f"/users/{user}", public_metadata={})) == (404, "resource_not_found")
    assert (await clerk.http.get(f"/users/{user}")).status_code == 404


async def test_a_list_by_ids_leaves_out_who_does_not_exist(clerk: ClerkPlace) -> None:
    user = await clerk.user()
    found = await clerk.get("/users", user_id=[user, f"user_2{secrets.token_hex(13)}"], limit=100)
    assert [one["id"] for one in found] == [user]


async def test_a_list_by_ids_has_ten_rows_unless_a_limit_is_given(clerk: ClerkPlace) -> None:
    users = [await clerk.user() for _ in range(11)]
    assert len(await clerk.get("/users", user_id=users)) == 10
    assert {one["id"] for one in await clerk.get("/users", user_id=users, limit=100)} == set(users)
    assert (await clerk.get("/users/count", user_id=users))["total_count"] == 11


async def test_more_than_a_hundred_ids_are_refused(clerk: ClerkPlace) -> None:
    ids = [f"user_2{secrets.token_hex(13)}" for _ in range(101)]
    assert (await clerk.http.get("/users", params={"user_id": ids, "limit": 100})).status_code == 422


async def test_the_cursor_goes_on_behind_the_user_it_names(clerk: ClerkPlace) -> None:
    users = [await clerk.user() for _ in range(4)]
    query: dict[str, Any] = {"order_by": "+created_at", "limit": 2}
    first = await clerk.get("/users", starting_after=users[0], **query)
    second = await clerk.get("/users", starting_after=users[2], **query)
    assert [one["id"] for one in first] == users[1:3]
    assert second[0]["id"] == users[3]


async def test_the_cursor_is_refused_with_another_order_or_an_offset(clerk: ClerkPlace) -> None:
    user = await clerk.user()
    for wrong in ({"order_by": "updated_at"}, {"offset": 1}):
        answer = await clerk.http.get("/users", params={"starting_after": user, **wrong})
        assert answer.status_code == 422


async def test_a_user_is_found_by_address_and_by_external_id(clerk: ClerkPlace) -> None:
    external = f"ext-{secrets.token_hex(6)}"
    user = await clerk.user(external_id=external)
    address = (await clerk.get(f"/users/{user}"))["email_addresses"][0]["email_address"]
    for query in ({"email_address": [address]}, {"email_address": [address.upper()]}, {"external_id": [external]}):
        assert [one["id"] for one in await clerk.get("/users", limit=100, **query)] == [user], query
    assert await clerk.get("/users", email_address=[f"nobody-{address}"]) == []


async def test_an_address_says_whether_it_is_the_primary_one_and_verified(clerk: ClerkPlace) -> None:
    user = await clerk.get(f"/users/{await clerk.user()}")
    (address,) = user["email_addresses"]
    assert user["primary_email_address_id"] == address["id"]
    assert (address["reserved"], address["verification"]["status"]) == (False, "verified")


async def test_a_reserved_address_says_that_it_is(clerk: ClerkPlace) -> None:
    user = await clerk.get(f"/users/{await clerk.user(**RESERVED)}")
    assert [address["reserved"] for address in user["email_addresses"]] == [True]


async def test_a_write_is_seen_by_the_list_at_once(clerk: ClerkPlace) -> None:
    user = await clerk.user()
    for plan in ("pro", "team"):
        await clerk.patch(f"/users/{user}", public_metadata={"plan": plan})
        (found,) = await clerk.get("/users", user_id=[user], limit=100)
        assert found["public_metadata"] == {"plan": plan}


async def test_a_deleted_user_is_in_no_list(clerk: ClerkPlace) -> None:
    user = await clerk.user()
    await clerk.http.delete(f"/users/{user}")
    assert await clerk.get("/users", user_id=[user], limit=100) == []


async def test_organizations_are_merged_and_listed_by_id_likewise(clerk: ClerkPlace) -> None:
    organization = await clerk.organization(public_metadata=NESTED)
    await clerk.patch(f"/organizations/{organization}", public_metadata={"plan": None, "app": {"deep": None}})
    requested = [organization, f"org_2{secrets.token_hex(13)}"]
    found = await clerk.get("/organizations", organization_id=requested, limit=100)
    assert [one["id"] for one in found["data"]] == [organization]
    assert found["data"][0]["public_metadata"] == {"app": {"theme": "dark"}, "list": NESTED["list"]}


async def test_a_membership_has_metadata_of_its_own(clerk: ClerkPlace) -> None:
    organization, user = await clerk.member(public_metadata={"seat": 1})
    path = f"/organizations/{organization}/memberships"
    await clerk.patch(f"{path}/{user}", public_metadata={"plan": "pro"})
    (found,) = (await clerk.get(path, user_id=[user], limit=100))["data"]
    assert found["public_metadata"] == {"seat": 1, "plan": "pro"}
    assert (found["organization"]["id"], found["public_user_data"]["user_id"]) == (organization, user)
    assert await public(clerk, f"/users/{user}") == {}


async def test_members_of_an_organization_that_is_gone_are_404(clerk: ClerkPlace) -> None:
    answer = await clerk.http.get(f"/organizations/org_2{secrets.token_hex(13)}/memberships")
    assert answer.status_code == 404


async def test_all_memberships_of_the_instance_are_listed_and_counted(clerk: ClerkPlace) -> None:
    organization, user = await clerk.member()
    found = await clerk.get("/organization_memberships", limit=500, offset=0, order_by="+created_at")
    pairs = [(one["organization"]["id"], one["public_user_data"]["user_id"]) for one in found["data"]]
    assert (organization, user) in pairs
    assert found["total_count"] >= len(pairs)


async def test_a_wrong_key_is_401(clerk: ClerkPlace) -> None:
    answer = await clerk.http.get("/users/count", headers={"authorization": "Bearer sk_test_wrong"})
    assert answer.status_code == 401


async def test_what_the_adapter_wrote_is_what_it_reads(clerk: ClerkPlace) -> None:
    organization, user = await clerk.member()
    subjects = [
        Subject(Kind.USER, user),
        Subject(Kind.ORGANIZATION, organization),
        Subject.membership(organization, user),
    ]
    marker = {
        "entitlementSync": {"source": "p/d", "keys": ["plan"], "documents": ["e1"], "fingerprint": "f", "at": "t"}
    }
    for subject in subjects:
        await clerk.target.apply(
            Change(subject, ChangeKind.GRANT, {}, {}, public={"plan": "pro", "courseSlugs": ["a"]}, private=marker)
        )
        await clerk.target.apply(Change(subject, ChangeKind.UPDATE, {}, {}, public={"plan": None}))
    for subject, held in (await clerk.target.observe(subjects)).items():
        assert held.public == {"courseSlugs": ["a"]}, subject
        assert held.markers[None].documents == ("e1",)


async def test_the_adapter_finds_who_has_an_address_and_an_external_id(clerk: ClerkPlace) -> None:
    external = f"-ext-{secrets.token_hex(6)}"
    user, reserved = await clerk.user(external_id=external), await clerk.user(**RESERVED)
    email, unproven = [await address_of(clerk, one) for one in (user, reserved)]
    requested = [email, unproven, Subject.parse(f"external:{external}"), Subject.parse("email:nobody@example.com")]
    found = {address: list(ids) for address, ids in (await clerk.target.find(requested)).users.items()}
    assert found == {email: [user], Subject.parse(f"external:{external}"): [user]}


async def test_the_instance_has_an_id(clerk: ClerkPlace) -> None:
    assert (await clerk.target.instance()).startswith("ins_")


async def test_the_sweep_comes_by_everybody(clerk: ClerkPlace) -> None:
    organization, user = await clerk.member()
    swept = {held.subject async for page in clerk.target.sweep() for held in page}
    assert {
        Subject(Kind.USER, user),
        Subject(Kind.ORGANIZATION, organization),
        Subject.membership(organization, user),
    } <= swept


async def test_the_adapter_tells_who_is_gone_by_name(clerk: ClerkPlace) -> None:
    nobody = Subject(Kind.USER, f"user_2{secrets.token_hex(13)}")
    assert await clerk.target.observe([nobody]) == {}
    with pytest.raises(NoSuchSubject):
        await clerk.target.apply(Change(nobody, ChangeKind.GRANT, {}, {}, public={"plan": "pro"}))


async def test_only_what_is_published_is_seen(sanity: SanityPlace) -> None:
    ids = [before + sanity.id("e1") for before in ("", "drafts.", "versions.r1.")]
    for before in ("", "drafts.", "versions.r1."):
        await sanity.create("e1", before=before)
    published = await sanity.query("*[_id in $ids]._id", ids=ids, perspective="published")
    assert published.json()["result"] == [sanity.id("e1")]
    raw = await sanity.query("*[_id in $ids]._id", ids=ids, perspective="raw")
    assert set(raw.json()["result"]) == set(ids)


async def test_one_query_shows_rows_witnesses_and_a_count(sanity: SanityPlace) -> None:
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

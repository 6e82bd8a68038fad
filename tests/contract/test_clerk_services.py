"""What the worker relies on in Clerk, tried at the stand-in and at a real account alike.

A test that passes here and fails at an account means that the stand-in is wrong, and everything that was proven with
it. Set the variables that a skipped test names to find out; use a development instance.
"""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING, Any

import pytest

from sync_worker.domain.entitlements import Change, ChangeKind
from sync_worker.domain.subjects import Kind, Subject
from sync_worker.errors import NoSuchSubject
from tests.contract.places import CLERK_KEY, clerk_account

if TYPE_CHECKING:
    import httpx

    from tests.contract.places import ClerkPlace

pytestmark = pytest.mark.anyio


@pytest.mark.skipif(not os.environ.get(CLERK_KEY), reason=f"set {CLERK_KEY} to try all this at a Clerk account too")
def test_the_clerk_account_is_a_development_instance() -> None:
    assert clerk_account()


RESERVED = {"email_address_identification_status": ["reserved"]}
NESTED = {"app": {"theme": "dark", "deep": {"kept": 1, "gone": 2}}, "list": [1, {"a": 1}, None], "plan": "free"}


def error(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["errors"][0]["code"]


async def public(clerk: ClerkPlace, path: str) -> dict[str, Any]:
    found: dict[str, Any] = (await clerk.get(path))["public_metadata"]
    return found


async def address_of(clerk: ClerkPlace, user: str) -> Subject:
    return Subject(Kind.EMAIL, (await clerk.get(f"/users/{user}"))["email_addresses"][0]["email_address"])


async def test_metadata_is_merged_at_every_depth_and_unmanaged_keys_stay(clerk: ClerkPlace) -> None:
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


async def test_a_user_who_does_not_exist_is_a_404_with_a_code(clerk: ClerkPlace) -> None:
    user = f"user_2{secrets.token_hex(13)}"
    assert error(await clerk.patch(f"/users/{user}", public_metadata={})) == (404, "resource_not_found")
    assert (await clerk.http.get(f"/users/{user}")).status_code == 404


async def test_a_list_by_ids_leaves_out_users_who_do_not_exist(clerk: ClerkPlace) -> None:
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


async def test_the_adapter_names_who_is_gone(clerk: ClerkPlace) -> None:
    nobody = Subject(Kind.USER, f"user_2{secrets.token_hex(13)}")
    assert await clerk.target.observe([nobody]) == {}
    with pytest.raises(NoSuchSubject):
        await clerk.target.apply(Change(nobody, ChangeKind.GRANT, {}, {}, public={"plan": "pro"}))

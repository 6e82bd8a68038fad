from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.sandbox.answers import codes

if TYPE_CHECKING:
    import httpx

    from sync_worker.sandbox.server import Sandbox


@pytest.fixture
def many(box: Sandbox) -> list[str]:
    """Twelve hundred users, oldest first."""
    return [
        box.clerk.add_user(f"user_{number:04}", email=f"Person{number}@example.com", external_id=f"ext-{number}")
        for number in range(1200)
    ]


async def ids(clerk: httpx.AsyncClient, **params: Any) -> list[str]:
    return [user["id"] for user in (await clerk.get("/users", params=params)).json()]


@pytest.mark.anyio
async def test_ten_users_newest_first_by_default(clerk: httpx.AsyncClient, many: list[str]) -> None:
    assert await ids(clerk) == many[:-11:-1]
    assert await ids(clerk, limit=500, order_by="+created_at") == many[:500]
    assert await ids(clerk, limit=3, offset=2) == many[-3:-6:-1]


@pytest.mark.anyio
async def test_a_hundred_ids_answer_ten_users_without_a_limit(clerk: httpx.AsyncClient, many: list[str]) -> None:
    assert len(await ids(clerk, user_id=many[:100])) == 10
    assert len(await ids(clerk, user_id=many[:100], limit=100)) == 100


@pytest.mark.anyio
@pytest.mark.parametrize("direction", ["+", "-", ""])
async def test_the_cursor_walks_over_everybody_once(clerk: httpx.AsyncClient, many: list[str], direction: str) -> None:
    walked = await ids(clerk, limit=500, order_by=f"{direction}created_at")
    for _ in range(3):
        walked += await ids(clerk, limit=500, order_by=f"{direction}created_at", starting_after=walked[-1])
    assert walked == (many[::-1] if direction == "-" else many)


@pytest.mark.anyio
async def test_the_cursor_goes_on_behind_a_deleted_user(
    box: Sandbox, clerk: httpx.AsyncClient, many: list[str]
) -> None:
    box.clerk.delete_user(many[4])
    assert await ids(clerk, limit=2, order_by="created_at", starting_after=many[4]) == many[5:7]
    assert await ids(clerk, limit=2, order_by="-created_at", starting_after=many[4]) == [many[3], many[2]]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("params", "parameter"),
    [
        ({"limit": 501}, "limit"),
        ({"limit": 0}, "limit"),
        ({"limit": "many"}, "limit"),
        ({"offset": -1}, "offset"),
        ({"order_by": "plan"}, "order_by"),
        ({"starting_after": "user_0001", "order_by": "updated_at"}, "starting_after"),
        ({"starting_after": "user_0001", "offset": 1}, "starting_after"),
        ({"starting_after": "user_nobody"}, "starting_after"),
    ],
)
@pytest.mark.usefixtures("many")
async def test_an_invalid_page_is_422(clerk: httpx.AsyncClient, params: dict[str, Any], parameter: str) -> None:
    assert codes(await clerk.get("/users", params=params)) == (422, "form_param_value_invalid", parameter)


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["user_id", "external_id", "email_address", "organization_id"])
@pytest.mark.usefixtures("many")
async def test_more_than_a_hundred_values_are_422(clerk: httpx.AsyncClient, name: str) -> None:
    answer = await clerk.get("/users", params={name: [f"x{number}" for number in range(101)]})
    assert codes(answer) == (422, "form_param_array_size_exceeded", name)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"user_id": ["user_0001", "user_nobody", "user_0003"]}, ["user_0003", "user_0001"]),
        ({"external_id": ["ext-5", "ext-none"]}, ["user_0005"]),
        ({"email_address": ["person7@EXAMPLE.com"]}, ["user_0007"]),
        ({"user_id": ["+user_0001", "user_0002"], "external_id": ["-ext-2"]}, ["user_0001"]),
        ({"user_id": ["user_nobody"]}, []),
        ({"organization_id": ["org_a"]}, ["user_0009"]),
        ({"user_id": ["user_0008", "user_0009"], "organization_id": ["-org_a"]}, ["user_0008"]),
    ],
)
@pytest.mark.usefixtures("many")
async def test_filters_narrow_and_leave_out_what_is_not_there(
    box: Sandbox, clerk: httpx.AsyncClient, params: dict[str, Any], expected: list[str]
) -> None:
    box.clerk.add_organization("org_a")
    box.clerk.add_membership("org_a", "user_0009")
    assert await ids(clerk, **params, limit=100) == expected
    count = await clerk.get("/users/count", params=params)
    assert count.json() == {"object": "total_count", "total_count": len(expected)}


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"created_at_after": 2000}, ["user_4", "user_3"]),
        ({"created_at_before": 2000}, ["user_0"]),
        ({"created_at_after": 1000, "created_at_before": 3000}, ["user_2", "user_1"]),
        ({"created_at_after": 1000, "starting_after": "user_2"}, ["user_1"]),
        ({"created_at_before": 3000, "starting_after": "user_4"}, ["user_2", "user_1", "user_0"]),
        ({"created_at_after": 1000, "user_id": ["user_0", "user_1"]}, ["user_1"]),
        ({"created_at_after": 1000, "limit": 2, "order_by": "+created_at"}, ["user_1", "user_2"]),
        ({"created_at_after": 2000, "order_by": "-username"}, ["user_3", "user_4"]),
        ({"created_at_after": 5000, "created_at_before": 1000}, []),
    ],
)
async def test_users_created_before_and_after_a_moment(
    box: Sandbox, clerk: httpx.AsyncClient, params: dict[str, Any], expected: list[str]
) -> None:
    for number, created in enumerate((1000, 2000, 2000, 3000, 4000)):
        box.clerk.add_user(f"user_{number}", created_at=created, username=f"u{5 - number}")
    assert await ids(clerk, **params) == expected
    if not params.keys() & {"starting_after", "limit"}:
        count = await clerk.get("/users/count", params=params)
        assert count.json()["total_count"] == len(expected)


@pytest.mark.anyio
async def test_a_moment_that_is_no_number_is_422(clerk: httpx.AsyncClient) -> None:
    answer = await clerk.get("/users", params={"created_at_after": "yesterday"})
    assert codes(answer) == (422, "form_param_value_invalid", "created_at_after")


@pytest.mark.anyio
@pytest.mark.usefixtures("many")
async def test_a_filter_that_is_not_built_is_refused_and_not_ignored(clerk: httpx.AsyncClient) -> None:
    assert codes(await clerk.get("/users", params={"phone_number": "+1"}))[:2] == (501, "not_in_the_sandbox")


@pytest.mark.anyio
async def test_other_orders_put_null_last(box: Sandbox, clerk: httpx.AsyncClient) -> None:
    for name in ("Grace", None, "Ada"):
        box.clerk.add_user(f"user_{name}", first_name=name)
    assert await ids(clerk, order_by="first_name") == ["user_Ada", "user_Grace", "user_None"]


@pytest.mark.anyio
async def test_an_unverified_or_reserved_address_is_found_and_says_so(box: Sandbox, clerk: httpx.AsyncClient) -> None:
    box.clerk.add_user("user_a", email="a@example.com", verified=False)
    box.clerk.add_user("user_b", email="b@example.com", reserved=True)
    users = (await clerk.get("/users", params={"email_address": ["a@example.com", "b@example.com"]})).json()
    found = {user["id"]: user["email_addresses"][0] for user in users}
    assert (found["user_a"]["verification"], found["user_a"]["reserved"]) == (None, False)
    assert (found["user_b"]["verification"], found["user_b"]["reserved"]) == (None, True)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("patch", "result"),
    [
        ({"plan": "pro"}, {"plan": "pro", "nested": {"a": 1, "b": {"c": 2}}, "list": [1, 2]}),
        ({"nested": {"b": {"c": None, "d": 3}}}, {"plan": "x", "nested": {"a": 1, "b": {"d": 3}}, "list": [1, 2]}),
        ({"nested": None}, {"plan": "x", "list": [1, 2]}),
        ({"list": [{"k": None}, None]}, {"plan": "x", "nested": {"a": 1, "b": {"c": 2}}, "list": [{"k": None}, None]}),
        ({"plan": {"deep": {"gone": None}}}, {"plan": {"deep": {}}, "nested": {"a": 1, "b": {"c": 2}}, "list": [1, 2]}),
        ({}, {"plan": "x", "nested": {"a": 1, "b": {"c": 2}}, "list": [1, 2]}),
    ],
)
async def test_patched_metadata_is_merged_deeply(
    box: Sandbox, clerk: httpx.AsyncClient, patch: dict[str, Any], result: dict[str, Any]
) -> None:
    before = {"plan": "x", "nested": {"a": 1, "b": {"c": 2}}, "list": [1, 2]}
    box.clerk.add_user("user_a", public_metadata=before, private_metadata={"kept": 1})
    answer = await clerk.patch("/users/user_a/metadata", json={"public_metadata": patch})
    assert answer.json()["public_metadata"] == result == box.clerk.users["user_a"]["public_metadata"]
    assert box.clerk.users["user_a"]["private_metadata"] == {"kept": 1}


@pytest.mark.anyio
async def test_put_metadata_is_replaced_field_by_field(box: Sandbox, clerk: httpx.AsyncClient) -> None:
    box.clerk.add_user("user_a", public_metadata={"a": 1}, private_metadata={"b": 1})
    await clerk.put("/users/user_a/metadata", json={"public_metadata": {"c": None}})
    user = box.clerk.users["user_a"]
    assert (user["public_metadata"], user["private_metadata"]) == ({"c": None}, {"b": 1})
    await clerk.put("/users/user_a/metadata", json={"public_metadata": {}})
    assert user["public_metadata"] == {}


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"public_metadata": {"x": "y" * 8192}}, (422, "form_param_exceeds_allowed_size", "public_metadata")),
        ({"public_metadata": "text"}, (422, "form_param_value_invalid", "public_metadata")),
        ({"private_metadata": None}, (422, "form_param_value_invalid", "private_metadata")),
        ({"first_name": "x"}, (422, "form_param_unknown", "first_name")),
        ([], (400, "request_body_invalid", None)),
    ],
)
async def test_refused_metadata_leaves_the_user_alone(
    box: Sandbox, clerk: httpx.AsyncClient, body: Any, expected: tuple[int, str, str | None]
) -> None:
    box.clerk.add_user("user_a", public_metadata={"a": 1})
    before = dict(box.clerk.users["user_a"])
    assert codes(await clerk.patch("/users/user_a/metadata", json=body)) == expected
    assert box.clerk.users["user_a"] == before


@pytest.mark.anyio
async def test_the_size_is_that_of_the_merged_result(box: Sandbox, clerk: httpx.AsyncClient) -> None:
    box.clerk.add_user("user_a", public_metadata={"a": "x" * 5000})
    half = {"public_metadata": {"b": "x" * 3100}}
    assert (await clerk.patch("/users/user_a/metadata", json=half)).status_code == 200
    more = await clerk.patch("/users/user_a/metadata", json={"public_metadata": {"c": "x" * 100}})
    assert codes(more) == (422, "form_param_exceeds_allowed_size", "public_metadata")


@pytest.mark.anyio
async def test_the_parent_takes_no_metadata_since_2026_05_12(box: Sandbox, clerk: httpx.AsyncClient) -> None:
    box.clerk.add_user("user_a", public_metadata={"a": 1})
    body = {"public_metadata": {"b": 2}, "first_name": "Ada"}
    assert codes(await clerk.patch("/users/user_a", json=body)) == (422, "form_param_unknown", "public_metadata")
    old = await clerk.patch("/users/user_a", json=body, headers={"clerk-api-version": "2025-11-10"})
    assert (old.json()["public_metadata"], old.json()["first_name"]) == ({"b": 2}, "Ada")


@pytest.mark.anyio
async def test_external_ids_are_unique_and_found_anew(box: Sandbox, clerk: httpx.AsyncClient) -> None:
    box.clerk.add_user("user_a", external_id="one")
    box.clerk.add_user("user_b", external_id="two")
    taken = await clerk.patch("/users/user_b", json={"external_id": "one"})
    assert codes(taken) == (422, "form_identifier_exists", "external_id")
    await clerk.patch("/users/user_b", json={"external_id": "three"})
    assert await ids(clerk, external_id=["two", "three"]) == ["user_b"]


@pytest.mark.anyio
async def test_users_are_created_and_deleted(clerk: httpx.AsyncClient) -> None:
    created = (await clerk.post("/users", json={"email_address": ["a@example.com"], "external_id": "x"})).json()
    assert created["email_addresses"][0]["verification"]["status"] == "verified"
    again = await clerk.post("/users", json={"email_address": ["A@example.com"]})
    assert codes(again) == (422, "form_identifier_exists", "email_address")
    gone = await clerk.delete(f"/users/{created['id']}")
    assert gone.json() == {"object": "user", "id": created["id"], "deleted": True, "external_id": "x"}
    assert codes(await clerk.get(f"/users/{created['id']}"))[:2] == (404, "resource_not_found")
    assert await ids(clerk) == []


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("headers", "params", "expected"),
    [
        ({"authorization": "Bearer sk_test_other"}, {}, (401, "clerk_key_invalid")),
        ({"clerk-api-version": "2025-03-12"}, {}, (400, "api_version_invalid")),
        ({"clerk-api-version": "2026-05-12"}, {"__clerk_api_version": "2026-05-12"}, (400, "api_version_invalid")),
    ],
)
async def test_key_and_version_are_checked(
    clerk: httpx.AsyncClient, headers: dict[str, str], params: dict[str, str], expected: tuple[int, str]
) -> None:
    assert codes(await clerk.get("/users", headers=headers, params=params))[:2] == expected


@pytest.mark.anyio
async def test_a_body_that_is_not_json_is_refused(box: Sandbox, clerk: httpx.AsyncClient) -> None:
    box.clerk.add_user("user_a")
    address = "/users/user_a/metadata"
    broken = await clerk.patch(address, content=b"{", headers={"content-type": "application/json"})
    assert codes(broken)[:2] == (400, "request_body_invalid")
    form = await clerk.patch(address, data={"public_metadata": "{}"})
    assert codes(form)[:2] == (415, "unsupported_content_type")


@pytest.mark.anyio
@pytest.mark.parametrize("text", ["ada", "LOVE", "ada love", "countess", "ada@exa", "user_ada"])
async def test_a_search_finds_part_of_a_name_an_address_or_an_id_in_any_case(
    box: Sandbox, clerk: httpx.AsyncClient, text: str
) -> None:
    box.clerk.add_user("user_alan", email="alan@example.com")
    box.clerk.add_user("user_ada", email="ada@example.com", first_name="Ada", last_name="Lovelace", username="countess")
    assert await ids(clerk, query=text) == ["user_ada"]
    count = (await clerk.get("/users/count", params={"query": text})).json()
    assert (count["total_count"], await ids(clerk, query="nobody like this")) == (1, [])

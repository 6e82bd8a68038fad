"""`import` as a process: what it prints can be imported, and access follows."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.builders import reference

if TYPE_CHECKING:
    from sync_worker.sandbox.server import Sandbox
    from tests.cli.terminal import Operator

pytestmark = pytest.mark.anyio
FILE = """E-Mail,Id,Name,plan,courses,endsAt
ada@example.org,,Ada,pro,algebra,
,user_2,Ben,basic,algebra;biology,2099-01-01
,user_3,Cy,pro,,2001-01-01
"""
MAPPED = ("--columns", "E-Mail=userEmail,Id=clerkUserId", "--columns", "Name=")


@pytest.fixture(autouse=True)
async def school(box: Sandbox) -> None:
    box.clerk.add_user("user_1", email="ada@example.org")
    box.clerk.add_user("user_2")
    box.clerk.add_user("user_3")
    courses = [
        {"_id": f"c-{slug}", "_type": "course", "slug": {"current": slug}} for slug in ("algebra", "biology", "x")
    ]
    plan = {"_id": "plan-pro", "_type": "plan", "slug": {"current": "pro"}, "courses": [reference("c-x")]}
    await box.lake.mutate([{"create": document} for document in (*courses, plan)])


async def imported(operator: Operator, text: str, *arguments: str) -> list[dict[str, Any]]:
    (operator.folder / "people.csv").write_text(text)
    ended = await operator.run("import", "people.csv", *arguments)
    assert ended.code == 0, ended.err
    return [json.loads(line) for line in ended.out.splitlines()]


async def test_what_is_imported_reaches_clerk_and_importing_it_again_changes_nothing(
    box: Sandbox, operator: Operator
) -> None:
    documents = await imported(operator, FILE, *MAPPED)
    await box.lake.mutate([{"createIfNotExists": document} for document in documents])
    assert (await operator.reconcile())[0] == 0
    users = {user: found["public_metadata"] for user, found in box.clerk.users.items()}
    assert users == {
        "user_1": {"plan": "pro", "courseSlugs": ["algebra", "x"]},
        "user_2": {"plan": "basic", "courseSlugs": ["algebra", "biology"]},
        "user_3": {},
    }
    before, writes = dict(box.lake.documents), operator.writes()
    await box.lake.mutate([{"createIfNotExists": one} for one in await imported(operator, FILE, *MAPPED)])
    assert box.lake.documents == before
    assert (await operator.reconcile("--dry-run"))[0] == 0
    assert operator.writes() == writes


async def test_import_previews_the_access_without_showing_addresses(operator: Operator) -> None:
    (operator.folder / "people.csv").write_text(FILE)
    ended = await operator.run("import", "people.csv", *MAPPED)
    assert "3 entitlements for 3 subjects" in ended.err
    assert "email:a***@example.org: plan=pro courseSlugs=algebra,x" in ended.err
    assert "user:user_2: plan=basic courseSlugs=algebra,biology, changes at 2099-01-01 00:00 UTC" in ended.err
    assert "user:user_3: nothing now" in ended.err
    assert "ada@" not in ended.err


async def test_one_wrong_line_lets_nothing_be_printed(operator: Operator) -> None:
    (operator.folder / "people.csv").write_text(f"{FILE},user_4,Di,pro,algbra,\n,user_5,Ed,pro,,soon\n")
    ended = await operator.run("import", "people.csv", *MAPPED)
    assert (ended.code, ended.out) == (1, "")
    assert "line 5, courses: no published course has the slug 'algbra'" in ended.err
    assert "line 6, endsAt: is not a time" in ended.err


@pytest.mark.parametrize("raw", [b"", b"\xef\xbb\xbf", b"\r\n"])
async def test_an_empty_file_is_refused(operator: Operator, raw: bytes) -> None:
    (operator.folder / "people.csv").write_bytes(raw)
    ended = await operator.run("import", "people.csv")
    assert (ended.code, ended.out) == (1, "")
    assert "line 1: the file has no lines below a header" in ended.err


async def test_what_excel_saves_is_read_and_a_header_with_a_comma_is_mapped_in_quotes(operator: Operator) -> None:
    text = '\ufeffId;"Name, full";Tariff\r\nuser_2;"O\'Neill; ""Ben""";pro\r\n'
    arguments = ("--columns", 'Id=clerkUserId,"Name, full=",Tariff=plan')
    (document,) = await imported(operator, text, *arguments)
    assert document["clerkUserId"] == "user_2"


async def test_a_wrong_mapping_says_what_to_write(operator: Operator) -> None:
    (operator.folder / "people.csv").write_text(FILE)
    ended = await operator.run("import", "people.csv", "--columns", "Tariff=plans")
    assert (ended.code, ended.out) == (1, "")
    assert "--columns takes HEADER=COLUMN" in ended.err


async def test_a_file_that_is_not_utf_8_is_refused(operator: Operator) -> None:
    (operator.folder / "people.csv").write_bytes("clerkUserId,plan\nuser_1,b\xe4sic\n".encode("latin-1"))
    ended = await operator.run("import", "people.csv")
    assert (ended.code, ended.out) == (1, "")
    assert "save it as CSV in UTF-8" in ended.err


async def test_ten_thousand_lines_take_one_query_and_no_write(box: Sandbox, operator: Operator) -> None:
    lines = [f"user_{n},pro,{('algebra', 'biology')[n % 2]}" for n in range(10_000)]
    box.lake.requests.clear()
    documents = await imported(operator, "\n".join(["clerkUserId,plan,courses", *lines]))
    assert len({document["_id"] for document in documents}) == 10_000
    assert (box.lake.requests.count(), operator.writes()) == (1, 0)

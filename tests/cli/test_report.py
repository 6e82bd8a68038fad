"""`report` as a process: its three forms, and what it refuses."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

import pytest

from sync_worker.cli.report import cell_of
from tests.cli.terminal import publish

if TYPE_CHECKING:
    from sync_worker.sandbox.server import Sandbox
    from tests.cli.terminal import Operator

pytestmark = pytest.mark.anyio


async def test_report_prints_who_has_what_as_json_csv_and_table(box: Sandbox, operator: Operator) -> None:
    await publish(box, 2, role="=1+1", endsAt="2099-01-01T00:00:00Z")
    await operator.reconcile()
    writes = operator.writes()
    as_json = json.loads((await operator.run("report", "--plan", "pro", "--json")).out)
    assert [(one["subject"], one["documents"], one["until"]) for one in as_json] == [
        ("user:user_0000", ["ent-user_0000"], "2099-01-01T00:00:00Z"),
        ("user:user_0001", ["ent-user_0001"], "2099-01-01T00:00:00Z"),
    ]
    first, _ = csv.DictReader((await operator.run("report", "--csv")).out.splitlines())
    assert (first["subject"], first["plan"], first["courseSlugs"]) == ("user:user_0000", "pro", "")
    assert (first["role"], first["documents"], first["since"]) == ("'=1+1", "ent-user_0000", as_json[0]["since"])
    table = await operator.run("report", "--plan", "basic")
    assert (table.code, "0 subjects" in table.err, operator.writes()) == (0, True, writes)


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("=1+1", "'=1+1"),
        (["algebra", "=cmd|' /C calc'!A0"], "algebra;'=cmd|' /C calc'!A0"),
        (["@SUM(A1)", "-2"], "'@SUM(A1);'-2"),
        ("\uff1d1+1", "'\uff1d1+1"),
        ("a\x1b[2Jb", "a\\u001b[2Jb"),
        ("pro", "pro"),
        (None, ""),
        ([], ""),
    ],
)
def test_no_cell_is_a_formula_nor_controls_a_terminal(value: object, cell: str) -> None:
    assert cell_of(value) == cell


async def test_report_at_a_moment_shows_what_had_been_written(box: Sandbox, operator: Operator) -> None:
    await publish(box, 1)
    await operator.reconcile()
    assert json.loads((await operator.run("report", "--at", "2020-01-01", "--json")).out) == []


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--at", "yesterday"), "--at is not a time or a date"),
        (("--at", "2026-05-01T12:00"), "--at has no time zone"),
        (("--at", "2199-01-01"), "--at is in the future"),
        (("--csv", "--json"), "exclude each other"),
    ],
)
async def test_report_refuses_what_it_cannot_show(operator: Operator, arguments: tuple[str, ...], problem: str) -> None:
    ended = await operator.run("report", *arguments)
    assert (ended.code, ended.out) == (1, "")
    assert problem in ended.err

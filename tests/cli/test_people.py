"""Names beside ids in the command line, and names instead of ids."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.cli.terminal import delete, publish

if TYPE_CHECKING:
    from tests.cli.terminal import Operator

pytestmark = pytest.mark.anyio
ADA, BEN = "user_0000", "user_0001"


@pytest.fixture
async def operator(operator: Operator) -> Operator:
    """People who have a plan that is not in Clerk yet; two of them have names."""
    await publish(operator.box, 3)
    operator.box.clerk.update_user(ADA, first_name="Ada", last_name="Lovelace")
    operator.box.clerk.update_user(BEN, first_name="Ben", last_name="Lovecraft")
    return operator


async def test_every_table_shows_the_name_beside_the_id(operator: Operator) -> None:
    dry = await operator.run("reconcile", "--dry-run")
    await operator.reconcile()
    shown = [dry, await operator.run("history"), await operator.run("report"), await operator.run("sync", ADA, BEN)]
    await delete(operator.box, [ADA, BEN])
    shown += [await operator.run("verify")]
    assert (await operator.run("reconcile", "--accept-fewer", MAX_REVOCATIONS="1")).code == 3
    shown += [await operator.run("approve")]
    for ended in shown:
        (line,) = [line for line in ended.out.splitlines() if ADA in line]
        assert "Ada Lovelace" in line


async def test_json_has_no_names(operator: Operator) -> None:
    await operator.reconcile()
    for verb in (("history",), ("report",), ("sync", ADA), ("explain", ADA), ("failed",), ("verify",), ("approve",)):
        ended = await operator.run(*verb, "--json")
        assert "Lovelace" not in ended.out + ended.err
        json.loads(ended.out)


async def test_a_person_is_explained_by_name(operator: Operator) -> None:
    ended = await operator.run("explain", "ada love")
    assert (ended.code, f"Ada Lovelace · user:{ADA}: late" in ended.out) == (0, True)


async def test_several_people_of_a_name_are_listed_with_their_ids(operator: Operator) -> None:
    ended = await operator.run("explain", "love")
    assert ended.code == 1
    assert [line.split()[:3] for line in ended.out.splitlines()[1:]] == [
        [ADA, "Ada", "Lovelace"],
        [BEN, "Ben", "Lovecraft"],
    ]
    assert "run `sync-worker explain ID` with one of" in ended.err
    as_json = await operator.run("explain", "love", "--json")
    assert (as_json.code, as_json.out, ADA in as_json.err) == (1, "", True)


async def test_a_document_that_there_is_wins_over_a_name(operator: Operator) -> None:
    await operator.box.lake.mutate([{"create": {"_id": "love", "_type": "entitlement", "clerkUserId": BEN}}])
    assert (await operator.run("explain", "love")).out.startswith("love: ")


async def test_without_an_answer_of_clerk_only_the_id_is_shown(operator: Operator) -> None:
    await operator.reconcile()
    operator.box.clerk.faults.some("unauthorized", 1.0)
    ended = await operator.run("history")
    assert (ended.code, ended.out.count("user:user_"), "Lovelace" in ended.out) == (0, 3, False)

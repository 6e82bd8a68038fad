"""A reconcile that cannot read everything takes nothing away, and one that cannot write everything has failed."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.terminal import Operator, delete, publish
from tests.oracle import wrong
from tests.sizes import full_size, the_rest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.nursery import Ended


pytestmark = pytest.mark.anyio


async def nothing_was_taken_away(operator: Operator, ended: Ended, named: str, held: dict[str, Any]) -> None:
    assert ended.code == 1, ended
    assert named in ended.err
    assert "Traceback" not in ended.err
    assert {u: v["public_metadata"] for u, v in operator.box.clerk.users.items()} == held


@pytest.fixture
async def settled(operator: Operator) -> dict[str, Any]:
    """Thirty users with access, in sync. Returns their metadata in Clerk."""
    await publish(operator.box, 30)
    await operator.reconcile()
    return copy.deepcopy({u: v["public_metadata"] for u, v in operator.box.clerk.users.items()})


async def test_an_empty_dataset_takes_nothing_away(operator: Operator, settled: dict[str, Any]) -> None:
    await delete(operator.box, list(settled))
    ended = await operator.run("reconcile")
    await nothing_was_taken_away(operator, ended, "No entitlement is visible", settled)


async def test_fewer_than_half_of_the_last_good_run_takes_nothing_away(
    operator: Operator, settled: dict[str, Any]
) -> None:
    await delete(operator.box, list(settled)[:20])
    ended = await operator.run("reconcile", "--max-revocations", "100%")
    await nothing_was_taken_away(operator, ended, "10 now, 30 in the last good run", settled)
    assert "Far fewer entitlements are visible" in ended.err


async def test_fewer_than_half_can_be_accepted_by_a_person(operator: Operator, settled: dict[str, Any]) -> None:
    await delete(operator.box, list(settled)[:20])
    code, report = await operator.reconcile("--accept-fewer", "--max-revocations", "100%")
    assert (code, report["revoked"], wrong(operator.box)) == (0, 20, [])


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        ("unauthorized", "SANITY_READ_TOKEN"),
        ("forbidden", "SANITY_READ_TOKEN"),
        ("error_in_ok", "has no result"),
        ("truncated", "Sanity"),
        ("internal", "Sanity answered 500"),
        pytest.param("rate_limited", "rate-limiting our calls", marks=full_size),
    ],
)
async def test_trouble_with_sanity_takes_nothing_away(
    operator: Operator, settled: dict[str, Any], fault: str, named: str
) -> None:
    await delete(operator.box, list(settled)[:10])
    operator.box.lake.faults.next(fault, 100)
    ended = await operator.run("reconcile", "--max-revocations", "100%")
    await nothing_was_taken_away(operator, ended, named, settled)


@pytest.mark.parametrize("fault", the_rest(["unauthorized", "forbidden", "internal", "truncated"], quick=["internal"]))
async def test_trouble_with_clerk_takes_nothing_away(operator: Operator, settled: dict[str, Any], fault: str) -> None:
    await delete(operator.box, list(settled)[:10])
    operator.box.clerk.faults.next(fault, 100)
    ended = await operator.run("reconcile", "--max-revocations", "100%")
    await nothing_was_taken_away(operator, ended, "Clerk", settled)


async def test_a_page_that_fails_in_the_middle_takes_nothing_away(operator: Operator, settled: dict[str, Any]) -> None:
    rows = [{"_id": f"more-{n:05}", "_type": "entitlement", "clerkUserId": "user_0000"} for n in range(1500)]
    await operator.box.lake.load(rows)
    await delete(operator.box, list(settled)[:10])
    operator.box.lake.faults.some("unavailable", 0.9)
    ended = await operator.run("reconcile", "--max-revocations", "100%")
    await nothing_was_taken_away(operator, ended, "Sanity", settled)


# authentik#19295: a wrong filter removed every user.
async def test_a_filter_typo_takes_nothing_away(operator: Operator, settled: dict[str, Any], tmp_path: Path) -> None:
    from sync_worker.settings import packaged_groq  # noqa: PLC0415 - only here

    for file in packaged_groq().glob("*.groq"):
        (tmp_path / file.name).write_text(file.read_text().replace('"entitlement"', '"entitlemnt"'))
    ended = await operator.run("reconcile", GROQ_DIR=str(tmp_path))
    await nothing_was_taken_away(operator, ended, "No entitlement is visible", settled)


# stripe sync-engine-fork#189: a rate-limited, half finished run counted as success for seven days.
async def test_a_run_that_could_not_write_everything_is_a_failed_run(operator: Operator) -> None:
    users = await publish(operator.box, 3)
    operator.box.clerk.faults.next("unavailable", 100, path_prefix=f"/v1/users/{users[0]}")
    code, report = await operator.reconcile()
    assert (code, report["granted"]) == (1, 2)

"""`sync-worker reconcile`, `approve` and `verify`, as operators run them, against the sandbox."""

from __future__ import annotations

import asyncio
import copy
import json
import os
import re
import signal
import sys
from random import Random
from typing import TYPE_CHECKING

import pytest

from sync_worker.cli.processes import install_hook
from sync_worker.domain.changeset import LossLimit
from tests.cli.terminal import Operator, delete, publish
from tests.nursery import listening, process
from tests.oracle import GUARD, until, until_idle, wrong
from tests.sizes import sizes, the_rest

if TYPE_CHECKING:
    from pathlib import Path

    from sync_worker.sandbox.server import Sandbox

pytestmark = pytest.mark.anyio


KEYS = {
    "checked",
    "granted",
    "updated",
    "revoked",
    "unchanged",
    "refused",
    "held",
    "taken_over",
    "writes",
    "clerk_calls",
    "sanity_calls",
    "seconds",
}


async def test_one_run_syncs_everybody_and_a_second_writes_nothing(operator: Operator) -> None:
    await publish(operator.box, 120)
    code, report = await operator.reconcile()
    assert (code, set(report), report["granted"], report["writes"]) == (0, KEYS, 120, 120)
    assert wrong(operator.box) == []
    code, report = await operator.reconcile()
    assert (code, report["writes"], report["unchanged"], report["checked"]) == (0, 0, 120, 120)


async def test_missed_edits_and_deletes_are_repaired(operator: Operator) -> None:
    random = Random(3)
    users = await publish(operator.box, 100)
    await operator.reconcile()
    for user in random.sample(users, 60):
        match random.randrange(3):
            case 0:
                await delete(operator.box, [user])
            case 1:
                await operator.box.lake.mutate([{"patch": {"id": f"ent-{user}", "set": {"plan": "basic"}}}])
            case _:
                target = random.choice(users)
                await operator.box.lake.mutate([{"patch": {"id": f"ent-{user}", "set": {"clerkUserId": target}}}])
    code, _ = await operator.reconcile("--max-revocations", "100%")
    assert (code, wrong(operator.box)) == (0, [])
    code, report = await operator.reconcile()
    assert (code, report["writes"]) == (0, 0)


# auth0-deploy-cli#1227: a dry run that deployed.
async def test_a_dry_run_writes_nothing_and_exits_with_2_on_drift(operator: Operator) -> None:
    await publish(operator.box, 3)
    code, report = await operator.reconcile("--dry-run")
    assert (code, report["granted"], report["writes"], operator.writes()) == (2, 3, 0, 0)
    await operator.reconcile()
    assert (await operator.reconcile("--dry-run"))[0] == 0


async def test_an_address_that_several_people_have_is_reported_once(operator: Operator) -> None:
    for user in ("user_1", "user_2"):
        operator.box.clerk.add_user(user, email="shared@example.com")
    row = {"_id": "ent-shared", "_type": "entitlement", "userEmail": "shared@example.com", "plan": "pro"}
    await operator.box.lake.mutate([{"create": row}])
    ended = await operator.run("reconcile", "--dry-run")
    assert ended.err.count("refused: ent-shared: userEmail: ") == 1


async def test_too_many_losses_are_held_while_grants_go_on_and_approve_applies_them(operator: Operator) -> None:
    users = await publish(operator.box, 100)
    await operator.reconcile()
    new = operator.box.clerk.add_user("user_new")
    await operator.box.lake.mutate(
        [{"create": {"_id": "ent-new", "_type": "entitlement", "clerkUserId": new, "plan": "pro"}}]
    )
    await delete(operator.box, users[:40])
    code, report = await operator.reconcile()
    assert (code, report["held"], report["revoked"], report["granted"]) == (3, 40, 0, 1)
    assert wrong(operator.box) == users[:40]
    (held,) = json.loads((await operator.run("approve", "--json")).out)
    assert len(held["subjects"]) == 40
    approved = await operator.run("approve", held["id"], "--json")
    assert (approved.code, json.loads(approved.out)["revoked"]) == (0, 40)
    assert wrong(operator.box) == []
    assert json.loads((await operator.run("approve", "--json")).out) == []
    entries = json.loads((await operator.run("history", "--json", "--limit", "40")).out)
    assert {(entry["change"], entry["cause"]) for entry in entries} == {("revoke", f"approve:{held['id']}")}


async def test_a_user_entitled_again_by_the_time_of_approval_keeps_access(operator: Operator) -> None:
    users = await publish(operator.box, 20)
    await operator.reconcile()
    await delete(operator.box, users[:10])
    await operator.reconcile()
    (held,) = json.loads((await operator.run("approve", "--json")).out)
    again = {"_id": "ent-again", "_type": "entitlement", "clerkUserId": users[0], "plan": "pro"}
    await operator.box.lake.mutate([{"create": again}])
    report = json.loads((await operator.run("approve", held["id"], "--json")).out)
    assert (report["revoked"], report["kept"]) == (9, 1)
    assert wrong(operator.box) == []


async def test_an_unknown_changeset_is_refused(operator: Operator) -> None:
    ended = await operator.run("approve", "nonsense")
    assert ended.code == 1
    assert "No held changeset has this id" in ended.err


async def test_a_hand_set_plan_without_our_marker_is_left_alone_unless_adopted(operator: Operator) -> None:
    await publish(operator.box, 1)
    operator.box.clerk.add_user("user_vip", public_metadata={"plan": "vip", "theme": 1})
    await operator.reconcile()
    assert operator.box.clerk.users["user_vip"]["public_metadata"]["plan"] == "vip"
    await operator.reconcile("--adopt")
    assert operator.box.clerk.users["user_vip"]["public_metadata"] == {"theme": 1}


async def test_an_edit_in_clerk_is_distinguished_from_a_missed_change(operator: Operator) -> None:
    edited, missed = await publish(operator.box, 2)
    await operator.reconcile()
    operator.box.clerk.users[edited]["public_metadata"]["plan"] = "by-hand"
    await operator.box.lake.mutate([{"patch": {"id": f"ent-{missed}", "set": {"plan": "basic"}}}])
    ended = await operator.run("reconcile", "--dry-run", "--markdown")
    (by_hand,) = [line for line in ended.out.splitlines() if edited in line]
    (late,) = [line for line in ended.out.splitlines() if missed in line]
    assert "edited in Clerk" in by_hand
    assert "missed by us" in late


@pytest.mark.parametrize("count", sizes(2_000, 10_000))
async def test_without_drift_many_users_cost_few_calls_and_no_write(operator: Operator, count: int) -> None:
    for number in range(count):
        operator.box.clerk.add_user(f"user_{number:05}")
    row = {"_type": "entitlement", "clerkUserId": "user_00001", "plan": "pro"}
    await operator.box.lake.mutate([{"create": {"_id": "ent-1", **row}}])
    await operator.reconcile()
    code, report = await operator.reconcile()
    assert (code, report["checked"], report["writes"]) == (0, count, 0)
    assert report["clerk_calls"] <= count // 500 + 10


@pytest.mark.parametrize("count", sizes(30, 200))
@pytest.mark.parametrize("lost", the_rest([0.05, 0.5, 1.0], quick=[0.5]))
async def test_one_reconcile_repairs_any_share_of_lost_webhooks(
    operator: Operator, tmp_path: Path, lost: float, count: int
) -> None:
    box, random = operator.box, Random(int(lost * 100))
    users = await publish(box, count)
    await operator.reconcile()
    ids = [f"ent-{user}" for user in users]
    async with listening("serve", {**operator.environment, "POLL_SECONDS": "0"}, tmp_path / "log") as url:
        install_hook(box, url)
        box.lake.webhooks.deliveries.faults.drop = lost
        for _ in range(5 * count):
            document = random.choice(ids)
            if random.random() < 0.1 and len(ids) > count // 2 + 10:
                ids.remove(document)
                await box.lake.mutate([{"delete": {"id": document}}])
            else:
                change = random.choice([{"plan": random.choice("abc")}, {"clerkUserId": random.choice(users)}])
                await box.lake.mutate([{"patch": {"id": document, "set": change}}])
        await box.lake.hooks_idle()
        await until_idle(operator.environment["DATABASE_URL"])
    code, _ = await operator.reconcile("--max-revocations", "100%")
    assert (code, wrong(box)) == (0, [])
    code, report = await operator.reconcile()
    assert (code, report["writes"]) == (0, 0)


async def test_a_second_run_at_the_same_time_is_refused(operator: Operator) -> None:
    faults = operator.box.lake.faults
    await publish(operator.box, 1)
    faults.hold()
    first = asyncio.create_task(operator.run("reconcile"))
    await until(lambda: faults.held > 0)
    second = await operator.run("reconcile")
    faults.release()
    assert (second.code, "Another reconcile is running" in second.err) == (1, True)
    assert (await first).code == 0


# ssosync#88: accounts that the tool did not create were deleted.
async def test_unmanaged_accounts_are_never_touched(operator: Operator) -> None:
    await publish(operator.box, 5)
    for number in range(50):
        operator.box.clerk.add_user(f"user_other{number}", public_metadata={"role": "owner"}, private_metadata={"x": 1})
    before = copy.deepcopy({u: v for u, v in operator.box.clerk.users.items() if "other" in u})
    await operator.reconcile()
    assert {u: v for u, v in operator.box.clerk.users.items() if "other" in u} == before


async def test_verify_proves_that_both_sides_are_equal(operator: Operator) -> None:
    await publish(operator.box, 7)
    await operator.reconcile()
    ended = await operator.run("verify", "--json")
    report = json.loads(ended.out)
    assert (ended.code, report["equal"], report["differing"]) == (0, True, [])
    (pro,) = report["plans"]
    assert pro["sanity"] == pro["clerk"]
    assert pro["sanity"]["count"] == 7


async def test_verify_names_subjects_out_of_sync(operator: Operator) -> None:
    users = await publish(operator.box, 2)
    await operator.reconcile()
    operator.box.clerk.users[users[1]]["public_metadata"]["plan"] = "by-hand"
    ended = await operator.run("verify", "--json")
    report = json.loads(ended.out)
    assert (ended.code, report["equal"], report["differing"]) == (2, False, [f"user:{users[1]}"])


@pytest.mark.parametrize(
    ("text", "population", "allowed"),
    [("10%", 1000, 100), ("10%", 10, 5), ("0%", 1000, 5), ("7", 1000, 7), ("0", 9, 0)],
)
def test_the_limit_allows_a_number_or_a_percentage_of_at_least_five(text: str, population: int, allowed: int) -> None:
    assert LossLimit(text).allowed(population) == allowed


async def test_organizations_and_memberships_are_synced_too(operator: Operator) -> None:
    box = operator.box
    (user,) = await publish(box, 1)
    box.clerk.add_organization("org_1", public_metadata={"seats": 5})
    box.clerk.add_membership("org_1", user)
    of_org = {"_id": "e-org", "_type": "entitlement", "clerkOrganizationId": "org_1", "plan": "team"}
    of_member = {**of_org, "_id": "e-member", "clerkUserId": user, "role": "teacher"}
    await box.lake.mutate([{"create": of_org}, {"create": of_member}])
    code, report = await operator.reconcile()
    assert (code, report["granted"]) == (0, 3)
    assert box.clerk.organizations["org_1"]["public_metadata"] == {"seats": 5, "plan": "team", "courseSlugs": []}
    assert box.clerk.memberships["org_1", user]["public_metadata"]["role"] == "teacher"
    assert "role" not in box.clerk.users[user]["public_metadata"]
    await box.lake.mutate([{"delete": {"id": "e-org"}}, {"delete": {"id": "e-member"}}])
    code, report = await operator.reconcile("--accept-fewer")
    assert (code, report["revoked"]) == (0, 2)
    assert box.clerk.organizations["org_1"]["public_metadata"] == {"seats": 5}
    assert box.clerk.memberships["org_1", user]["public_metadata"] == {}


async def test_ctrl_c_exits_cleanly_and_applied_changes_are_in_the_ledger(operator: Operator, tmp_path: Path) -> None:
    box, log = operator.box, tmp_path / "log"
    await publish(box, 60)
    box.clerk.faults.hold(path_prefix="/v1/users/user_005")
    async with process("reconcile", operator.environment, log) as running:
        await until(lambda: bool(box.clerk.faults.held and granted(box)))
        running.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(running.wait(), GUARD) == 130
    (done,) = re.findall(r"(\d+) of 60 subjects are done\. (\d+) are not: run the command again", log.read_text())
    assert sum(map(int, done)) == 60
    assert "Traceback" not in log.read_text()
    assert 0 < len(granted(box)) < 60
    box.clerk.faults.release()
    await until(lambda: all(request.ended for request in box.clerk.requests.requests))
    history = json.loads((await operator.run("history", "--json", "--limit", "1000")).out)
    assert granted(box) <= {entry["subject"].removeprefix("user:") for entry in history}
    assert (await operator.reconcile())[0] == 0
    assert wrong(box) == []


def granted(box: Sandbox) -> set[str]:
    return {user for user, held in box.clerk.users.items() if "plan" in held["public_metadata"]}


async def test_a_terminal_shows_progress_with_its_rate(operator: Operator) -> None:
    await publish(operator.box, 150)
    terminal, inner = os.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sync_worker", "reconcile"),
        env={"PATH": os.environ["PATH"], "TERM": "xterm", "COLUMNS": "120", **operator.environment},
        cwd=operator.folder,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=inner,
    )
    os.close(inner)
    shown = await asyncio.to_thread(_read_all, terminal)
    assert await process.wait() == 0
    assert "repaired" in shown
    assert "/s" in shown
    assert "150/150" in shown
    assert "Traceback" not in shown


def _read_all(terminal: int) -> str:
    """Read until the last process with the terminal open has exited."""
    text = b""
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # Linux, when the other end is closed
            part = b""
        if not part:
            os.close(terminal)
            return text.decode()
        text += part

"""`explain`, `failed` and `history`, as operators run them when somebody cannot get in."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from sync_worker.cli.processes import settings_for
from sync_worker.errors import NoSuchSubject
from sync_worker.runtime.wiring import open_store
from tests.builders import publish, reference
from tests.nursery import Ended, process, run
from tests.oracle import until
from tests.parts import RUNTIME, settings_of

if TYPE_CHECKING:
    from pathlib import Path

    from sync_worker.sandbox.server import Sandbox

pytestmark = pytest.mark.anyio
ADA = "ada@example.org"
STATES = {"state", "key", "code", "document", "field", "reason", "since", "attempts", "nextAttempt", "nextStep"}


@dataclass(frozen=True)
class Operator:
    """An operator at a terminal."""

    box: Sandbox
    folder: Path
    environment: dict[str, str]

    async def run(self, *arguments: str) -> Ended:
        return await run(*arguments, cwd=self.folder, environment=self.environment)

    async def json(self, *arguments: str) -> Any:
        ended = await self.run(*arguments, "--json")
        assert ended.code == 0, ended.err
        return json.loads(ended.out)

    async def publish(self, document: str, **fields: Any) -> None:
        await publish(self.box, document, **fields)


@pytest.fixture
def operator(box: Sandbox, tmp_path: Path) -> Operator:
    environment = settings_for(box, f"sqlite:///{tmp_path / 'work.db'}")
    return Operator(box, tmp_path, {**environment, "PLAN_ORDER": "basic,pro"})


async def test_explain_resolves_an_address_to_its_owner_and_never_prints_it(operator: Operator) -> None:
    operator.box.clerk.add_user("user_1", email=ADA)
    await operator.publish("e1", userEmail=ADA)
    found = await operator.json("explain", ADA)
    assert (found["subject"], found["state"], found["clerk"]["found"]) == ("user:user_1", "late", True)
    assert "sync-worker sync user:user_1" in found["nextStep"]
    assert [row["document"] for row in found["rows"]] == ["e1"]
    shown = await operator.run("explain", ADA)
    assert "user:user_1: late" in shown.out
    assert ADA not in shown.out + shown.err + json.dumps(found)


async def test_explain_of_a_document_has_the_agreed_keys(operator: Operator) -> None:
    operator.box.clerk.add_user("user_1")
    await operator.publish("e1", clerkUserId="user_1")
    await operator.run("sync", "user_1")
    found = await operator.json("explain", "e1")
    keys = {"document", "state", "headline", "revision", "published", "inClerk", "inSessionsBy", "inToken"}
    keys |= {"unresolved", "subjects", "nextStep"}
    assert set(found) == keys
    assert (found["document"], found["state"]) == ("e1", "synced")
    assert found["subjects"][0]["access"]["values"]["plan"] == "pro"
    assert "→ in every session by" in (await operator.run("explain", "e1")).out


async def test_explain_says_of_each_key_whose_it_is_and_what_the_app_had(operator: Operator) -> None:
    operator.box.clerk.add_user("user_1", public_metadata={"plan": "team", "role": "admin"})
    await operator.publish("e1", clerkUserId="user_1")
    await operator.run("reconcile")
    shown = (await operator.run("explain", "user_1")).out
    assert re.search(r"plan=pro: +managed since [\dT:-]+Z, from e1; the app had plan=team\n", shown)
    assert re.search(r"role=admin: +not managed: it is left alone\n", shown)


async def test_explain_writes_nothing(operator: Operator) -> None:
    operator.box.clerk.add_user("user_1")
    await operator.publish("e1", clerkUserId="user_1")
    await operator.run("explain", "user_1")
    await operator.run("explain", "e1")
    assert operator.box.clerk.requests.writes == []


async def test_explain_refuses_what_is_no_subject_no_document_and_no_name(operator: Operator) -> None:
    for text, problem in (("../etc", "Nobody is found by this name"), ("x" * 200, "This is not a valid subject")):
        ended = await operator.run("explain", text)
        assert (ended.code, problem in ended.err) == (1, True)


async def test_failed_lists_each_kind_of_issue_with_its_next_step(operator: Operator) -> None:
    await operator.publish("nobody", clerkUserId="user_nobody")
    operator.box.clerk.add_user("user_1")
    await operator.publish("off-list", clerkUserId="user_1", plan="gold")
    await operator.publish("waiting", userEmail=ADA)
    await operator.run("sync", "user_nobody", "user_1")
    await operator.run("reconcile")
    found = await operator.json("failed")
    assert all(set(one) == STATES for one in found)
    assert {one["key"]: (one["state"], one["code"]) for one in found} == {
        "user:user_nobody": ("failed", "no_such_subject"),
        "user:user_1": ("refused", "row_refused"),
        "document:waiting": ("pending", "pending_sign_up"),
    }
    steps = {one["code"]: one["nextStep"] for one in found}
    assert steps["no_such_subject"] == NoSuchSubject.next_step().replace("SUBJECT", "user:user_nobody")
    assert all(steps.values())
    shown = await operator.run("failed")
    assert "What to do" in shown.out
    assert ADA not in shown.out + json.dumps(found)


async def test_failed_lists_a_held_changeset_once(operator: Operator) -> None:
    users = [operator.box.clerk.add_user(f"user_{n}") for n in range(10)]
    for user in users:
        await operator.publish(f"ent-{user}", clerkUserId=user)
    await operator.run("reconcile")
    await operator.box.lake.mutate([{"delete": {"id": f"ent-{user}"}} for user in users[:6]])
    assert (await operator.run("reconcile", "--accept-fewer")).code == 3
    (held,) = await operator.json("failed")
    assert (held["state"], held["code"]) == ("held", "loss_held")
    assert f"sync-worker approve {held['key']}" in held["nextStep"]


async def test_failed_is_empty_when_all_is_well(operator: Operator) -> None:
    assert await operator.json("failed") == []
    assert "nothing failed" in (await operator.run("failed")).out


async def test_retry_retries_what_failed(operator: Operator) -> None:
    await operator.publish("e1", userEmail=ADA)
    await operator.publish("e2", clerkUserId="user_2")
    await operator.run("sync", "user_2")
    operator.box.clerk.add_user("user_2", email=ADA)
    assert await operator.json("failed", "retry", ADA) == {"retried": 1, "notFailed": []}
    async with process("worker", operator.environment, operator.folder / "log"):
        await until(lambda: operator.box.clerk.users["user_2"]["public_metadata"].get("plan") == "pro")
    assert await operator.json("failed", "retry", "user_2") == {"retried": 0, "notFailed": ["user:user_2"]}
    assert (await operator.run("failed", "retry", "nobody@example.org")).code == 1


async def test_retry_without_a_subject_retries_everything(operator: Operator) -> None:
    for n in range(3):
        await operator.publish(f"e{n}", clerkUserId=f"user_{n}")
    await operator.run("sync", *(f"user_{n}" for n in range(3)))
    assert (await operator.json("failed", "retry"))["retried"] == 3
    async with open_store(settings_of(operator.box, operator.environment["DATABASE_URL"]), RUNTIME) as store:
        assert await store.queue.failed(10) == []


async def test_history_takes_an_address_and_a_document(operator: Operator) -> None:
    operator.box.clerk.add_user("user_1", email=ADA)
    operator.box.clerk.add_user("user_2")
    await operator.publish("e1", clerkUserId="user_1")
    await operator.publish("e_1", clerkUserId="user_2")
    await operator.run("sync", "user_1", "user_2")
    assert [one["subject"] for one in await operator.json("history", ADA)] == ["user:user_1"]
    assert [one["subject"] for one in await operator.json("history", "e_1")] == ["user:user_2"]
    assert len(await operator.json("history")) == 2


@pytest.mark.parametrize("form", [(), ("--json",)])
async def test_no_control_character_reaches_the_terminal(operator: Operator, form: tuple[str, ...]) -> None:
    operator.box.clerk.add_user("user_1", public_metadata={"plan": "\x1b]0;pwned\x07\x9b31m\u202e"})
    ended = await operator.run("explain", "user_1", *form)
    assert ended.code == 0, ended.err
    assert r"\u001b]0;pwned\u0007\u009b31m\u202e" in ended.out
    assert not [c for c in ended.out if not c.isprintable() and c != "\n"]


async def test_everything_that_a_reconcile_refuses_is_listed_and_counted_until_it_is_repaired(
    operator: Operator,
) -> None:
    box, shared = operator.box, "shared@example.org"
    taken = {"entitlementSync": {"source": "other/production", "keys": ["plan"], "documents": ["x"]}}
    for user, email in (("user_1", ADA), ("user_2", shared), ("user_3", shared)):
        box.clerk.add_user(user, email=email)
    box.clerk.add_user("user_4", public_metadata={"plan": "basic"}, private_metadata=taken)
    await operator.publish("in-sync", clerkUserId="user_1")
    await operator.run("reconcile")
    wrong: dict[str, dict[str, Any]] = {
        "bad-time": {"clerkUserId": "user_1", "endsAt": "20270601"},
        "off-list": {"clerkUserId": "user_1", "plan": "gold"},
        "incomplete": {"clerkUserId": "user_1", "courses": [{**reference("nowhere"), "_weak": True}]},
        "no-id": {"clerkUserId": "usr_1"},
        "ambiguous": {"userEmail": shared},
        "elsewhere": {"clerkUserId": "user_4"},
        "gone": {"clerkUserId": "user_gone"},
        "gone-and-wrong": {"clerkUserId": "user_gone", "startsAt": 2027},
        "waiting": {"userEmail": "nobody@example.org"},
        "waiting-and-wrong": {"userEmail": "nobody@example.org", "status": 7},
    }
    for document, fields in wrong.items():
        await operator.publish(document, **fields)
    await operator.publish("ended", clerkUserId="user_gone", endsAt="2020-01-01")
    assert json.loads((await operator.run("reconcile", "--json")).out)["refused"] == 9
    found = {one["document"]: (one["state"], one["key"], one["field"]) for one in await operator.json("failed")}
    assert found == {
        "bad-time": ("refused", "user:user_1", "endsAt"),
        "off-list": ("refused", "user:user_1", "plan"),
        "incomplete": ("incomplete", "user:user_1", "unresolved"),
        "no-id": ("refused", "document:no-id", "clerkUserId"),
        "ambiguous": ("refused", "document:ambiguous", "userEmail"),
        "elsewhere": ("refused", "user:user_4", None),
        "gone": ("refused", "user:user_gone", "clerkUserId"),
        "gone-and-wrong": ("refused", "user:user_gone", "startsAt"),
        "waiting": ("pending", "document:waiting", "userEmail"),
        "waiting-and-wrong": ("refused", "document:waiting-and-wrong", "status"),
    }
    steps = {one["document"]: one["nextStep"] for one in await operator.json("failed")}
    (elsewhere,) = [one for one in await operator.json("failed") if one["document"] == "elsewhere"]
    assert (elsewhere["code"], "--take-over" in elsewhere["nextStep"]) == ("managed_elsewhere", True)
    assert steps["bad-time"] == steps["off-list"] != steps["ambiguous"]
    await operator.run("reconcile")
    assert len(await operator.json("failed")) == len(wrong)  # a second run says the same
    for document in wrong:
        await box.lake.mutate([{"delete": {"id": document}}])
    await operator.run("reconcile", "--accept-fewer")
    assert await operator.json("failed") == []


async def test_what_a_reconcile_refused_goes_from_the_list_when_the_row_is_repaired(operator: Operator) -> None:
    operator.box.clerk.add_user("user_1")
    await operator.publish("no-id", clerkUserId="usr_1")
    await operator.publish("bad-time", clerkUserId="user_1", endsAt="20270601")
    await operator.run("reconcile")
    assert {one["document"] for one in await operator.json("failed")} == {"no-id", "bad-time"}
    await operator.publish("no-id", clerkUserId="user_1")
    await operator.publish("bad-time", clerkUserId="user_1", endsAt="2099-06-01")
    await operator.run("sync", "user_1")
    assert await operator.json("failed") == []

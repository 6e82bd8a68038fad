"""The commands as real processes: their output, streams and exit codes."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from sync_worker.cli.processes import settings_for
from sync_worker.settings import packaged_groq
from tests.nursery import run

if TYPE_CHECKING:
    from pathlib import Path

    from sync_worker.sandbox.server import Sandbox

pytestmark = pytest.mark.anyio


@pytest.fixture
def environment(box: Sandbox, tmp_path: Path) -> dict[str, str]:
    return settings_for(box, f"sqlite:///{tmp_path / 'work.db'}")


async def publish(box: Sandbox, document: str, user: str, **fields: object) -> None:
    await box.lake.mutate([{"create": {"_id": document, "_type": "entitlement", "clerkUserId": user, **fields}}])


async def test_sync_writes_access_and_history_shows_the_cause(
    box: Sandbox, environment: dict[str, str], tmp_path: Path
) -> None:
    box.clerk.add_user("user_1")
    await publish(box, "ent-1", "user_1", plan="pro")
    synced = await run("sync", "user:user_1", "--json", cwd=tmp_path, environment=environment)
    assert (synced.code, box.clerk.users["user_1"]["public_metadata"]["plan"]) == (0, "pro")
    assert [(r["subject"], r["result"]) for r in json.loads(synced.out)] == [("user:user_1", "grant")]
    history = await run("history", "--json", cwd=tmp_path, environment=environment)
    (entry,) = json.loads(history.out)
    assert (entry["subject"], entry["documents"], entry["cause"], entry["state"]) == (
        "user:user_1",
        ["ent-1"],
        "sync",
        "applied",
    )


async def test_a_second_sync_writes_nothing(box: Sandbox, environment: dict[str, str], tmp_path: Path) -> None:
    box.clerk.add_user("user_1")
    await publish(box, "ent-1", "user_1", plan="pro")
    await run("sync", "user_1", cwd=tmp_path, environment=environment)
    box.clerk.requests.clear()
    again = await run("sync", "user_1", "--json", cwd=tmp_path, environment=environment)
    assert (again.code, json.loads(again.out)[0]["result"]) == (0, "unchanged")
    assert box.clerk.requests.count("PATCH") == 0


async def test_sync_shows_the_access_of_a_subject_that_was_in_sync(
    box: Sandbox, environment: dict[str, str], tmp_path: Path
) -> None:
    box.clerk.add_user("user_1", public_metadata={"theme": "dark"})
    await publish(box, "ent-1", "user_1", plan="pro")
    await run("sync", "user_1", cwd=tmp_path, environment=environment)
    again = await run("sync", "user_1", cwd=tmp_path, environment=environment)
    assert [line.split() for line in again.out.splitlines()][1:] == [
        ["user:user_1", "unchanged", "plan=pro", "courseSlugs="]
    ]


async def test_sync_of_an_unknown_user_exits_with_1_and_says_so(
    box: Sandbox, environment: dict[str, str], tmp_path: Path
) -> None:
    await publish(box, "ent-1", "user_nobody", plan="pro")
    ended = await run("sync", "user_nobody", "--json", cwd=tmp_path, environment=environment)
    assert ended.code == 1
    assert "not found in Clerk" in json.loads(ended.out)[0]["detail"]


async def test_an_invalid_subject_is_refused_with_a_hint(tmp_path: Path) -> None:
    ended = await run("sync", "../etc/passwd", cwd=tmp_path)
    assert ended.code == 1
    assert "user:user_" in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("verb", ["serve", "web", "worker", "release", "history"])
async def test_without_settings_every_command_names_what_is_missing(tmp_path: Path, verb: str) -> None:
    ended = await run(verb, cwd=tmp_path)
    assert ended.code == 1
    assert "SANITY_PROJECT_ID is not set" in ended.err
    assert "Traceback" not in ended.err


async def test_webhook_show_prints_what_to_enter_in_sanity(environment: dict[str, str], tmp_path: Path) -> None:
    ended = await run(
        "webhook", "show", "--url", "https://x.example/webhooks/sanity", "--json", cwd=tmp_path, environment=environment
    )
    hook = json.loads(ended.out)
    assert (hook["url"], hook["rule"]["on"]) == ("https://x.example/webhooks/sanity", ["create", "update", "delete"])
    assert "delta::operation()" in hook["rule"]["projection"]
    assert environment["SANITY_WEBHOOK_SECRET"] not in ended.out


async def test_release_prepares_the_database(environment: dict[str, str], tmp_path: Path) -> None:
    assert (await run("release", cwd=tmp_path, environment=environment)).code == 0
    assert (tmp_path / "work.db").exists()


async def test_release_names_a_groq_file_that_is_missing(environment: dict[str, str], tmp_path: Path) -> None:
    ended = await run("release", cwd=tmp_path, environment={**environment, "GROQ_DIR": str(tmp_path)})
    assert ended.code == 1
    assert "by_subject.groq" in ended.err


async def test_release_finds_what_a_webhook_would_not_report(
    box: Sandbox, environment: dict[str, str], tmp_path: Path
) -> None:
    row = {"_id": "ent-1", "_type": "entitlement", "clerkUserId": "user_1", "plan": "pro"}
    await box.lake.mutate([{"create": row}])
    folder = tmp_path / "groq"
    shutil.copytree(packaged_groq(), folder)
    file = folder / "webhook_projection.groq"
    file.write_text(file.read_text().replace("clerkUserId", "clerkId"))
    ended = await run("release", cwd=tmp_path, environment={**environment, "GROQ_DIR": str(folder)})
    assert ended.code == 1
    assert 'webhook_projection.groq, line 12: "before" lacks clerkUserId, which ent-1 has' in ended.err


async def test_the_demo_ends_well(tmp_path: Path) -> None:
    ended = await run("demo", cwd=tmp_path)
    assert (ended.code, ended.out.count("→ in sync in")) == (0, 6)


async def test_a_misspelt_setting_is_reported_once_at_the_start(environment: dict[str, str], tmp_path: Path) -> None:
    ended = await run("history", "--json", cwd=tmp_path, environment={**environment, "PLAN_ODER": "free,pro"})
    assert (ended.code, json.loads(ended.out)) == (0, [])
    (line,) = [json.loads(one) for one in ended.err.splitlines() if "setting_unknown" in one]
    assert line["next_step"] == "PLAN_ODER is not a setting; did you mean PLAN_ORDER?"


async def test_empty_fields_and_plans_on_no_list_are_reported_before_anything_is_written(
    box: Sandbox, environment: dict[str, str], tmp_path: Path
) -> None:
    for number in range(2):
        window = {"startsAt": "2026-01-01", "endsAt": "2099-01-01", "status": "active", "role": "member"}
        box.clerk.add_user(f"user_{number}")
        await publish(box, f"ent-{number}", f"user_{number}", plan="pro", **window)
    listed = {**environment, "PLAN_ORDER": "Basic,Pro"}
    released = await run("release", cwd=tmp_path, environment=listed)
    empty = '"courseSlugs" is empty in all 2 rows; write "courseSlugs": null if your model has no such field'
    wrong = "\"plan\" is 'pro' (2 of 2 rows), which is not one of PLAN_ORDER=Basic,Pro"
    assert released.code == 0, released.err
    assert [line.partition(" (")[0] for line in released.err.splitlines() if line.startswith("warning: ")] == [
        f"warning: {wrong}".partition(" (")[0],
        f"warning: {empty}",
    ]
    checked = await run("doctor", "--json", cwd=tmp_path, environment=listed)
    (found,) = [one for one in json.loads(checked.out)["checks"] if one["check"] == "projection"]
    assert (found["status"], found["result"]) == ("warning", f"{wrong}; {empty}")
    looked = await run("reconcile", "--dry-run", cwd=tmp_path, environment=listed)
    assert f"warning: {empty}" in looked.err.splitlines(), looked.err
    assert "refused: ent-0: plan: 'pro' is not one of Basic, Pro" in looked.err.splitlines()
    assert box.clerk.requests.count("PATCH") == 0


@pytest.mark.parametrize("arguments", [("reconcile", "--dry-run"), ("reconcile",)])
async def test_a_reconcile_says_that_another_query_does_not_find_the_same_documents(
    box: Sandbox, environment: dict[str, str], tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    folder = tmp_path / "groq"
    shutil.copytree(packaged_groq(), folder)
    query = folder / "by_subject.groq"
    query.write_text(
        query.read_text().replace('_type == "entitlement" && clerkUserId', '_type == "other" && clerkUserId')
    )
    box.clerk.add_user("user_1")
    await publish(box, "ent-1", "user_1", plan="pro")
    ended = await run(*arguments, cwd=tmp_path, environment={**environment, "GROQ_DIR": str(folder)})
    assert (ended.code, "everything.groq returns ent-1, but by_subject.groq does not find it" in ended.err) == (1, True)


NOT_HIS = '"clerkUserId" of ent-1 is missing, expected user_1'
EDITS = [
    ("affected", "{_id, clerkUserId,", '{_id, "clerkUserId": owner,', NOT_HIS),
    ("affected", "_id in $documents || ", "", "does not find ent-1"),
    ("changed", "_id, _type,", '_id, "_type": "membership",', '"_type" of ent-1 is membership, expected entitlement'),
    ("changed", "clerkUserId,", '"clerkUserId": owner,', NOT_HIS),
]


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: f"{edit[0]} {edit[3]}")
async def test_release_finds_a_query_that_names_somebody_else(
    box: Sandbox, environment: dict[str, str], tmp_path: Path, edit: tuple[str, str, str, str]
) -> None:
    file, old, new, said = edit
    folder = tmp_path / "groq"
    shutil.copytree(packaged_groq(), folder)
    query = folder / f"{file}.groq"
    assert old in query.read_text()
    query.write_text(query.read_text().replace(old, new))
    await publish(box, "ent-1", "user_1", plan="pro")
    ended = await run("release", cwd=tmp_path, environment={**environment, "GROQ_DIR": str(folder)})
    assert (ended.code, f"{file}.groq" in ended.err, said in ended.err) == (1, True, True), ended.err

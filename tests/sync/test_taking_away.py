"""What an end of access takes: what we gave alone and all of it, even where there is no room for what replaces it."""

from __future__ import annotations

import copy
import json
import shutil
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from sync_worker.cli.processes import SECRET
from sync_worker.domain.changeset import LossLimit, compared
from sync_worker.domain.diff import METADATA_LIMIT
from sync_worker.errors import EveryoneLoses
from sync_worker.formatting import rfc3339
from sync_worker.runtime.wiring import open_reconcile
from sync_worker.settings import packaged_groq
from sync_worker.storage.work_items import WorkItem
from sync_worker.web.app import create_app
from sync_worker.webhooks.signatures import SANITY_HEADER, sign_sanity
from sync_worker.worker.full_reconcile import report
from tests.builders import created, reference, weak
from tests.clock import CLOCK, TIMINGS
from tests.expected import deleted
from tests.oracle import until_idle, wrong
from tests.parts import RUNTIME, opened, settings_of, working
from tests.sync.holders import enqueue, public, publish, sync_all
from tests.sync.test_ownership import reconcile

if TYPE_CHECKING:
    from pathlib import Path

    from sync_worker.sandbox.server import Sandbox

pytestmark = pytest.mark.anyio
APP = {"role": "admin", "plan": "team", "theme": "dark"}
ALGEBRA = {"create": {"_id": "c1", "_type": "course", "slug": {"current": "algebra"}}}


async def test_the_first_reconcile_takes_no_value_of_the_app_from_anybody(box: Sandbox, sqlite_url: str) -> None:
    users = [box.clerk.add_user(f"user_{n:02}", public_metadata={**APP}) for n in range(30)]
    rows = [created(f"ent-{user}", user, courses=[reference("c1")]) for user in users]
    await box.lake.mutate([ALGEBRA, *rows])
    async with opened(box, sqlite_url) as parts:
        _, result = await reconcile(parts)
    assert (result.kinds.total(), result.taken_over) == (30, 0)
    assert [public(box, user) for user in users] == [{**APP, "courseSlugs": ["algebra"]}] * 30


@pytest.mark.parametrize("end", ["deleted", "cancelled", "moved"])
async def test_a_webhook_ends_access_although_the_app_has_wiped_the_marker(
    box: Sandbox, database_url: str, end: str
) -> None:
    box.clerk.add_user("user_1", public_metadata={"theme": "dark"})
    box.clerk.add_user("user_2")
    await box.lake.mutate([created("e1", "user_1", plan="pro"), created("e2", "user_2", plan="pro")])
    async with working(box, database_url) as parts:
        await enqueue(parts, ["user:user_1"], "webhook:e1")
        assert public(box)["plan"] == "pro"
        box.clerk.users["user_1"]["private_metadata"] = {"app": "replaced everything"}
        ends: dict[str, dict[str, Any]] = {
            "deleted": {"delete": {"id": "e1"}},
            "cancelled": {"patch": {"id": "e1", "set": {"status": "cancelled"}}},
            "moved": {"patch": {"id": "e1", "set": {"clerkUserId": "user_2"}}},
        }
        await box.lake.mutate([ends[end]])
        await enqueue(parts, ["user:user_1"], "webhook:e1")
    assert public(box) == {"theme": "dark"}


async def test_verify_sees_access_that_stays_behind_a_wiped_marker(box: Sandbox, sqlite_url: str) -> None:
    box.clerk.add_user("user_1")
    box.clerk.add_user("user_2")
    await box.lake.mutate([created("e1", "user_1", plan="pro"), created("e2", "user_2", plan="pro")])
    async with opened(box, sqlite_url) as parts:
        await reconcile(parts)
        box.clerk.users["user_1"]["private_metadata"] = {}
        await box.lake.mutate([{"delete": {"id": "e1"}}])
        async with open_reconcile(parts.settings, parts.store, Counter(), dry_run=True, accept_fewer=True) as run:
            findings = await run.find()
    assert [str(one.change.subject) for one in findings.differences] == ["user:user_1"]
    sides = {side["plan"]: side for side in compared(findings.published, findings.held_in_clerk)}
    assert (sides["pro"]["sanity"]["count"], sides["pro"]["clerk"]["count"]) == (1, 2)


@pytest.mark.parametrize(
    ("end", "left"),
    [({"delete": {"id": "e1"}}, {}), ({"patch": {"id": "e1", "unset": ["role"]}}, {"plan": "pro", "courseSlugs": []})],
)
async def test_an_older_copy_of_the_marker_keeps_nobodys_role(
    box: Sandbox, database_url: str, end: dict[str, Any], left: dict[str, Any]
) -> None:
    box.clerk.add_user("user_1")
    await box.lake.mutate([created("e1", "user_1", plan="pro"), created("other", "user_2")])
    async with opened(box, database_url) as parts:
        await reconcile(parts)
        older = copy.deepcopy(box.clerk.users["user_1"]["private_metadata"])
        await box.lake.mutate([{"patch": {"id": "e1", "set": {"role": "tutor"}}}])
        await reconcile(parts)
        assert public(box)["role"] == "tutor"
        box.clerk.users["user_1"]["private_metadata"] = older
        await box.lake.mutate([end])
        await reconcile(parts)
    assert public(box) == left


@pytest.mark.parametrize("fields", [{"status": "paused"}, {"endsAt": "2020-01-01T00:00:00Z"}])
async def test_a_deleted_course_behind_an_entitlement_that_never_counted_takes_nothing_of_the_app(
    box: Sandbox, sqlite_url: str, fields: dict[str, Any]
) -> None:
    box.clerk.add_user("user_1", public_metadata={**APP, "courseSlugs": ["algebra"]})
    await box.lake.mutate(
        [ALGEBRA, created("e1", "user_1", plan="pro", courses=[weak("c1")], **fields), created("other", "user_2")]
    )
    course = box.lake.documents["c1"]
    async with working(box, sqlite_url) as parts:
        await enqueue(parts, ["user:user_1"], "webhook:e1")
        await box.lake.mutate([{"delete": {"id": "c1"}}])
        gone = deleted("c1", course["_rev"], course["_updatedAt"])
        await enqueue(parts, ["document:c1"], "webhook:c1", lane=1, expected=gone)
    assert public(box) == {**APP, "courseSlugs": ["algebra"]}


ELEVEN_MONTHS = 11 * 30 * 86_400
DELETE: dict[str, Any] = {"v": 1, "operation": "delete", "id": "e1", "type": "entitlement", "rev": "r1", "after": None}


async def test_a_delete_signed_eleven_months_ago_takes_nothing_that_support_set_by_hand(
    box: Sandbox, database_url: str
) -> None:
    box.clerk.add_user("user_1", public_metadata={**APP})
    await box.lake.mutate([created("other", "user_2", plan="pro")])
    settings = settings_of(box, database_url)
    then = CLOCK.now() - ELEVEN_MONTHS
    before = {"_type": "entitlement", "clerkUserId": "user_1", "plan": "pro"}
    body = json.dumps(
        {
            **DELETE,
            "projectId": settings.sanity_project_id,
            "dataset": settings.sanity_dataset,
            "updatedAt": rfc3339(then),
            "before": before,
        }
    ).encode()
    signed = {SANITY_HEADER: sign_sanity(body, SECRET, int(then * 1000))}
    app = create_app(settings, RUNTIME, with_worker=True)
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1")
    async with app.router.lifespan_context(app), client:
        assert (await client.post("/webhooks/sanity", content=body, headers=signed)).status_code == 202
        await until_idle(database_url)
        row = await app.state.store.queue.get("user:user_1")
        assert (row is not None, public(box)) == (True, APP)


# --- a slug that is lost ---------------------------------------------------------------------------------------------


def with_another_path(folder: Path, path: str) -> Path:
    """Return a folder of queries in which the slug behind `path` is misspelt."""
    copied = folder / "groq"
    shutil.copytree(packaged_groq(), copied)
    mapping = copied / "entitlement.groq"
    text = mapping.read_text()
    assert f"{path}->slug.current" in text
    mapping.write_text(text.replace(f"{path}->slug.current", f"{path}->slugg.current"))
    return copied


@pytest.mark.parametrize(
    ("path", "key", "baseline"),
    [("plan", "plan", {}), ("plan", "plan", {"baseline_plan": "free"}), ("courses[]", "courseSlugs", {})],
)
async def test_a_misspelt_slug_in_the_projection_stops_a_reconcile_whatever_the_limit(
    box: Sandbox, database_url: str, tmp_path: Path, *, path: str, key: str, baseline: dict[str, Any]
) -> None:
    users = await publish(box, 60)
    async with opened(box, database_url, **baseline) as parts:
        await reconcile(parts)
    before = {user: public(box, user) for user in users}
    wrong_query = with_another_path(tmp_path, path)
    async with opened(box, database_url, groq_dir=wrong_query, max_revocations="1000", **baseline) as parts:
        with pytest.raises(EveryoneLoses, match=f"60 of 60 would lose {key}"):
            await reconcile(parts)
    assert {user: public(box, user) for user in users} == before


@pytest.mark.parametrize("path", ["plan", "courses[]"])
async def test_a_misspelt_slug_in_the_projection_is_held_by_the_worker_for_everybody(
    box: Sandbox, database_url: str, tmp_path: Path, path: str
) -> None:
    users = await publish(box, 60)
    async with working(box, database_url) as parts:
        await sync_all(parts, users, box)
    async with working(box, database_url, groq_dir=with_another_path(tmp_path, path), max_revocations="5") as parts:
        await enqueue(parts, ["document:c1"], "webhook:c1", lane=1)
        lost = len(wrong(box))
        (held,) = await parts.store.approvals.changesets()
        assert (lost <= 5, held.size) == (True, 60 - lost)


@pytest.mark.parametrize(
    ("document", "key", "baseline"),
    [("p1", "plan", {}), ("p1", "plan", {"baseline_plan": "free"}), ("c1", "courseSlugs", {})],
)
async def test_a_slug_that_some_lose_is_held_by_a_reconcile_and_is_no_good_run(
    box: Sandbox, database_url: str, document: str, key: str, baseline: dict[str, Any]
) -> None:
    users = await publish(box, 60)
    others = [box.clerk.add_user(f"user_other{n}") for n in range(5)]
    other = {"create": {"_id": "c2", "_type": "course", "slug": {"current": "geometry"}}}
    rows = [created(f"ent-{user}", user, plan="basic", courses=[reference("c2")]) for user in others]
    await box.lake.mutate([other, *rows])
    async with opened(box, database_url, max_revocations="5", **baseline) as parts:
        await reconcile(parts)
        before = {user: public(box, user) for user in users}
        await box.lake.mutate([{"patch": {"id": document, "unset": ["slug"]}}])
        findings, result = await reconcile(parts)
        counted = report(findings, result, Counter(), 0.0, LossLimit("5"))
        (held,) = await parts.store.approvals.changesets()
        changes = await parts.store.approvals.all_changes(held.id)
    assert (counted["updated"], counted["held"], result.is_good) == (0, 60, False)
    assert [change.subject for change in changes] == [f"user:{user}" for user in users]
    assert all(change.before.get(key) != change.after.get(key) for change in changes)
    assert {user: public(box, user) for user in users} == before


async def test_a_reconcile_that_leaves_a_write_to_the_worker_is_no_good_run(box: Sandbox, database_url: str) -> None:
    box.clerk.add_user("user_1")
    await box.lake.mutate([created("e1", "user_1", plan="pro")])
    async with opened(box, database_url, timings=replace(TIMINGS, reconcile_patience=0.001)) as parts:
        await parts.store.queue.enqueue([WorkItem("user:user_1")])
        assert len(await parts.store.queue.claim(0, 1, TIMINGS.lease)) == 1
        _, result = await reconcile(parts)
        assert (result.left_over, result.is_good, await parts.store.runs.last_good()) == (1, False, None)


# --- no room ---------------------------------------------------------------------------------------------------------


def crowd(box: Sandbox, user: str, spare: int) -> None:
    """Let the app fill private metadata, but for some bytes."""
    private = box.clerk.users[user]["private_metadata"]
    used = len(json.dumps({**private, "app": ""}, separators=(",", ":")).encode())
    private["app"] = "x" * (METADATA_LIMIT - used - spare)


async def test_a_downgrade_is_written_beside_nearly_8_kb_of_the_apps_own(box: Sandbox, database_url: str) -> None:
    box.clerk.add_user("user_1")
    await box.lake.mutate([created("e1", "user_1", plan="pro")])
    async with working(box, database_url, plan_order="basic,pro") as parts:
        await enqueue(parts, ["user:user_1"], "webhook:e1")
        box.clerk.users["user_1"]["private_metadata"] = {}
        crowd(box, "user_1", 20)
        before = copy.deepcopy(box.clerk.users["user_1"]["private_metadata"])
        await box.lake.mutate([{"patch": {"id": "e1", "set": {"plan": "basic"}}}])
        await enqueue(parts, ["user:user_1"], "webhook:e1")
        assert public(box) == {"plan": "basic", "courseSlugs": []}
        assert box.clerk.users["user_1"]["private_metadata"] == before
        await box.lake.mutate([{"delete": {"id": "e1"}}, created("e2", "user_2", plan="pro")])
        await enqueue(parts, ["user:user_1"], "webhook:e1")
    assert public(box) == {}


async def test_a_cohort_of_400_courses_keeps_nobodys_old_plan(box: Sandbox, database_url: str) -> None:
    box.clerk.add_user("user_1")
    slugs = [f"course-with-a-long-slug-{n:03}" for n in range(400)]
    await box.lake.load([{"_id": slug, "_type": "course", "slug": {"current": slug}} for slug in slugs])
    await box.lake.load([{"_id": "cohort-1", "_type": "cohort", "courses": [reference(slug) for slug in slugs]}])
    await box.lake.mutate([created("e1", "user_1", plan="pro")])
    async with working(box, database_url) as parts:
        await enqueue(parts, ["user:user_1"], "webhook:e1")
        await box.lake.mutate([created("e2", "user_1", cohorts=[reference("cohort-1")])])
        await enqueue(parts, ["user:user_1"], "webhook:e2")
        assert public(box) == {"plan": "pro", "courseSlugs": []}
        await box.lake.mutate([{"delete": {"id": "e1"}}])
        await enqueue(parts, ["user:user_1"], "webhook:e1")
        assert public(box).get("plan") is None
        row = await parts.store.queue.get("user:user_1")
        assert row is not None
        assert (row.error_code, "courseSlugs" in row.error_detail) == ("row_refused", True)


# --- values and names ------------------------------------------------------------------------------------------------

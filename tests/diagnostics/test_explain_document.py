"""The explanation of a document in each state, with the real parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest
from structlog.testing import capture_logs

from sync_worker.diagnostics.explain_document import SESSION_TOKEN_SECONDS
from sync_worker.diagnostics.explanation import RowStatus, SyncState
from sync_worker.diagnostics.issues import from_row, issue_json
from sync_worker.diagnostics.serialize import document_json, subject_json
from sync_worker.runtime.wiring import open_explainer
from sync_worker.storage.work_items import WorkItem
from sync_worker.sync.address_resolution import PENDING_REASON
from tests.builders import publish, weak
from tests.causes import cause_of
from tests.diagnostics.explaining import ADA, document, subject, sync
from tests.expected import delete

if TYPE_CHECKING:
    from sync_worker.sandbox.server import Sandbox
    from tests.parts import Parts

pytestmark = pytest.mark.anyio


async def test_a_synced_document_says_when_it_arrived(box: Sandbox, parts: Parts) -> None:
    box.clerk.add_user("user_1")
    await publish(box, "e1", clerkUserId="user_1")
    await sync(parts, "user:user_1")
    result = await document(parts, "e1")
    assert result.verdict.state is SyncState.SYNCED
    assert result.facts.published is not None
    assert result.in_clerk is not None
    assert result.facts.published <= result.in_clerk
    assert result.in_sessions_by == result.in_clerk + SESSION_TOKEN_SECONDS
    assert "→ in Clerk" in result.verdict.headline
    assert "→ in every session by" in result.verdict.headline
    assert [(str(s.subject), result.state(s)) for s in result.subjects] == [("user:user_1", SyncState.SYNCED)]


async def test_a_publish_that_changes_nothing_arrived_when_a_run_found_nothing_to_write(
    box: Sandbox, parts: Parts
) -> None:
    box.clerk.add_user("user_1")
    await publish(box, "e1", clerkUserId="user_1")
    await sync(parts, "user:user_1")
    await anyio.sleep(1.1)  # times of publishes are whole seconds
    await publish(box, "e1", clerkUserId="user_1", title="only the title")
    before = await document(parts, "e1")
    await sync(parts, "user:user_1")
    after = await document(parts, "e1")
    assert (before.verdict.state, before.in_clerk) == (SyncState.SYNCED, None)
    assert after.in_clerk is not None
    assert after.in_clerk >= (after.facts.published or 0)


async def test_a_document_without_a_webhook_is_late_and_names_the_command(box: Sandbox, parts: Parts) -> None:
    box.clerk.add_user("user_1")
    await publish(box, "e1", clerkUserId="user_1")
    result = await document(parts, "e1")
    assert (result.verdict.state, result.in_clerk) == (SyncState.LATE, None)
    assert "no webhook arrived for this change" in result.verdict.headline
    assert "sync-worker sync user:user_1" in result.verdict.next_step


async def test_waiting_work_without_a_worker_says_that_none_is_running(box: Sandbox, parts: Parts) -> None:
    box.clerk.add_user("user_1")
    await publish(box, "e1", clerkUserId="user_1")
    await parts.store.queue.enqueue([WorkItem("user:user_1")])
    result = await document(parts, "e1")
    assert result.verdict.state is SyncState.LATE
    assert "no worker is running" in result.verdict.headline


async def test_a_lagging_index_is_distinguished_from_a_lost_webhook(box: Sandbox, parts: Parts) -> None:
    box.clerk.add_user("user_1")
    await publish(box, "e1", clerkUserId="user_1")
    await sync(parts, "user:user_1")
    box.lake.lag = 5
    await publish(box, "e1", clerkUserId="user_1", plan="basic")
    result = await document(parts, "e1")
    assert result.verdict.state is SyncState.LATE
    assert "query index" in result.verdict.headline
    await delete(box, "e1")
    result = await document(parts, "e1")
    assert result.verdict.headline.startswith("It is no longer published, but Sanity's query index")


async def test_an_entitlement_by_an_address_nobody_has_is_pending(box: Sandbox, parts: Parts) -> None:
    await publish(box, "e1", userEmail=ADA)
    result = await document(parts, "e1")
    assert result.verdict.state is SyncState.PENDING
    assert PENDING_REASON in result.verdict.headline
    assert ADA not in str(document_json(result)) + str([subject_json(one) for one in result.subjects])
    assert "a***@example.org" in str(document_json(result))


async def test_an_address_that_two_people_have_is_refused_and_names_them(box: Sandbox, parts: Parts) -> None:
    box.clerk.add_user("user_1", email=ADA)
    box.clerk.add_user("user_2", email=ADA)
    await publish(box, "e1", userEmail=ADA)
    result = await document(parts, "e1")
    (one,) = result.subjects
    assert (result.verdict.state, one.rows[0].status) == (SyncState.REFUSED, RowStatus.AMBIGUOUS_ADDRESS)
    assert "user:user_1, user:user_2" in one.verdict.headline
    assert (await subject(parts, "user:user_2")).rows[0].status is RowStatus.AMBIGUOUS_ADDRESS


async def test_an_address_with_one_owner_is_explained_as_that_user(box: Sandbox, parts: Parts) -> None:
    box.clerk.add_user("user_1", email=ADA)
    await publish(box, "e1", userEmail=ADA)
    await sync(parts, "user:user_1")
    result = await subject(parts, ADA)
    assert (str(result.subject), result.verdict.state, result.access.sources) == (
        "user:user_1",
        SyncState.SYNCED,
        ("e1",),
    )


async def test_an_address_within_an_organization_is_explained_as_that_membership(box: Sandbox, parts: Parts) -> None:
    box.clerk.add_user("user_1", email=ADA)
    box.clerk.add_organization("org_1")
    box.clerk.add_membership("org_1", "user_1")
    await publish(box, "e1", userEmail=ADA, clerkOrganizationId="org_1")
    await sync(parts, "membership:org_1/user_1")
    (one,) = (await document(parts, "e1")).subjects
    assert (str(one.subject), one.verdict.state) == ("membership:org_1/user_1", SyncState.SYNCED)
    assert (await subject(parts, "user:user_1")).rows == ()


async def test_a_held_loss_names_its_changeset(box: Sandbox, parts: Parts) -> None:
    users = [box.clerk.add_user(f"user_{n}") for n in range(3)]
    await box.lake.mutate([{"create": {"_id": "plan-1", "_type": "plan", "slug": {"current": "pro"}}}])
    for user in users:
        await publish(box, f"ent-{user}", clerkUserId=user, plan={"_ref": "plan-1"})
    await sync(parts, *(f"user:{user}" for user in users))
    await box.lake.mutate([{"patch": {"id": f"ent-{user}", "set": {"status": "off"}}} for user in users])
    await sync(parts, *(f"user:{user}" for user in users), cause="document:plan-1")
    (held,) = await parts.store.approvals.changesets()
    result = await document(parts, f"ent-{users[0]}")
    assert result.verdict.state is SyncState.HELD
    assert f"sync-worker approve {held.id}" in result.verdict.next_step


async def test_a_deleted_document_says_when_its_access_was_removed(box: Sandbox, parts: Parts) -> None:
    box.clerk.add_user("user_1")
    box.clerk.add_user("user_2")
    await publish(box, "e1", clerkUserId="user_1")
    await publish(box, "e2", clerkUserId="user_2")
    await sync(parts, "user:user_1")
    await delete(box, "e1")
    result = await document(parts, "e1")
    assert result.verdict.state is SyncState.LATE
    assert "no longer published, but its access is still in Clerk" in result.verdict.headline
    await sync(parts, "user:user_1")
    result = await document(parts, "e1")
    assert (result.verdict.state, result.facts.published) == (SyncState.DELETED, None)
    assert result.in_clerk is not None
    assert "Removed from Clerk" in result.verdict.headline
    assert [(str(s.subject), result.state(s)) for s in result.subjects] == [("user:user_1", SyncState.SYNCED)]


async def test_a_moved_entitlement_is_late_until_its_former_subject_lost_access(box: Sandbox, parts: Parts) -> None:
    for user in ("user_1", "user_2"):
        box.clerk.add_user(user)
    await publish(box, "e1", clerkUserId="user_1")
    await sync(parts, "user:user_1")
    await publish(box, "e1", clerkUserId="user_2")
    await sync(parts, "user:user_2")
    result = await document(parts, "e1")
    assert result.verdict.state is SyncState.LATE
    assert "no longer names user:user_1" in result.verdict.headline
    await sync(parts, "user:user_1")
    result = await document(parts, "e1")
    assert result.verdict.state is SyncState.SYNCED
    assert {str(s.subject) for s in result.subjects} == {"user:user_1", "user:user_2"}


async def test_an_id_that_was_never_published_is_unknown(parts: Parts) -> None:
    result = await document(parts, "nothing")
    assert (result.verdict.state, result.subjects) == (SyncState.UNKNOWN, ())


async def test_a_document_that_may_not_be_read_is_not_reported_as_deleted(box: Sandbox, parts: Parts) -> None:
    await publish(box, "private.e1", clerkUserId="user_1")
    await parts.store.queue.enqueue([WorkItem("document:private.e1")])
    box.lake.public = True
    async with open_explainer(parts.settings, parts.store, patience=20) as explainer:
        explainer.reconciler.source._client._transport.headers = {}  # type: ignore[attr-defined]  # so it may not read dots
        result = await explainer.document("private.e1")
    assert (result.verdict.state, "Check that the token may read it" in result.verdict.headline) == (
        SyncState.UNKNOWN,
        True,
    )


async def test_a_course_says_how_many_subjects_depend_on_it(box: Sandbox, parts: Parts) -> None:
    await box.lake.mutate(
        [
            {"create": {"_id": "course-1", "_type": "course", "slug": {"current": "algebra"}}},
            {"create": {"_id": "course-2", "_type": "course", "slug": {"current": "biology"}}},
            {
                "create": {
                    "_id": "plan-1",
                    "_type": "plan",
                    "slug": {"current": "pro"},
                    "courses": [{"_ref": "course-1"}],
                }
            },
        ]
    )
    for n in range(4):
        box.clerk.add_user(f"user_{n}")
        await publish(box, f"e{n}", clerkUserId=f"user_{n}", plan={"_ref": "plan-1"})
    await publish(box, "e4", clerkUserId="user_3", courses=[{"_ref": "course-1"}])
    result = await document(parts, "course-1")
    assert result.facts.reach is not None
    assert (result.facts.reach.entitlements, result.facts.reach.subjects) == (5, 4)
    await parts.store.queue.enqueue([WorkItem("document:course-1", lane=1)])
    assert (await document(parts, "course-1")).verdict.state is SyncState.LATE
    assert "No entitlement depends on it" in (await document(parts, "course-2")).verdict.headline


async def test_a_course_is_late_until_its_last_subject_is_in_sync(box: Sandbox, parts: Parts) -> None:
    box.clerk.add_user("user_1")
    await box.lake.mutate([{"create": {"_id": "course-1", "_type": "course", "slug": {"current": "algebra"}}}])
    await publish(box, "e1", clerkUserId="user_1", courses=[{"_ref": "course-1"}])
    await parts.store.queue.enqueue([WorkItem("user:user_1", lane=1, cause=cause_of("document:course-1"))])
    result = await document(parts, "course-1")
    assert (result.verdict.state, result.facts.reach and result.facts.reach.waiting) == (SyncState.LATE, 1)
    await sync(parts, "user:user_1", cause="document:course-1")
    result = await document(parts, "course-1")
    assert result.verdict.state is SyncState.SYNCED
    assert result.in_clerk is not None


async def test_a_receipt_says_that_references_lead_nowhere_and_access_is_granted(box: Sandbox, parts: Parts) -> None:
    box.clerk.add_user("user_1")
    await publish(box, "e1", clerkUserId="user_1", courses=[weak("nowhere"), weak("gone")])
    await sync(parts, "user:user_1")
    found = document_json(await document(parts, "e1"))
    assert box.clerk.users["user_1"]["public_metadata"]["plan"] == "pro"
    assert (found["state"], found["unresolved"]) == ("synced", 2)
    assert "But 2 references lead to nothing usable." in str(found["headline"])
    assert "Publish the referenced" in str(found["nextStep"])
    about = subject_json(await subject(parts, "user:user_1"))
    assert "e1: 2 references lead to nothing usable." in str(about["reason"])


async def test_unresolved_references_are_noted_until_they_resolve(box: Sandbox, parts: Parts) -> None:
    box.clerk.add_user("user_1")
    await publish(box, "e1", clerkUserId="user_1", courses=[weak("course-1")])
    with capture_logs() as lines:
        await sync(parts, "user:user_1")
    (line,) = [one for one in lines if one["event"] == "references_unresolved"]
    assert (line["subject"], line["document"], line["number"]) == ("user:user_1", "e1", 1)
    (noted,) = await parts.store.queue.noted(10)
    (issue,) = map(issue_json, from_row(noted))
    assert (issue["state"], issue["key"], issue["code"]) == ("incomplete", "user:user_1", "references_unresolved")
    assert (issue["document"], issue["field"]) == ("e1", "unresolved")
    assert issue["reason"] == "1 reference leads to nothing usable; what is left: plan"
    await box.lake.mutate([{"create": {"_id": "course-1", "_type": "course", "slug": {"current": "algebra"}}}])
    await sync(parts, "user:user_1")
    assert await parts.store.queue.noted(10) == []


async def test_nobody_is_not_called_synced(parts: Parts) -> None:
    for key in ("user:user_nobody", "org:org_nobody", ADA, "external:crm-9"):
        result = await subject(parts, key)
        assert (result.verdict.state, bool(result.verdict.next_step)) == (SyncState.UNKNOWN, True), key


async def test_the_document_that_caused_a_hold_says_so(box: Sandbox, parts: Parts) -> None:
    users = [box.clerk.add_user(f"user_{n}") for n in range(3)]
    course = {"_id": "course-1", "_type": "course", "slug": {"current": "algebra"}}
    await box.lake.mutate([{"create": course}])
    for user in users:
        await publish(box, f"ent-{user}", clerkUserId=user, courses=[weak("course-1")])
    await sync(parts, *(f"user:{user}" for user in users))
    await box.lake.mutate([{"patch": {"id": "course-1", "unset": ["slug"]}}])
    await sync(parts, *(f"user:{user}" for user in users), cause="document:course-1")
    result = await document(parts, "course-1")
    assert result.verdict.state is SyncState.HELD
    assert "3 subjects would lose access; this is held for approval" in result.verdict.headline
    assert "sync-worker approve" in result.verdict.next_step


async def test_a_webhook_that_came_is_not_denied(box: Sandbox, parts: Parts) -> None:
    box.clerk.add_user("user_1")
    await publish(box, "e1", clerkUserId="user_1")
    await sync(parts, "user:user_1", cause="webhook:e1")
    box.clerk.users["user_1"]["public_metadata"] = {}
    box.clerk.users["user_1"]["private_metadata"] = {}
    headline = (await subject(parts, "user:user_1")).verdict.headline
    assert "no webhook arrived" not in headline
    assert "after the last publish, and differs again" in headline

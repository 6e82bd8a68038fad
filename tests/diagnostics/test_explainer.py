"""The explanation of a document and of a subject in each state, with the real parts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from structlog.testing import capture_logs

from sync_worker.diagnostics.explain_document import SESSION_TOKEN_SECONDS
from sync_worker.diagnostics.explainer import parse_target
from sync_worker.diagnostics.explanation import RowStatus, SyncState
from sync_worker.diagnostics.issues import from_row, issue_json
from sync_worker.diagnostics.serialize import document_json, subject_json
from sync_worker.domain.entitlements import Change, ChangeKind
from sync_worker.domain.subjects import Subject
from sync_worker.errors import InvalidSubject, MutationInDryRun
from sync_worker.runtime.service import running_worker
from sync_worker.runtime.wiring import open_explainer
from sync_worker.storage.work_items import WorkItem
from sync_worker.sync.address_resolution import PENDING_REASON
from tests.builders import weak
from tests.causes import cause_of
from tests.oracle import until
from tests.parts import opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sync_worker.diagnostics.explain_document import DocumentExplanation
    from sync_worker.diagnostics.explanation import Explanation
    from sync_worker.sandbox.server import Sandbox
    from tests.parts import Parts

pytestmark = pytest.mark.anyio
ADA = "ada@example.org"
NOT_A_TIME = "is not a date and time; write one such as 2026-05-01T12:00:00Z, or a date such as 2026-05-01"


@pytest.fixture
async def parts(box: Sandbox, sqlite_url: str) -> AsyncIterator[Parts]:
    async with opened(box, sqlite_url, plan_order="basic,pro", max_revocations="1") as parts:
        yield parts


async def publish(box: Sandbox, document: str, **fields: Any) -> None:
    row = {"_id": document, "_type": "entitlement", "plan": "pro", **fields}
    await box.lake.mutate([{"createOrReplace": row}])


async def delete(box: Sandbox, document: str) -> None:
    await box.lake.mutate([{"delete": {"id": document}}])


async def sync(parts: Parts, *keys: str, cause: str = "") -> None:
    """Enqueue the keys, and run a worker until they are done."""
    await parts.store.queue.enqueue([WorkItem(key, lane=0, cause=cause_of(cause)) for key in keys])
    async with running_worker(parts.settings, parts.store):
        for key in keys:
            while (row := await parts.store.queue.get(key)) and row.pending and not row.dead:
                await parts.store.database.changed(0.05)


async def test_each_key_says_whose_it_is_since_when_by_which_document_and_what_the_app_had(
    box: Sandbox, parts: Parts
) -> None:
    box.clerk.add_user("user_1", public_metadata={"plan": "basic", "role": "lead", "courseSlugs": ["own"]})
    await publish(box, "ent-plan", clerkUserId="user_1")
    await publish(box, "ent-role", clerkUserId="user_1", plan=None, role="lead")
    await sync(parts, "user:user_1")
    explained = await subject(parts, "user:user_1")
    ((entry, *_),) = [await parts.store.ledger.history("user:user_1")]
    assert [(k.name, k.value, k.managed, k.since, k.documents, k.former) for k in explained.keys] == [
        ("plan", "pro", True, entry.settled_at, ("ent-plan",), "basic"),
        ("role", "lead", True, entry.settled_at, ("ent-role",), "lead"),
        ("courseSlugs", ["own"], False, None, (), None),
    ]
    keys = subject_json(explained)["clerk"]["keys"]  # type: ignore[index]
    assert [(key["key"], key["value"], key["managed"], key["appHad"]) for key in keys] == [
        ("plan", "pro", True, "basic"),
        ("role", "lead", True, "lead"),
        ("courseSlugs", ["own"], False, None),
    ]


async def test_nothing_is_concluded_of_a_subject_that_cannot_be_read(box: Sandbox, parts: Parts) -> None:
    box.clerk.add_user("user_1")
    await publish(box, "ent-1", clerkUserId="user_1")
    box.clerk.users["user_1"]["private_metadata"] = ["of another shape"]
    assert (await subject(parts, "user:user_1")).verdict.state is SyncState.UNKNOWN


async def document(parts: Parts, id_: str) -> DocumentExplanation:
    async with open_explainer(parts.settings, parts.store, patience=2) as explainer:
        return await explainer.document(id_)


async def subject(parts: Parts, key: str) -> Explanation:
    async with open_explainer(parts.settings, parts.store, patience=2) as explainer:
        return await explainer.subject(Subject.parse(key))


def ahead(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


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


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"plan": "gold"}, (RowStatus.REFUSED, SyncState.REFUSED, "'gold' is not one of basic, pro")),
        ({"role": 7 * [1]}, (RowStatus.REFUSED, SyncState.REFUSED, "role is invalid: must be a string")),
        ({"startsAt": ahead(3600)}, (RowStatus.SCHEDULED, SyncState.PENDING, "it starts")),
        ({"endsAt": ahead(-3600)}, (RowStatus.ENDED, SyncState.EXPIRED, "it ended")),
        ({"status": "paused"}, (RowStatus.INACTIVE, SyncState.INACTIVE, "its status is 'paused'")),
    ],
)
async def test_a_row_that_does_not_count_says_why(
    box: Sandbox, parts: Parts, fields: dict[str, Any], expected: tuple[RowStatus, SyncState, str]
) -> None:
    status, state, words = expected
    box.clerk.add_user("user_1")
    await publish(box, "e1", clerkUserId="user_1", **fields)
    result = await document(parts, "e1")
    (one,) = result.subjects
    assert (one.rows[0].status, one.verdict.state, result.verdict.state) == (status, state, state)
    assert words in one.verdict.headline
    assert words in result.verdict.headline
    assert result.verdict.next_step


async def test_an_entitlement_that_names_nobody_is_refused(box: Sandbox, parts: Parts) -> None:
    await publish(box, "e1", clerkUserId="../organizations/org_1")
    result = await document(parts, "e1")
    assert (result.verdict.state, result.subjects) == (SyncState.REFUSED, ())
    assert "clerkUserId" in result.verdict.headline


async def test_an_id_that_clerk_does_not_know_is_refused(box: Sandbox, parts: Parts) -> None:
    await publish(box, "e1", clerkUserId="user_nobody")
    result = await document(parts, "e1")
    assert result.verdict.state is SyncState.REFUSED
    assert "Clerk has nobody with this id" in result.verdict.headline


async def test_access_too_large_for_clerk_is_refused(box: Sandbox, parts: Parts) -> None:
    box.clerk.add_user("user_1")
    slugs = [
        {"create": {"_id": f"c{n}", "_type": "course", "slug": {"current": f"{n:03}{'x' * 90}"}}} for n in range(100)
    ]
    await box.lake.mutate(slugs)
    await publish(box, "e1", clerkUserId="user_1", courses=[{"_ref": f"c{n}"} for n in range(100)])
    result = await document(parts, "e1")
    assert result.verdict.state is SyncState.REFUSED
    assert "8 KB" in result.verdict.headline


async def test_a_second_row_that_is_refused_does_not_hide_behind_the_good_one(box: Sandbox, parts: Parts) -> None:
    box.clerk.add_user("user_1")
    await publish(box, "e1", clerkUserId="user_1")
    await publish(box, "e2", clerkUserId="user_1", plan="gold")
    await sync(parts, "user:user_1")
    result = await subject(parts, "user:user_1")
    assert result.verdict.state is SyncState.SYNCED
    assert "e2 does not count" in result.verdict.headline


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


async def test_an_edit_in_clerk_is_named_as_the_reason(box: Sandbox, parts: Parts) -> None:
    box.clerk.add_user("user_1")
    await publish(box, "e1", clerkUserId="user_1")
    await sync(parts, "user:user_1")
    held = box.clerk.users["user_1"]["public_metadata"]
    box.clerk.update_user("user_1", public_metadata={**held, "plan": "team"})
    result = await subject(parts, "user:user_1")
    assert result.verdict.state is SyncState.LATE
    assert "it was edited in Clerk" in result.verdict.headline


async def test_an_unmanaged_plan_is_reported_and_left_alone(box: Sandbox, parts: Parts) -> None:
    box.clerk.add_user("user_1", public_metadata={"plan": "vip"})
    result = await subject(parts, "user:user_1")
    assert result.verdict.state is SyncState.SYNCED
    assert "unmanaged" in result.verdict.headline


async def test_a_failed_attempt_says_when_the_next_one_is(box: Sandbox, parts: Parts) -> None:
    box.clerk.add_user("user_1")
    await publish(box, "e1", clerkUserId="user_1")
    box.clerk.faults.some("unavailable", 1.0, method="PATCH", path_prefix="/v1/users")
    await parts.store.queue.enqueue([WorkItem("user:user_1")])
    async with running_worker(parts.settings, parts.store):
        await until(lambda: box.clerk.requests.count("PATCH") >= 4)
        while (row := await parts.store.queue.get("user:user_1")) is None or not row.attempts:
            await parts.store.database.changed(0.05)
    result = await subject(parts, "user:user_1")
    assert result.verdict.state is SyncState.LATE
    assert "The service is unavailable" in result.verdict.headline


@pytest.mark.parametrize("service", ["clerk", "lake"])
async def test_a_service_that_is_down_is_reported_in_plain_words(box: Sandbox, parts: Parts, service: str) -> None:
    box.clerk.add_user("user_1")
    await publish(box, "e1", clerkUserId="user_1")
    faults = (box.clerk if service == "clerk" else box.lake).faults
    faults.some("unauthorized", 1.0)
    result = await document(parts, "e1")
    assert result.verdict.state is SyncState.UNKNOWN
    assert "rejected our credentials" in result.verdict.headline
    faults.clear()
    faults.some("hang", 1.0)
    result = await document(parts, "e1")
    assert result.verdict.state is SyncState.UNKNOWN
    assert "did not answer within 2 s" in result.verdict.headline


async def test_nothing_is_ever_written(box: Sandbox, parts: Parts) -> None:
    box.clerk.add_user("user_1")
    await publish(box, "e1", clerkUserId="user_1")
    await document(parts, "e1")
    assert box.clerk.requests.writes == []
    async with open_explainer(parts.settings, parts.store, patience=20) as explainer:
        change = Change(Subject.parse("user:user_1"), ChangeKind.GRANT, {}, {}, public={"plan": "pro"})
        with pytest.raises(MutationInDryRun):
            await explainer.reconciler.target.apply(change)


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("user_1", Subject.parse("user:user_1")),
        ("org:org_1", Subject.parse("org:org_1")),
        ("Ada@Example.org", Subject.parse("email:ada@example.org")),
        ("membership:org_1/user_1", Subject.parse("membership:org_1/user_1")),
        ("external:7", Subject.parse("external:7")),
        ("ent-1", "ent-1"),
        ("document:user_1", "user_1"),
        ("drafts.ent-1", "ent-1"),
        ("versions.r1.ent-1", "ent-1"),
    ],
)
def test_a_target_is_a_subject_or_else_a_document(text: str, target: Subject | str) -> None:
    assert parse_target(text) == target


@pytest.mark.parametrize("text", ["../x", "", "document:", "document:a b", "user:x", "a" * 200])
def test_what_is_neither_is_refused(text: str) -> None:
    with pytest.raises(InvalidSubject):
        parse_target(text)


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
    assert issue["reason"] == "1 reference leads to nothing usable"
    await box.lake.mutate([{"create": {"_id": "course-1", "_type": "course", "slug": {"current": "algebra"}}}])
    await sync(parts, "user:user_1")
    assert await parts.store.queue.noted(10) == []


async def test_nobody_is_not_called_synced(parts: Parts) -> None:
    for key in ("user:user_nobody", "org:org_nobody", ADA, "external:crm-9"):
        result = await subject(parts, key)
        assert (result.verdict.state, bool(result.verdict.next_step)) == (SyncState.UNKNOWN, True), key


@pytest.mark.parametrize(
    ("email", "reason"),
    [
        ({"verified": False}, "it is not verified"),
        ({"reserved": True}, "it is reserved by a sign-up that is not finished"),
        ({"primary": False}, "it is not the primary address"),
    ],
)
@pytest.mark.parametrize("published", [True, False])
async def test_an_address_that_does_not_count_says_who_has_it_and_why(
    box: Sandbox, parts: Parts, email: dict[str, bool], reason: str, published: bool
) -> None:
    box.clerk.add_user("user_1", email=ADA)
    change_address(box, **email)
    if published:
        await publish(box, "e1", userEmail=ADA)
    result = await subject(parts, ADA)
    assert result.verdict.headline == f"user:user_1 has this address, but it does not count because {reason}."
    assert result.verdict.state is (SyncState.PENDING if published else SyncState.UNKNOWN)
    assert "clerkUserId" in result.verdict.next_step


def change_address(box: Sandbox, *, verified: bool = True, reserved: bool = False, primary: bool = True) -> None:
    user = box.clerk.users["user_1"]
    (address,) = user["email_addresses"]
    address["reserved"] = reserved
    address["verification"] = {"status": "verified" if verified else "unverified", "strategy": "email_code"}
    if not primary:
        user["primary_email_address_id"] = "idn_another"


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


async def test_each_field_that_is_wrong_is_an_issue_of_its_own(box: Sandbox, parts: Parts) -> None:
    box.clerk.add_user("user_1")
    await publish(box, "e1", clerkUserId="user_1", endsAt=20270601)
    await publish(box, "e2", clerkUserId="user_1", plan="gold")
    await publish(box, "e3", clerkUserId="user_1", courses=[weak("nowhere")])
    await sync(parts, "user:user_1")
    (noted,) = await parts.store.queue.noted(10)
    found = [(one.kind.value, one.document, one.field, one.reason) for one in from_row(noted)]
    assert found == [
        ("refused", "e1", "endsAt", NOT_A_TIME),
        ("refused", "e2", "plan", "'gold' is not one of basic, pro"),
        ("incomplete", "e3", "unresolved", "1 reference leads to nothing usable"),
    ]

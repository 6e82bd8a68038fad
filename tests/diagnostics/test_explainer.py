"""What is said of a document and of a subject in each state that they can be in, with the real parts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from sync_worker.diagnostics.explain_document import SESSION_TOKEN_SECONDS
from sync_worker.diagnostics.explain_subject import Standing, State
from sync_worker.diagnostics.explainer import parse_target
from sync_worker.diagnostics.serialize import document_json, subject_json
from sync_worker.domain.entitlements import Change, ChangeKind
from sync_worker.domain.subjects import Subject
from sync_worker.errors import InvalidSubject, MutationInDryRun
from sync_worker.runtime.service import running_worker
from sync_worker.runtime.wiring import open_explainer
from sync_worker.storage.queue import WorkItem
from sync_worker.sync.address_resolution import PENDING_REASON
from tests.oracle import until
from tests.parts import opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sync_worker.diagnostics.explain_document import DocumentExplanation
    from sync_worker.diagnostics.explain_subject import Explanation
    from sync_worker.sandbox.server import Sandbox
    from tests.parts import Parts

pytestmark = pytest.mark.anyio
ADA = "ada@example.org"


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
    """Mark, and let a worker run until there is nothing to do."""
    await parts.store.queue.enqueue([WorkItem(key, lane=0, cause=cause) for key in keys])
    async with running_worker(parts.settings, parts.store):
        for key in keys:
            while (row := await parts.store.queue.get(key)) and row.pending and not row.dead:
                await parts.store.database.changed(0.05)


async def document(parts: Parts, id_: str) -> DocumentExplanation:
    async with open_explainer(parts.settings, parts.store, patience=2) as explainer:
        return await explainer.document(id_)


async def subject(parts: Parts, key: str) -> Explanation:
    async with open_explainer(parts.settings, parts.store, patience=2) as explainer:
        return await explainer.subject(Subject.parse(key))


def ahead(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


async def test_a_document_that_arrived_tells_when(box: Sandbox, parts: Parts) -> None:
    box.clerk.add_user("user_1")
    await publish(box, "e1", clerkUserId="user_1")
    await sync(parts, "user:user_1")
    told = await document(parts, "e1")
    assert told.verdict.state is State.SYNCED
    assert told.facts.published is not None
    assert told.in_clerk is not None
    assert told.facts.published <= told.in_clerk
    assert told.in_sessions_by == told.in_clerk + SESSION_TOKEN_SECONDS
    assert "→ in Clerk" in told.verdict.headline
    assert "→ in every session by" in told.verdict.headline
    assert [(str(s.subject), told.state(s)) for s in told.subjects] == [("user:user_1", State.SYNCED)]


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
    assert (before.verdict.state, before.in_clerk) == (State.SYNCED, None)
    assert after.in_clerk is not None
    assert after.in_clerk >= (after.facts.published or 0)


async def test_a_document_nobody_was_told_of_is_late_and_names_the_command(box: Sandbox, parts: Parts) -> None:
    box.clerk.add_user("user_1")
    await publish(box, "e1", clerkUserId="user_1")
    told = await document(parts, "e1")
    assert (told.verdict.state, told.in_clerk) == (State.LATE, None)
    assert "no webhook told of it" in told.verdict.headline
    assert "sync-worker sync user:user_1" in told.verdict.next_step


async def test_work_that_waits_without_a_worker_says_that_none_is_running(box: Sandbox, parts: Parts) -> None:
    box.clerk.add_user("user_1")
    await publish(box, "e1", clerkUserId="user_1")
    await parts.store.queue.enqueue([WorkItem("user:user_1")])
    told = await document(parts, "e1")
    assert told.verdict.state is State.LATE
    assert "no worker is running" in told.verdict.headline


async def test_a_lagging_index_is_told_from_a_lost_webhook(box: Sandbox, parts: Parts) -> None:
    box.clerk.add_user("user_1")
    await publish(box, "e1", clerkUserId="user_1")
    await sync(parts, "user:user_1")
    box.lake.lag = 5
    await publish(box, "e1", clerkUserId="user_1", plan="basic")
    told = await document(parts, "e1")
    assert told.verdict.state is State.LATE
    assert "query index" in told.verdict.headline
    await delete(box, "e1")
    told = await document(parts, "e1")
    assert told.verdict.headline.startswith("It is not published any more, but Sanity's query index")


async def test_an_entitlement_by_an_address_nobody_has_is_pending(box: Sandbox, parts: Parts) -> None:
    await publish(box, "e1", userEmail=ADA)
    told = await document(parts, "e1")
    assert told.verdict.state is State.PENDING
    assert PENDING_REASON in told.verdict.headline
    assert ADA not in str(document_json(told)) + str([subject_json(one) for one in told.subjects])
    assert "a***@example.org" in str(document_json(told))


async def test_an_address_that_two_people_have_is_refused_and_names_them(box: Sandbox, parts: Parts) -> None:
    box.clerk.add_user("user_1", email=ADA)
    box.clerk.add_user("user_2", email=ADA)
    await publish(box, "e1", userEmail=ADA)
    told = await document(parts, "e1")
    (one,) = told.subjects
    assert (told.verdict.state, one.lines[0].standing) == (State.REFUSED, Standing.AMBIGUOUS_ADDRESS)
    assert "user:user_1, user:user_2" in one.verdict.headline
    assert (await subject(parts, "user:user_2")).lines[0].standing is Standing.AMBIGUOUS_ADDRESS


async def test_an_address_of_one_person_is_that_person(box: Sandbox, parts: Parts) -> None:
    box.clerk.add_user("user_1", email=ADA)
    await publish(box, "e1", userEmail=ADA)
    await sync(parts, "user:user_1")
    told = await subject(parts, ADA)
    assert (str(told.subject), told.verdict.state, told.access.sources) == ("user:user_1", State.SYNCED, ("e1",))


async def test_an_address_within_an_organization_is_that_membership(box: Sandbox, parts: Parts) -> None:
    box.clerk.add_user("user_1", email=ADA)
    box.clerk.add_organization("org_1")
    box.clerk.add_membership("org_1", "user_1")
    await publish(box, "e1", userEmail=ADA, clerkOrganizationId="org_1")
    await sync(parts, "membership:org_1/user_1")
    (one,) = (await document(parts, "e1")).subjects
    assert (str(one.subject), one.verdict.state) == ("membership:org_1/user_1", State.SYNCED)
    assert (await subject(parts, "user:user_1")).lines == ()


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"plan": "gold"}, (Standing.REFUSED, State.REFUSED, "'gold' is not one of basic, pro")),
        ({"role": 7 * [1]}, (Standing.REFUSED, State.REFUSED, "role: must be a string")),
        ({"startsAt": ahead(3600)}, (Standing.NOT_YET, State.PENDING, "it begins")),
        ({"endsAt": ahead(-3600)}, (Standing.OVER, State.EXPIRED, "it ended")),
        ({"status": "paused"}, (Standing.INACTIVE, State.EXPIRED, "its status is 'paused'")),
    ],
)
async def test_a_row_that_does_not_count_says_why(
    box: Sandbox, parts: Parts, fields: dict[str, Any], expected: tuple[Standing, State, str]
) -> None:
    standing, state, words = expected
    box.clerk.add_user("user_1")
    await publish(box, "e1", clerkUserId="user_1", **fields)
    told = await document(parts, "e1")
    (one,) = told.subjects
    assert (one.lines[0].standing, one.verdict.state, told.verdict.state) == (standing, state, state)
    assert words in one.verdict.headline
    assert words in told.verdict.headline
    assert told.verdict.next_step


async def test_an_entitlement_that_names_nobody_is_refused(box: Sandbox, parts: Parts) -> None:
    await publish(box, "e1", clerkUserId="../organizations/org_1")
    told = await document(parts, "e1")
    assert (told.verdict.state, told.subjects) == (State.REFUSED, ())
    assert "clerkUserId" in told.verdict.headline


async def test_an_id_that_clerk_does_not_know_is_refused(box: Sandbox, parts: Parts) -> None:
    await publish(box, "e1", clerkUserId="user_nobody")
    told = await document(parts, "e1")
    assert told.verdict.state is State.REFUSED
    assert "nobody by this id in Clerk" in told.verdict.headline


async def test_access_that_clerk_cannot_hold_is_refused(box: Sandbox, parts: Parts) -> None:
    box.clerk.add_user("user_1")
    slugs = [
        {"create": {"_id": f"c{n}", "_type": "course", "slug": {"current": f"{n:03}{'x' * 90}"}}} for n in range(100)
    ]
    await box.lake.mutate(slugs)
    await publish(box, "e1", clerkUserId="user_1", courses=[{"_ref": f"c{n}"} for n in range(100)])
    told = await document(parts, "e1")
    assert told.verdict.state is State.REFUSED
    assert "8 KB" in told.verdict.headline


async def test_a_second_row_that_is_refused_does_not_hide_behind_the_good_one(box: Sandbox, parts: Parts) -> None:
    box.clerk.add_user("user_1")
    await publish(box, "e1", clerkUserId="user_1")
    await publish(box, "e2", clerkUserId="user_1", plan="gold")
    await sync(parts, "user:user_1")
    told = await subject(parts, "user:user_1")
    assert told.verdict.state is State.SYNCED
    assert "e2 does not count" in told.verdict.headline


async def test_a_held_revocation_names_its_changeset(box: Sandbox, parts: Parts) -> None:
    users = [box.clerk.add_user(f"user_{n}") for n in range(3)]
    await box.lake.mutate([{"create": {"_id": "plan-1", "_type": "plan", "slug": {"current": "pro"}}}])
    for user in users:
        await publish(box, f"ent-{user}", clerkUserId=user, plan={"_ref": "plan-1"})
    await sync(parts, *(f"user:{user}" for user in users))
    await box.lake.mutate([{"patch": {"id": f"ent-{user}", "set": {"status": "off"}}} for user in users])
    await sync(parts, *(f"user:{user}" for user in users), cause="document:plan-1")
    (held,) = await parts.store.runs.held()
    told = await document(parts, f"ent-{users[0]}")
    assert told.verdict.state is State.HELD
    assert f"sync-worker approve {held.id}" in told.verdict.next_step


async def test_a_deleted_document_tells_when_its_access_was_gone(box: Sandbox, parts: Parts) -> None:
    box.clerk.add_user("user_1")
    box.clerk.add_user("user_2")
    await publish(box, "e1", clerkUserId="user_1")
    await publish(box, "e2", clerkUserId="user_2")
    await sync(parts, "user:user_1")
    await delete(box, "e1")
    told = await document(parts, "e1")
    assert told.verdict.state is State.LATE
    assert "not published any more, but its access is still in Clerk" in told.verdict.headline
    await sync(parts, "user:user_1")
    told = await document(parts, "e1")
    assert (told.verdict.state, told.facts.published) == (State.DELETED, None)
    assert told.in_clerk is not None
    assert "Gone from Clerk" in told.verdict.headline
    assert [(str(s.subject), told.state(s)) for s in told.subjects] == [("user:user_1", State.SYNCED)]


async def test_an_entitlement_that_moved_is_late_until_the_first_person_lost_it(box: Sandbox, parts: Parts) -> None:
    for user in ("user_1", "user_2"):
        box.clerk.add_user(user)
    await publish(box, "e1", clerkUserId="user_1")
    await sync(parts, "user:user_1")
    await publish(box, "e1", clerkUserId="user_2")
    await sync(parts, "user:user_2")
    told = await document(parts, "e1")
    assert told.verdict.state is State.LATE
    assert "not for user:user_1 any more" in told.verdict.headline
    await sync(parts, "user:user_1")
    told = await document(parts, "e1")
    assert told.verdict.state is State.SYNCED
    assert {str(s.subject) for s in told.subjects} == {"user:user_1", "user:user_2"}


async def test_an_id_that_was_never_published_is_unknown(parts: Parts) -> None:
    told = await document(parts, "nothing")
    assert (told.verdict.state, told.subjects) == (State.UNKNOWN, ())


async def test_a_document_that_may_not_be_read_is_not_taken_for_deleted(box: Sandbox, parts: Parts) -> None:
    await publish(box, "private.e1", clerkUserId="user_1")
    await parts.store.queue.enqueue([WorkItem("document:private.e1")])
    box.lake.public = True
    async with open_explainer(parts.settings, parts.store, patience=20) as explainer:
        explainer.converge.source._client._transport.headers = {}  # type: ignore[attr-defined]  # so it may not read dots
        told = await explainer.document("private.e1")
    assert (told.verdict.state, "may the token read it" in told.verdict.headline) == (State.UNKNOWN, True)


async def test_a_course_tells_how_many_people_it_leads_to(box: Sandbox, parts: Parts) -> None:
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
    told = await document(parts, "course-1")
    assert told.facts.reach is not None
    assert (told.facts.reach.entitlements, told.facts.reach.people) == (5, 4)
    await parts.store.queue.enqueue([WorkItem("document:course-1", lane=1)])
    assert (await document(parts, "course-1")).verdict.state is State.LATE
    assert "No entitlement leads to it" in (await document(parts, "course-2")).verdict.headline


async def test_a_course_is_late_until_its_last_holder_is_right(box: Sandbox, parts: Parts) -> None:
    box.clerk.add_user("user_1")
    await box.lake.mutate([{"create": {"_id": "course-1", "_type": "course", "slug": {"current": "algebra"}}}])
    await publish(box, "e1", clerkUserId="user_1", courses=[{"_ref": "course-1"}])
    await parts.store.queue.enqueue([WorkItem("user:user_1", lane=1, cause="document:course-1")])
    told = await document(parts, "course-1")
    assert (told.verdict.state, told.facts.reach and told.facts.reach.waiting) == (State.LATE, 1)
    await sync(parts, "user:user_1", cause="document:course-1")
    told = await document(parts, "course-1")
    assert told.verdict.state is State.SYNCED
    assert told.in_clerk is not None


async def test_a_subject_somebody_edited_in_clerk_is_told_as_that(box: Sandbox, parts: Parts) -> None:
    box.clerk.add_user("user_1")
    await publish(box, "e1", clerkUserId="user_1")
    await sync(parts, "user:user_1")
    held = box.clerk.users["user_1"]["public_metadata"]
    box.clerk.update_user("user_1", public_metadata={**held, "plan": "team"})
    told = await subject(parts, "user:user_1")
    assert told.verdict.state is State.LATE
    assert "somebody edited it in Clerk" in told.verdict.headline


async def test_a_plan_that_was_never_ours_is_left_alone_and_said_so(box: Sandbox, parts: Parts) -> None:
    box.clerk.add_user("user_1", public_metadata={"plan": "vip"})
    told = await subject(parts, "user:user_1")
    assert told.verdict.state is State.SYNCED
    assert "not ours" in told.verdict.headline


async def test_an_attempt_that_failed_tells_when_it_is_tried_again(box: Sandbox, parts: Parts) -> None:
    box.clerk.add_user("user_1")
    await publish(box, "e1", clerkUserId="user_1")
    box.clerk.faults.some("unavailable", 1.0, method="PATCH", path_prefix="/v1/users")
    await parts.store.queue.enqueue([WorkItem("user:user_1")])
    async with running_worker(parts.settings, parts.store):
        await until(lambda: box.clerk.requests.count("PATCH") >= 4)
        while (row := await parts.store.queue.get("user:user_1")) is None or not row.attempts:
            await parts.store.database.changed(0.05)
    told = await subject(parts, "user:user_1")
    assert told.verdict.state is State.LATE
    assert "service is unavailable" in told.verdict.headline


@pytest.mark.parametrize("service", ["clerk", "lake"])
async def test_a_service_that_is_down_is_told_in_plain_words(box: Sandbox, parts: Parts, service: str) -> None:
    box.clerk.add_user("user_1")
    await publish(box, "e1", clerkUserId="user_1")
    faults = (box.clerk if service == "clerk" else box.lake).faults
    faults.some("unauthorized", 1.0)
    told = await document(parts, "e1")
    assert told.verdict.state is State.UNKNOWN
    assert "rejected our credentials" in told.verdict.headline
    faults.clear()
    faults.some("hang", 1.0)
    told = await document(parts, "e1")
    assert told.verdict.state is State.UNKNOWN
    assert "did not answer within 2 s" in told.verdict.headline


async def test_nothing_is_ever_written(box: Sandbox, parts: Parts) -> None:
    box.clerk.add_user("user_1")
    await publish(box, "e1", clerkUserId="user_1")
    await document(parts, "e1")
    assert box.clerk.requests.writes == []
    async with open_explainer(parts.settings, parts.store, patience=20) as explainer:
        change = Change(Subject.parse("user:user_1"), ChangeKind.GRANT, {}, {}, public={"plan": "pro"})
        with pytest.raises(MutationInDryRun):
            await explainer.converge.target.apply(change)


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

"""The explanation of a subject: whose each key is, what is wrong, and what is never written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sync_worker.diagnostics.explainer import parse_target
from sync_worker.diagnostics.explanation import SyncState
from sync_worker.diagnostics.serialize import subject_json
from sync_worker.domain.entitlements import Change, ChangeKind
from sync_worker.domain.subjects import Subject
from sync_worker.errors import InvalidSubject, MutationInDryRun
from sync_worker.runtime.service import running_worker
from sync_worker.runtime.wiring import open_explainer
from sync_worker.storage.work_items import WorkItem
from tests.builders import publish
from tests.diagnostics.explaining import document, subject, sync
from tests.oracle import until

if TYPE_CHECKING:
    from sync_worker.sandbox.server import Sandbox
    from tests.parts import Parts

pytestmark = pytest.mark.anyio


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

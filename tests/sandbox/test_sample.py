from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from sync_worker.sandbox import sample
from sync_worker.sandbox.documents import strong_references

if TYPE_CHECKING:
    from sync_worker.sandbox.server import Sandbox

NOW = datetime(2026, 1, 15, tzinfo=UTC)


def test_every_reference_of_the_sample_has_its_target() -> None:
    documents = {document["_id"]: document for document in sample.documents(NOW)}
    targets = {target for document in documents.values() for target in strong_references(document)}
    assert targets
    assert targets <= documents.keys()


def test_the_sample_has_an_entitlement_that_is_active_later_and_one_that_was() -> None:
    windows = [document["startsAt"] > "2026-01-15" for document in sample.documents(NOW) if "startsAt" in document]
    assert sorted(windows) == [False, True]


@pytest.mark.anyio
async def test_everybody_whom_the_sample_names_is_in_clerk(box: Sandbox) -> None:
    await sample.load_sample(box)
    named = await box.lake.query('*[_type == "entitlement"]')
    assert {row["clerkUserId"] for row in named if "clerkUserId" in row} <= box.clerk.users.keys()
    assert {row["clerkOrganizationId"] for row in named if "clerkOrganizationId" in row} <= set(box.clerk.organizations)
    emails = {row["userEmail"] for row in named if "userEmail" in row}
    assert len(box.clerk.directory.with_email(emails)) == len(emails) > 0
    external_ids = {row["userExternalId"] for row in named if "userExternalId" in row}
    assert len(box.clerk.directory.with_external_id(external_ids)) == len(external_ids) > 0
    both = [row for row in named if "clerkUserId" in row and "clerkOrganizationId" in row]
    assert {(row["clerkOrganizationId"], row["clerkUserId"]) for row in both} <= set(box.clerk.memberships)


@pytest.mark.anyio
async def test_the_courses_of_a_plan_are_reached_through_its_reference(box: Sandbox) -> None:
    await sample.load_sample(box)
    query = '*[_id == "entitlement-ada-pro"][0]{"plan": plan->slug.current, "courses": plan->courses[]->slug.current}'
    assert await box.lake.query(query) == {"plan": "pro", "courses": ["python-basics", "python-web", "statistics"]}

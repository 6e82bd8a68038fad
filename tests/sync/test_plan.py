"""What is planned from one read of both services."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sync_worker.clerk.target import AddressOwners
from sync_worker.domain.entitlements import CORE_FIELDS, Layout, Marker, Observed, Slot
from sync_worker.domain.subjects import Subject
from sync_worker.errors import UnreadableAnswer
from sync_worker.sanity.source import Snapshot
from sync_worker.sync.outcome import Due
from sync_worker.sync.plan import Facts, Reading, make_plan
from tests.clock import TIMINGS
from tests.leases import lease_of

if TYPE_CHECKING:
    from collections.abc import Mapping

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
ADDRESS = Subject.parse("email:ada@example.org")
ADA, MEMBER = Subject.parse("user:user_ada"), Subject.parse("membership:org_1/user_ada")
LAYOUT = Layout(CORE_FIELDS, source="p/d")
MARKED: Mapping[str | None, Marker] = {None: Marker(LAYOUT.source, (Slot.parse("plan"),), ("e1",))}


def planned(subject: Subject, observed: Observed, owners: AddressOwners, **named: str) -> Any:
    row = {"_id": "e1", "_rev": "r1", "_updatedAt": "2026-05-01T11:00:00Z", "courseSlugs": [], "plan": "pro", **named}
    reading = Reading(Snapshot((row,), {}, 1, 1, 1), owners)
    facts = Facts(reading, {subject: observed}, (), NOON)
    (outcome,) = make_plan([Due(subject, lease_of(str(subject)))], facts, LAYOUT, TIMINGS).outcomes
    return outcome


def test_an_address_whose_only_user_could_not_be_read_takes_nothing_from_that_user() -> None:
    observed = Observed(ADA, public={"plan": "pro"}, markers=MARKED, addresses=(ADDRESS,))
    outcome = planned(ADA, observed, AddressOwners({}, {ADDRESS: "malformed"}), userEmail="ada@example.org")
    assert isinstance(outcome.error, UnreadableAnswer)
    assert not outcome.writes


def test_nor_from_that_users_membership() -> None:
    observed = Observed(MEMBER, public={"plan": "pro"}, markers=MARKED)
    owners = AddressOwners({}, {ADDRESS: "malformed"})
    outcome = planned(MEMBER, observed, owners, userEmail="ada@example.org", clerkOrganizationId="org_1")
    assert isinstance(outcome.error, UnreadableAnswer)


def test_it_takes_the_access_of_a_user_who_gave_the_address_up() -> None:
    observed = Observed(ADA, public={"plan": "pro"}, markers=MARKED)
    outcome = planned(ADA, observed, AddressOwners({}, {ADDRESS: "malformed"}), userEmail="ada@example.org")
    assert outcome.error is None

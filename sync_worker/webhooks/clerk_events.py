"""Turns Clerk's events into work items: a sign-up, a new address, a new member, a deletion.

A person may be entitled before they exist in Clerk, and an address may be verified, or move to another person, at any
time. An event only says who may differ.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from sync_worker.domain.entitlements import Observed
from sync_worker.domain.ownership import is_untouched, own_marker, read_markers
from sync_worker.domain.subjects import Kind, Subject
from sync_worker.domain.work import Cause, CauseKind
from sync_worker.errors import InvalidSubject
from sync_worker.storage.work_items import MEMBERS, WorkItem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sync_worker.domain.entitlements import Layout
    from sync_worker.domain.timings import Timings

INSTANCE = "clerk_instance"
"""The name under which the id of our instance is kept; the worker reads it from Clerk."""
DIRECT, ECHO_LANE, REPAIR_LANE = 0, 1, 2
KINDS = {"user": Kind.USER, "organization": Kind.ORGANIZATION, "organizationMembership": Kind.MEMBERSHIP}
ACTIONS = frozenset({"created", "updated", "deleted"})
WITH_ADDRESSES = frozenset({"user.created", "user.updated", "organizationMembership.created"})
"""After these an entitlement that names somebody by address may count for another person."""


class Event(BaseModel):
    """The signed body (Clerk's webhook schema 2025-04-15). `data` is the object, or its remains after a deletion."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    type: str
    data: dict[str, Any]
    instance_id: str = ""

    @property
    def kind(self) -> Kind | None:
        """What it is about; None when it does not concern us."""
        what, _, action = self.type.partition(".")
        return KINDS.get(what) if action in ACTIONS else None

    def subject(self) -> Subject | None:
        """Return whom it is about; None when it does not concern us. Raises InvalidSubject."""
        if self.kind is None:
            return None
        if self.kind is not Kind.MEMBERSHIP:
            return Subject.parse(f"{self.kind}:{self.data.get('id')}")
        try:
            organization, user = self.data["organization"]["id"], self.data["public_user_data"]["user_id"]
        except (KeyError, TypeError):
            raise InvalidSubject(self.type) from None
        return Subject.parse(f"{Kind.MEMBERSHIP}:{organization}/{user}")


def parse_event(body: bytes) -> Event | None:
    """Read a signed body; None when it does not have Clerk's shape."""
    try:
        event = Event.model_validate(json.loads(body))
        event.subject()
    except (ValidationError, InvalidSubject, ValueError, RecursionError):
        return None
    return event


def items_of(event: Event, layout: Layout, now: float, timings: Timings, delivery: str = "") -> list[WorkItem]:
    """Return what an event may have changed. A user's address may concern memberships too, which it does not name."""
    subject = event.subject()
    if subject is None:
        return []
    item = _item_of(event, subject, layout, now, timings, delivery=delivery)
    if event.type not in WITH_ADDRESSES:
        return [item]
    members, later = MEMBERS + subject.user_id, now + timings.memberships_delay
    return [item, WorkItem(members, REPAIR_LANE, later, cause=item.cause, delivery=delivery)]


def _item_of(
    event: Event, subject: Subject, layout: Layout, now: float, timings: Timings, *, delivery: str
) -> WorkItem:
    """Return the item for an event's own subject. `now` is in epoch seconds.

    Our own write comes back as an event too: a young marker beside exactly the values that were written. It is looked
    at a little later, because an address may have changed in the same moment.
    """
    cause = Cause(CauseKind.CLERK, event.type)
    if _is_echo(subject, event.data, layout, now - timings.echo_window):
        return WorkItem(str(subject), ECHO_LANE, now + timings.echo_delay, cause=cause, delivery=delivery)
    return WorkItem(str(subject), DIRECT, cause=cause, delivery=delivery)


def _is_echo(subject: Subject, data: Mapping[str, Any], layout: Layout, since: float) -> bool:
    """Return whether an object holds exactly what we wrote, with a marker younger than `since`."""
    public, private = data.get("public_metadata"), data.get("private_metadata")
    if not isinstance(public, dict) or not isinstance(private, dict):
        return False
    observed = Observed(subject, public, private, read_markers(private))
    marker = own_marker(observed, layout)
    if marker is None:
        return False
    try:
        written_at = datetime.fromisoformat(marker.at).timestamp()
    except ValueError:
        return False
    return written_at > since and is_untouched(observed, marker)

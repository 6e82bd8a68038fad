"""A local Clerk instance: users, organizations and memberships, with Clerk's rules for changing them.

Records hold the fields that can change, under Clerk's names: `users[id]["public_metadata"]`. `clerk_routes` serves the
instance over HTTP.
"""

from __future__ import annotations

import time
from random import Random
from typing import TYPE_CHECKING, Any

from sync_worker.sandbox import clerk_errors as errors
from sync_worker.sandbox.clerk_bodies import (
    Record,
    deleted_body,
    email_body,
    membership_body,
    organization_body,
    user_body,
)
from sync_worker.sandbox.clerk_errors import ANSWERS
from sync_worker.sandbox.clerk_lists import Users
from sync_worker.sandbox.clerk_webhooks import ClerkWebhooks
from sync_worker.sandbox.clock import milliseconds
from sync_worker.sandbox.content_lake import ALPHABET
from sync_worker.sandbox.faults import Faults
from sync_worker.sandbox.limits import Limiter, Limits
from sync_worker.sandbox.traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ROLES = frozenset({"org:admin", "org:member"})


class ClerkApi:
    """One Clerk instance, with all `users`, `organizations` and `memberships` ((organization, user) → record).

    `limiter.limits` are the rate limits. `webhooks` sends each change to the subscribed endpoints. `environment` is the
    instance's type, `templates` are its JWT templates, `session_claims` its custom session token, and `subscriptions`
    those of Clerk Billing by payer.
    """

    def __init__(
        self,
        secret_key: str = "sk_test_sandbox",  # noqa: S107  a key of the sandbox, not a secret
        *,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.time,
        random: Random | None = None,
    ) -> None:
        self.secret_key = secret_key
        self.clock = clock
        self.random = random or Random(0)
        self.limiter = Limiter(limits or Limits(), clock)
        self._limits_at_first = self.limiter.limits
        self.faults = Faults(ANSWERS, self.random)
        self.requests = Traffic()
        self.directory = Users()
        self.organizations: dict[str, Record] = {}
        self.memberships: dict[tuple[str, str], Record] = {}
        self.webhooks = ClerkWebhooks(clock, self.random)
        self.environment = self._environment_of_key
        self.sessions: dict[str, Record] = {}
        self.templates: dict[str, Record] = {}
        self.session_claims: dict[str, Any] = {}
        self.subscriptions: dict[str, Record] = {}

    @property
    def _environment_of_key(self) -> str:
        return "development" if self.secret_key.startswith("sk_test_") else "production"

    @property
    def users(self) -> Mapping[str, Record]:
        """All users by id."""
        return self.directory.by_id

    async def reset(self) -> None:
        """Empty the instance: no records, webhooks, faults or logged requests."""
        await self.webhooks.reset()
        self.directory = Users()
        self.organizations.clear()
        self.memberships.clear()
        self.sessions.clear()
        self.templates.clear()
        self.session_claims = {}
        self.subscriptions.clear()
        self.environment = self._environment_of_key
        self.limiter.clear()
        self.limiter.limits = self._limits_at_first
        self.faults.clear()
        self.requests.clear()

    def add_user(
        self,
        user_id: str | None = None,
        *,
        email: str | None = None,
        verified: bool = True,
        reserved: bool = False,
        external_id: str | None = None,
        public_metadata: Mapping[str, Any] | None = None,
        private_metadata: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> str:
        """Create a user and return the id. `more` sets further fields of the record, such as first_name."""
        now = self.now()
        id_ = user_id or self.new_id("user")
        addresses = []
        if email is not None:
            addresses = [email_body(self.new_id("idn"), email, now, verified=verified, reserved=reserved)]
        user = {
            "id": id_,
            "external_id": external_id,
            "username": None,
            "first_name": None,
            "last_name": None,
            "primary_email_address_id": addresses[0]["id"] if addresses else None,
            "email_addresses": addresses,
            "public_metadata": dict(public_metadata or {}),
            "private_metadata": dict(private_metadata or {}),
            "unsafe_metadata": {},
            "banned": False,
            "locked": False,
            "last_sign_in_at": None,
            "last_active_at": None,
            "created_at": now,
            "updated_at": now,
            **more,
        }
        self.directory.add(user)
        self._publish("user.created", user)
        return id_

    def update_user(self, user_id: str, **changes: Any) -> Record:
        """Set fields of a user. Raises ClerkError 404."""
        user = self.user(user_id)
        self.directory.unindex(user)
        user |= {**changes, "updated_at": self.now()}
        self.directory.index(user)
        self._publish("user.updated", user)
        return user

    def delete_user(self, user_id: str) -> Record:
        """Delete a user and their memberships. Raises ClerkError 404."""
        user = self.user(user_id)
        for organization_id in self.organizations_of({user_id}):
            self.remove_membership(organization_id, user_id)
        self.directory.remove(user_id)
        body = deleted_body("user", user_id, external_id=user["external_id"])
        self._publish("user.deleted", body)
        return body

    def add_organization(
        self,
        organization_id: str | None = None,
        *,
        name: str = "Organization",
        slug: str | None = None,
        public_metadata: Mapping[str, Any] | None = None,
        private_metadata: Mapping[str, Any] | None = None,
        created_by: str | None = None,
    ) -> str:
        """Create an organization and return the id."""
        now = self.now()
        id_ = organization_id or self.new_id("org")
        organization = {
            "id": id_,
            "name": name,
            "slug": slug or id_.replace("_", "-").lower(),
            "public_metadata": dict(public_metadata or {}),
            "private_metadata": dict(private_metadata or {}),
            "created_by": created_by or "",
            "created_at": now,
            "updated_at": now,
        }
        self.organizations[id_] = organization
        self._publish("organization.created", organization)
        return id_

    def delete_organization(self, organization_id: str) -> Record:
        """Delete an organization and its memberships. Raises ClerkError 404."""
        organization = self.organization(organization_id)
        for user_id in self.members_of({organization_id}):
            self.remove_membership(organization_id, user_id)
        del self.organizations[organization_id]
        body = deleted_body("organization", organization_id, slug=organization["slug"])
        self._publish("organization.deleted", body)
        return body

    def members_of(self, organization_ids: set[str]) -> set[str]:
        """Return the ids of the members of any of these organizations."""
        return {user_id for organization_id, user_id in self.memberships if organization_id in organization_ids}

    def organizations_of(self, user_ids: set[str]) -> set[str]:
        """Return the ids of the organizations that any of these users belongs to."""
        return {organization_id for organization_id, user_id in self.memberships if user_id in user_ids}

    def add_membership(
        self,
        organization_id: str,
        user_id: str,
        *,
        role: str = "org:member",
        public_metadata: Mapping[str, Any] | None = None,
        private_metadata: Mapping[str, Any] | None = None,
    ) -> Record:
        """Add a user to an organization. Raises ClerkError 404, 422 for an unknown role, 400 for an existing member."""
        self.organization(organization_id)
        self.user(user_id)
        self._check_role(role)
        if (organization_id, user_id) in self.memberships:
            message = "The user is already a member of the organization."
            raise errors.ClerkError(400, "already_a_member_in_organization", message)
        now = self.now()
        membership = {
            "id": self.new_id("orgmem"),
            "organization_id": organization_id,
            "user_id": user_id,
            "role": role,
            "public_metadata": dict(public_metadata or {}),
            "private_metadata": dict(private_metadata or {}),
            "created_at": now,
            "updated_at": now,
        }
        self.memberships[organization_id, user_id] = membership
        self._publish("organizationMembership.created", membership)
        return membership

    def set_role(self, organization_id: str, user_id: str, role: str) -> Record:
        """Change a member's role. Raises ClerkError 404, 422."""
        membership = self.membership(organization_id, user_id)
        self._check_role(role)
        self.touch(membership, "organizationMembership.updated", role=role)
        return membership

    def remove_membership(self, organization_id: str, user_id: str) -> Record:
        """End a membership. Raises ClerkError 404."""
        membership = self.membership(organization_id, user_id)
        self._publish("organizationMembership.deleted", membership)
        return self.memberships.pop((organization_id, user_id))

    def user(self, user_id: str) -> Record:
        """Return a user. Raises ClerkError 404."""
        if user_id not in self.directory.by_id:
            raise errors.not_found("user")
        return self.directory.by_id[user_id]

    def organization(self, organization_id: str) -> Record:
        """Return an organization. Raises ClerkError 404."""
        if organization_id not in self.organizations:
            raise errors.not_found("organization")
        return self.organizations[organization_id]

    def membership(self, organization_id: str, user_id: str) -> Record:
        """Return a membership. Raises ClerkError 404."""
        if (organization_id, user_id) not in self.memberships:
            raise errors.not_found("organization membership")
        return self.memberships[organization_id, user_id]

    def touch(self, record: Record, event: str, **changes: Any) -> None:
        """Set fields of a record that are not indexed."""
        record |= {**changes, "updated_at": self.now()}
        self._publish(event, record)

    def now(self) -> int:
        """Return the time in Unix milliseconds."""
        return milliseconds(self.clock())

    def new_id(self, prefix: str) -> str:
        """Return a fresh id like Clerk's."""
        return f"{prefix}_2{''.join(self.random.choices(ALPHABET, k=26))}"

    def _check_role(self, role: str) -> None:
        if role not in ROLES:
            raise errors.ClerkError(422, "resource_invalid", f"role {role} does not exist", parameter="role")

    def _publish(self, event: str, record: Record) -> None:
        if not self.webhooks.endpoints:
            return
        what, _, how = event.partition(".")
        if what == "organizationMembership":
            organization = self.organization(record["organization_id"])
            self.webhooks.publish(event, membership_body(record, organization, self.user(record["user_id"])))
        elif how == "deleted":
            self.webhooks.publish(event, record)
        else:
            self.webhooks.publish(event, user_body(record) if what == "user" else organization_body(record))

"""Clerk's objects as JSON.

Bodies are complete, because Clerk's SDK refuses a user that lacks any of 35 fields. Stored records hold only the fields
that can change; the constant ones are added here as prepared text, so that a page of 500 users is quick to build.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Record = dict[str, Any]

IMAGE = "https://img.example.test/default.png"

USER_CONSTANTS: Mapping[str, Any] = {
    "object": "user",
    "primary_phone_number_id": None,
    "primary_web3_wallet_id": None,
    "locale": None,
    "profile_image_url": IMAGE,
    "image_url": IMAGE,
    "has_image": False,
    "phone_numbers": [],
    "web3_wallets": [],
    "passkeys": [],
    "password_enabled": False,
    "two_factor_enabled": False,
    "totp_enabled": False,
    "backup_code_enabled": False,
    "mfa_enabled_at": None,
    "mfa_disabled_at": None,
    "password_last_updated_at": None,
    "external_accounts": [],
    "saml_accounts": [],
    "enterprise_accounts": [],
    "deprovisioned": False,
    "lockout_expires_in_seconds": None,
    "verification_attempts_remaining": 100,
    "delete_self_enabled": True,
    "create_organization_enabled": True,
    "create_organizations_limit": None,
    "legal_accepted_at": None,
    "bypass_client_trust": False,
}

ORGANIZATION_CONSTANTS: Mapping[str, Any] = {
    "object": "organization",
    "image_url": IMAGE,
    "has_image": False,
    "max_allowed_memberships": 5,
    "admin_delete_enabled": True,
    "role_set_key": None,
}

MEMBERSHIP_CONSTANTS: Mapping[str, Any] = {"object": "organization_membership", "permissions": []}

VERIFICATION: Mapping[str, Any] = {
    "object": "verification_admin",
    "status": "verified",
    "strategy": "admin",
    "attempts": None,
    "expire_at": None,
}
"""The verification of an address that was created as verified."""

_USER_TAIL = json.dumps(USER_CONSTANTS, separators=(",", ":"))[1:]


def users_json(users: Iterable[Record]) -> bytes:
    """Return a JSON array of users."""
    encode = json.JSONEncoder(separators=(",", ":")).encode
    return f"[{','.join(f'{encode(user)[:-1]},{_USER_TAIL}' for user in users)}]".encode()


def user_body(user: Record) -> Record:
    """Return one user as Clerk sends it."""
    return {**user, **USER_CONSTANTS}


def organization_body(organization: Record, members: int | None = None) -> Record:
    """Return one organization; `members` is its size, if the request includes it."""
    count = {} if members is None else {"members_count": members}
    return {**organization, **ORGANIZATION_CONSTANTS, **count}


def membership_body(membership: Record, organization: Record, user: Record) -> Record:
    """Return one membership, with its organization and the public part of its user."""
    stored = {key: value for key, value in membership.items() if key not in {"organization_id", "user_id"}}
    primary = next((e["email_address"] for e in user["email_addresses"]), None)
    public_user_data = {
        "user_id": user["id"],
        "identifier": primary or user["username"],
        "first_name": user["first_name"],
        "last_name": user["last_name"],
        "username": user["username"],
        "profile_image_url": IMAGE,
        "image_url": IMAGE,
        "has_image": False,
        "banned": user["banned"],
    }
    return {
        **stored,
        **MEMBERSHIP_CONSTANTS,
        "role_name": membership["role"].removeprefix("org:").capitalize(),
        "organization": organization_body(organization),
        "public_user_data": public_user_data,
    }


def email_body(id_: str, address: str, now: int, *, verified: bool, reserved: bool) -> Record:
    """Return one e-mail address of a user."""
    return {
        "id": id_,
        "object": "email_address",
        "email_address": address,
        "reserved": reserved,
        "verification": VERIFICATION if verified and not reserved else None,
        "linked_to": [],
        "matches_sso_connection": False,
        "created_at": now,
        "updated_at": now,
    }


def deleted_body(object_: str, id_: str, **more: str | None) -> Record:
    """Return the body of a deleted object."""
    kept = {name: value for name, value in more.items() if value is not None}
    return {"object": object_, "id": id_, "deleted": True, **kept}

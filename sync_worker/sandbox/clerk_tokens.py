"""Signs the tokens of a local Clerk instance: session tokens of version 2, and those of JWT templates."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import RSAAlgorithm

from sync_worker.sandbox.clerk_bodies import organization_body, user_body
from sync_worker.sandbox.shortcodes import render

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sync_worker.sandbox.clerk import ClerkApi
    from sync_worker.sandbox.clerk_bodies import Record

LIFETIME_SECONDS = 60
CLOCK_SKEW_SECONDS = 5
ALGORITHM = "RS256"
ISSUER = "https://sandbox.clerk.accounts.dev"
RESERVED = frozenset({"azp", "exp", "iat", "iss", "jti", "nbf", "sub"})
"""The claims that no template may name."""

HIDDEN = frozenset({"object", "private_metadata", "email_addresses"})
"""What no shortcode shows."""


@cache
def signing_key() -> rsa.RSAPrivateKey:
    """Return the key that signs all tokens of this process; making one takes a tenth of a second."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def public_pem() -> str:
    """Return the public key as PEM, as Clerk's dashboard shows it for verification without a network call."""
    return signing_key().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def jwks(key_id: str) -> Record:
    """Return the JSON Web Key Set."""
    key = RSAAlgorithm.to_jwk(signing_key().public_key(), as_dict=True)
    shown = {name: key[name] for name in ("kty", "n", "e")}
    return {"keys": [{"use": "sig", "kid": key_id, "alg": ALGORITHM, **shown}]}


def session_token(clerk: ClerkApi, session: Record, lifetime: int | None, origin: str | None = None) -> str:
    """Return a session token with the instance's custom claims; default claims win. `origin` is the site it is for."""
    claims = render(clerk.session_claims, roots(clerk, session))
    claims |= {"v": 2, "sid": session["id"], "sts": "active", "fva": [0, -1]}
    if origin is not None:
        claims["azp"] = origin
    membership = _membership(clerk, session)
    if membership is not None:
        organization = clerk.organizations[membership["organization_id"]]
        role = membership["role"].removeprefix("org:")
        claims["o"] = {"id": organization["id"], "slg": organization["slug"], "rol": role}
    return _signed(clerk, session, claims, lifetime or LIFETIME_SECONDS, CLOCK_SKEW_SECONDS)


def template_token(clerk: ClerkApi, session: Record, template: Record, lifetime: int | None) -> str:
    """Return the token of a JWT template, which has no claims of the session."""
    claims = render(template["claims"], roots(clerk, session))
    return _signed(clerk, session, claims, lifetime or template["lifetime"], template["allowed_clock_skew"])


def roots(clerk: ClerkApi, session: Record) -> Mapping[str, Any]:
    """Return what shortcodes can name: the user, and the active organization if there is one."""
    user, membership = clerk.user(session["user_id"]), _membership(clerk, session)
    shown: dict[str, Any] = {"user": _user(user), "session": {"reverification_id": None}}
    if membership is not None:
        organization = clerk.organizations[membership["organization_id"]]
        shown["org"] = {**_visible(organization_body(organization)), "role": membership["role"]}
        shown["org_membership"] = {"public_metadata": membership["public_metadata"]}
    return shown


def _user(user: Record) -> Record:
    primary = next((e for e in user["email_addresses"] if e["id"] == user["primary_email_address_id"]), None)
    names = [name for name in (user["first_name"], user["last_name"]) if name]
    return {
        **_visible(user_body(user)),
        "full_name": " ".join(names) or None,
        "primary_email_address": primary and primary["email_address"],
        "email_verified": bool(primary and primary["verification"]),
        "created_at": user["created_at"] // 1000,
        "updated_at": user["updated_at"] // 1000,
    }


def _visible(body: Record) -> Record:
    return {name: value for name, value in body.items() if name not in HIDDEN}


def _membership(clerk: ClerkApi, session: Record) -> Record | None:
    """Return the user's membership in the active organization, if they still have it."""
    return clerk.memberships.get((session["last_active_organization_id"] or "", session["user_id"]))


def _signed(clerk: ClerkApi, session: Record, claims: Record, lifetime: int, skew: int) -> str:
    now = int(clerk.clock())
    default = {
        "iss": ISSUER,
        "sub": session["user_id"],
        "iat": now,
        "nbf": now - skew,
        "exp": now + lifetime,
        "jti": f"{clerk.random.getrandbits(80):020x}",
    }
    return jwt.encode({**claims, **default}, signing_key(), ALGORITHM, {"kid": clerk.webhooks.instance_id})

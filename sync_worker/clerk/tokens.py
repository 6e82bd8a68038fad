"""What Clerk knows of a person who signs in, the JWT templates, and a real token of a development instance.

The token is decoded at once and never kept: nothing can print or log it.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from sync_worker.clerk.claims import Person
from sync_worker.clerk.objects import add, add_membership, rows_of
from sync_worker.domain.subjects import Kind, Subject
from sync_worker.errors import ConfigurationError, NoSuchSubject, UnreadableAnswer
from sync_worker.transport import read_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import httpx

    from sync_worker.clerk.client import Clerk
    from sync_worker.domain.entitlements import Observed

SERVICE = "Clerk"
PAGE = 500
LEEWAY_SECONDS = 10.0
"""By how much our clock may differ from Clerk's when a token is verified."""
HIDDEN = frozenset({"private_metadata", "email_addresses", "phone_numbers", "web3_wallets", "external_accounts"})
"""Fields of a user that no shortcode shows."""


@dataclass(frozen=True, slots=True)
class JwtTemplate:
    """A JWT template as Clerk stores it. Lifetime and clock skew are in seconds."""

    id: str
    name: str
    claims: Mapping[str, Any]
    lifetime: int
    allowed_clock_skew: int


class Tokens:
    """Reads people and JWT templates, and signs tokens, through the client of `clerk`."""

    def __init__(self, clerk: Clerk, client: httpx.AsyncClient, base: str) -> None:
        self._clerk = clerk
        self._client = client
        self._base = base

    async def person(self, user_id: str, organization_id: str = "") -> Person:
        """Return what shortcodes can name for a user, with an active organization if one is given.

        Raises NoSuchSubject for an unknown user, or one who is not a member of the organization.
        """
        user = await self._object(f"/users/{quote(user_id, safe='')}")
        return person_of(user, await self._membership(organization_id, user_id) if organization_id else None)

    async def templates(self) -> list[JwtTemplate]:
        """Return the JWT templates of the instance."""
        # The SDK drops their claims.
        answer = read_json(SERVICE, await self._client.get(f"{self._base}/jwt_templates", params={"limit": PAGE}))
        return [_template(item) for item in rows_of(answer)]

    async def save(self, template: JwtTemplate) -> JwtTemplate:
        """Create the template, or change the one with its id. Claims are replaced whole."""
        body = {
            "name": template.name,
            "claims": dict(template.claims),
            "lifetime": template.lifetime,
            "allowed_clock_skew": template.allowed_clock_skew,
        }
        path = f"{self._base}/jwt_templates"
        if template.id:
            response = await self._client.patch(f"{path}/{quote(template.id, safe='')}", json=body)
        else:
            response = await self._client.post(path, json=body)
        return _template(read_json(SERVICE, response))

    async def require_development(self) -> None:
        """Raise ConfigurationError unless the instance is a development instance."""
        instance = await self._object("/instance")
        kind = instance.get("environment_type")
        if kind != "development":
            raise ConfigurationError(
                f"--token works on development instances only, and this is a {kind} instance. Use the key of a "
                "development instance, or leave out --token."
            )

    async def active_sessions(self, user_id: str) -> dict[str, int]:
        """Return the active sessions of a user, with the time each was created in Unix milliseconds."""
        query: dict[str, str | int] = {"user_id": user_id, "status": "active", "limit": PAGE}
        answer = read_json(SERVICE, await self._client.get(f"{self._base}/sessions", params=query))
        items = rows_of(answer)
        try:
            return {str(item["id"]): int(item["created_at"]) for item in items}
        except (KeyError, TypeError, ValueError):
            raise UnreadableAnswer("Clerk listed a session without id or time") from None

    async def create_session(self, user_id: str, organization_id: str = "") -> str:
        """Create a session and return its id. Clerk allows it on development instances only."""
        from clerk_backend_api.models import CreateSessionRequestBody  # noqa: PLC0415 - 0.3 s to import

        body = CreateSessionRequestBody(user_id=user_id, active_organization_id=organization_id or None)
        with _readable("session"):
            return (await self._clerk.sdk.sessions.create_async(request=body)).id

    async def revoke_session(self, session_id: str) -> None:
        """End a session. One that does not exist any longer is fine."""
        with _readable("session"):
            try:
                await self._clerk.sdk.sessions.revoke_async(session_id=session_id)
            except NoSuchSubject:
                return

    async def signed_claims(self, session_id: str, template: str = "") -> Mapping[str, Any] | None:
        """Let Clerk sign a token, and return its claims; None if the instance's keys do not verify it."""
        import jwt  # noqa: PLC0415 - only this command needs it

        sessions = self._clerk.sdk.sessions
        with _readable("token"):
            signed = await (
                sessions.create_token_from_template_async(session_id=session_id, template_name=template)
                if template
                else sessions.create_token_async(session_id=session_id)
            )
            keys = await self._clerk.sdk.jwks.get_jwks_async()
        if not signed.jwt:
            raise UnreadableAnswer("Clerk's response contains no token")
        try:
            key_set = jwt.PyJWKSet.from_dict(keys.model_dump(exclude_none=True))
            key = key_set[jwt.get_unverified_header(signed.jwt).get("kid", "")]
            options: Any = {"verify_aud": False}
            claims: dict[str, Any] = jwt.decode(
                signed.jwt, key, algorithms=["RS256"], options=options, leeway=LEEWAY_SECONDS
            )
        except (jwt.PyJWTError, KeyError):
            return None
        return claims

    async def _membership(self, organization_id: str, user_id: str) -> dict[str, Any]:
        path = f"/organizations/{quote(organization_id, safe='')}/memberships"
        answer = read_json(SERVICE, await self._client.get(self._base + path, params={"user_id": user_id}))
        for item in rows_of(answer):
            return item if isinstance(item, dict) else {}
        raise NoSuchSubject(f"{user_id} is not a member of {organization_id}")

    async def _object(self, path: str) -> dict[str, Any]:
        answer = read_json(SERVICE, await self._client.get(self._base + path))
        if not isinstance(answer, dict):
            raise UnreadableAnswer("Clerk's response is not an object")
        return answer


@contextmanager
def _readable(what: str) -> Iterator[None]:
    """Turn the SDK's errors into ours: their text quotes the response, which may contain a token."""
    from clerk_backend_api.models import ClerkBaseError, NoResponseError  # noqa: PLC0415 - 0.3 s to import

    try:
        yield
    except (ClerkBaseError, NoResponseError):
        raise UnreadableAnswer(f"Clerk's response is not the expected {what}") from None


def person_of(user: Mapping[str, Any], membership: Mapping[str, Any] | None = None) -> Person:
    """Return what shortcodes can name for a user of Clerk's, whose active organization is that of the membership."""
    roots: dict[str, Any] = {"user": _user(user), "session": {"reverification_id": None}}
    found: dict[Subject, Observed] = {}
    add(found, Kind.USER, user)
    if membership is not None:
        organization = membership.get("organization") or {}
        add(found, Kind.ORGANIZATION, organization)
        add_membership(found, membership)
        roots["org"] = {**_visible(organization), "role": membership.get("role")}
        roots["org_membership"] = {"public_metadata": membership.get("public_metadata") or {}}
    return Person(roots, dict(zip(("user", "org", "org_membership"), found.values(), strict=False)))


def _user(user: Mapping[str, Any]) -> dict[str, Any]:
    """Return a user as shortcodes see it."""
    addresses = user.get("email_addresses") or []
    primary: Mapping[str, Any] = next(
        (one for one in addresses if one.get("id") == user.get("primary_email_address_id")), {}
    )
    names = [name for name in (user.get("first_name"), user.get("last_name")) if name]
    times = {name: user[name] // 1000 for name in ("created_at", "updated_at") if isinstance(user.get(name), int)}
    return {
        **_visible(user),
        **times,
        "full_name": " ".join(names) or None,
        "primary_email_address": primary.get("email_address"),
        "email_verified": (primary.get("verification") or {}).get("status") == "verified",
    }


def _visible(item: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in item.items() if name not in HIDDEN}


def _template(item: Any) -> JwtTemplate:
    try:
        claims = dict(item["claims"])
        return JwtTemplate(item["id"], item["name"], claims, int(item["lifetime"]), int(item["allowed_clock_skew"]))
    except (KeyError, TypeError, ValueError):
        raise UnreadableAnswer("Clerk's response is not a JWT template") from None

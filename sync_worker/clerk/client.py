"""Clerk's Backend API: what it holds of a subject, and the one PATCH that changes it.

Why it exists: it is the only room that knows Clerk's API and SDK. Lists are read tolerantly by ourselves, because the
SDK loses a page to one odd user and drops `starting_after`. Users are written so too, because they are many; what is
written to organizations and memberships goes through the SDK on our transport. Only `PATCH …/metadata` is ever sent:
it merges, so foreign keys stay as they are. What to write is `changes`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

import httpx

from sync_worker.clerk.objects import add, add_membership, add_user, as_list, membership_of, total_of
from sync_worker.domain.subjects import Kind, Subject
from sync_worker.errors import (
    AccessTooLarge,
    CredentialsRefused,
    InvalidSubject,
    NoSuchSubject,
    RateLimited,
    RequestRefused,
    ServiceUnavailable,
    UnreadableAnswer,
)
from sync_worker.transport import read_json

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from clerk_backend_api import Clerk as Sdk

    from sync_worker.domain.entitlements import Change, Observed
    from sync_worker.domain.timings import Timings
    from sync_worker.transport import ServiceTransport

SERVICE = "Clerk"
API_VERSION = "2026-05-12"
PAGE = 500
"""Rows in one page of a list; more are refused."""
IDS_A_CALL = 100
"""Values that one list filter takes; without `limit` Clerk answers 10 rows, whatever was asked for."""


AddressOwners = Mapping[Subject, Collection[str]]
"""The ids of the users who have an address; an address that nobody has is not in it."""


class Target(Protocol):
    """Where access is held."""

    async def observe(self, subjects: Collection[Subject]) -> Mapping[Subject, Observed]:
        """Read what is held for `subjects`; those that do not exist are not in the answer."""

    async def find(self, addresses: Collection[Subject]) -> AddressOwners:
        """Look up who has these addresses, now."""

    async def memberships(self, user_id: str) -> tuple[Subject, ...]:
        """List the memberships of a user."""

    async def apply(self, change: Change) -> None:
        """Write one change."""

    def sweep(self) -> AsyncIterator[Sequence[Observed]]:
        """Read everybody, a page at a time."""


class Clerk:
    """The Target over HTTP."""

    def __init__(self, client: httpx.AsyncClient, base: str) -> None:
        self._client = client
        self._base = base
        self._sdk: Sdk | None = None

    async def observe(self, subjects: Collection[Subject]) -> Mapping[Subject, Observed]:
        """See Target. One list call for up to 100 users, one for up to 100 organizations."""
        users = sorted(s.id for s in subjects if s.kind is Kind.USER)
        organizations = sorted(s.id for s in subjects if s.kind is Kind.ORGANIZATION)
        found: dict[Subject, Observed] = {}
        for ids in _parts(users):
            for item in as_list(await self._get("/users", user_id=ids, limit=IDS_A_CALL)):
                add_user(found, item)
        for ids in _parts(organizations):
            for item in await self._organizations(organization_id=ids, limit=IDS_A_CALL):
                add(found, Kind.ORGANIZATION, item)
        for organization, members in _by_organization(subjects).items():
            await self._observe_members(organization, members, found)
        return found

    async def _observe_members(self, organization: str, users: Sequence[str], found: dict[Subject, Observed]) -> None:
        """Read memberships of one organization. Their metadata is their own, not the user's."""
        path = f"/organizations/{quote(organization, safe='')}/memberships"
        for ids in _parts(users):
            try:
                answer = await self._get(path, user_id=ids, limit=IDS_A_CALL)
            except NoSuchSubject:
                return  # an organization that is gone has no members
            for item in as_list(answer.get("data") if isinstance(answer, dict) else answer):
                add_membership(found, item)

    async def find(self, addresses: Collection[Subject]) -> AddressOwners:
        """See Target. A hundred addresses a call.

        Whether Clerk's filters fold case, and match addresses that are not verified, is not documented; so what they
        return only counts for what the user itself shows.
        """
        wanted = {subject.address for subject in addresses}
        holders: dict[Subject, set[str]] = {}
        for name, kind in (("email_address", Kind.EMAIL), ("external_id", Kind.EXTERNAL)):
            for values in _parts(sorted(_included(a) for a in wanted if a.kind is kind)):
                async for page in self._user_pages({name: values}):
                    for observed in page:
                        for address in wanted.intersection(observed.addresses):
                            holders.setdefault(address, set()).add(observed.subject.id)
        return holders

    async def apply(self, change: Change) -> None:
        """See Target. Raises NoSuchSubject, RequestRefused, RetryableError, CredentialsRefused or LeaseLost.

        An answer that the SDK cannot read, but that Clerk gave with a 2xx, means that the write is done.
        """
        from clerk_backend_api.models import ResponseValidationError, SDKError  # noqa: PLC0415 - 0.3 s to import

        try:
            await self._patch(change)
        except (ResponseValidationError, SDKError) as error:
            _require_object(error.raw_response)
        except RecursionError:
            raise UnreadableAnswer("Clerk answered a PATCH with something nested too deeply") from None

    async def sweep(self) -> AsyncIterator[Sequence[Observed]]:
        """See Target. Users come by cursor, so that none is skipped while others are created or deleted.

        Raises UnreadableAnswer when fewer users came than Clerk counts: a sweep that was cut short proves nothing.
        """
        expected = await self._count_users()
        seen = 0
        async for users in self._user_pages({}):
            yield users
            seen += len(users)
        if seen < min(expected, await self._count_users() if seen < expected else expected):
            raise UnreadableAnswer(f"Clerk listed {seen} users, but counts {expected}")
        async for organizations in self._sweep_organizations():
            yield organizations

    async def _user_pages(self, filters: Mapping[str, Sequence[str]]) -> AsyncIterator[Sequence[Observed]]:
        last = ""
        while True:
            cursor = {"starting_after": last} if last else {}
            page = as_list(await self._get("/users", limit=PAGE, order_by="+created_at", **filters, **cursor))
            found: dict[Subject, Observed] = {}
            for item in page:
                add_user(found, item)
            yield list(found.values())
            if len(page) < PAGE:
                return
            if page[-1]["id"] == last:
                raise UnreadableAnswer("Clerk answered the same page of users twice")
            last = page[-1]["id"]

    async def _sweep_organizations(self) -> AsyncIterator[Sequence[Observed]]:
        """Organizations have no cursor, only offsets."""
        offset = 0
        while True:
            page = await self._organizations(limit=PAGE, offset=offset, order_by="+created_at")
            found: dict[Subject, Observed] = {}
            for item in page:
                add(found, Kind.ORGANIZATION, item)
            if found:
                yield list(found.values())
            offset += len(page)
            if len(page) < PAGE:
                break
        if offset:
            async for memberships in self._sweep_memberships():
                yield memberships

    async def _sweep_memberships(self) -> AsyncIterator[Sequence[Observed]]:
        """Every membership of the instance. Raises UnreadableAnswer when fewer came than Clerk counts."""
        seen, offset = 0, 0
        while True:
            answer = await self._get("/organization_memberships", limit=PAGE, offset=offset, order_by="+created_at")
            page = as_list(answer.get("data") if isinstance(answer, dict) else answer)
            found: dict[Subject, Observed] = {}
            for item in page:
                add_membership(found, item)
            yield list(found.values())
            seen, offset = seen + len(page), offset + len(page)
            if len(page) < PAGE:
                break
        if isinstance(answer, dict) and seen < total_of(answer):
            raise UnreadableAnswer(f"Clerk listed {seen} memberships, but counts {total_of(answer)}")

    async def _organizations(self, **parameters: Sequence[str] | str | int) -> list[Any]:
        """List organizations. An instance that has them switched off has none."""
        try:
            answer = await self._get("/organizations", **parameters)
        except RequestRefused as error:
            if "organization_not_enabled_in_instance" in error.detail:
                return []
            raise
        return as_list(answer.get("data") if isinstance(answer, dict) else answer)

    async def _count_users(self) -> int:
        return total_of(await self._get("/users/count"))

    async def memberships(self, user_id: str) -> tuple[Subject, ...]:
        """See Target. Nobody is a member where organizations are switched off; nor is who is gone."""
        try:
            answer = await self._get(f"/users/{quote(user_id, safe='')}/organization_memberships", limit=PAGE)
        except NoSuchSubject:
            return ()
        except RequestRefused as error:
            if "organization_not_enabled_in_instance" in error.detail:
                return ()
            raise
        items = as_list(answer.get("data") if isinstance(answer, dict) else answer)
        return tuple(membership_of(item, user_id) for item in items)

    async def instance(self) -> str:
        """Return the id of the instance that the key belongs to."""
        answer = await self._get("/instance")
        if not isinstance(answer, dict) or not isinstance(answer.get("id"), str):
            raise UnreadableAnswer("Clerk did not name its instance")
        return str(answer["id"])

    async def _patch(self, change: Change) -> None:
        public, private = dict(change.public) or None, dict(change.private) or None
        subject = change.subject
        match subject.kind:
            case Kind.USER:
                # The SDK takes 4 ms of CPU for each, because it builds its models anew (`python -m bench writes`).
                body = {"public_metadata": public, "private_metadata": private}
                given = {name: value for name, value in body.items() if value is not None}
                _require_object(await self._client.patch(f"{self._base}/users/{_safe(subject)}/metadata", json=given))
            case Kind.ORGANIZATION:
                await self.sdk.organizations.merge_metadata_async(
                    organization_id=_safe(subject), public_metadata=public, private_metadata=private
                )
            case Kind.MEMBERSHIP:
                Subject.parse(str(subject))  # the SDK does not escape what it puts into a path
                await self.sdk.organization_memberships.update_metadata_async(
                    organization_id=subject.organization_id,
                    user_id=subject.user_id,
                    public_metadata=public,
                    private_metadata=private,
                )
            case _:
                raise InvalidSubject(f"{subject} cannot be written to")

    async def warm_up(self) -> None:
        """Import the SDK beside other work, so that the first write to an organization does not wait for it."""

        def touch() -> None:
            from clerk_backend_api import models  # noqa: PLC0415 - 0.3 s to import

            _ = (self.sdk.organizations, models.Organization, models.OrganizationMembership, models.ClerkErrors)

        await asyncio.to_thread(touch)

    @property
    def sdk(self) -> Sdk:
        """The SDK on our client; its own retries are off, because ours know the budget and the lease."""
        if self._sdk is None:
            from clerk_backend_api import Clerk as ClerkSdk  # noqa: PLC0415 - 0.3 s to import

            self._sdk = ClerkSdk(server_url=self._base, async_client=self._client, retry_config=None)
        return self._sdk

    async def _get(self, path: str, **parameters: Sequence[str] | str | int) -> Any:
        return read_json(SERVICE, await self._client.get(self._base + path, params=parameters))


def error_from_response(response: httpx.Response, retry_after: float | None) -> Exception | None:
    """Return the error that an answer of Clerk stands for (codes: Clerk's error catalogue); None when it is good."""
    status = response.status_code
    if response.is_success:
        return None
    code, message = _first_error(response)
    detail = f"Clerk answered {status} {code}: {message}".rstrip(": ")
    if status == 429:  # noqa: PLR2004 - a status code is its own name
        return RateLimited(detail, retry_after=retry_after)
    if status >= 500 or status == 408 or code == "resource_locked":  # noqa: PLR2004
        return ServiceUnavailable(detail, retry_after=retry_after)
    if status == 401:  # noqa: PLR2004
        return CredentialsRefused(f"{detail} (CLERK_SECRET_KEY)")
    if status == 404:  # noqa: PLR2004
        return NoSuchSubject(detail)
    return AccessTooLarge(detail) if code in _TOO_LARGE else RequestRefused(detail, status=status)


_TOO_LARGE = frozenset({"form_param_exceeds_allowed_size", "request_body_too_large"})


def timeout(timings: Timings) -> httpx.Timeout:
    """Return how long requests to Clerk may take."""
    return httpx.Timeout(timings.clerk_timeout, connect=timings.clerk_connect_timeout)


def open_clerk(transport: ServiceTransport, *, url: str) -> tuple[Clerk, httpx.AsyncClient]:
    """Return the Target and the client to close."""
    client = httpx.AsyncClient(transport=transport, timeout=timeout(transport.timings))
    return Clerk(client, f"{url}/v1"), client


def _safe(subject: Subject) -> str:
    """Return the id for a path. It was validated when the subject was read; the SDK does not escape it."""
    return quote(Subject.parse(str(subject)).id, safe="")


def _parts(ids: Sequence[str]) -> Iterable[Sequence[str]]:
    return (ids[start : start + IDS_A_CALL] for start in range(0, len(ids), IDS_A_CALL))


def _require_object(response: httpx.Response) -> None:
    """Look at the answer to a PATCH. Raises UnreadableAnswer unless it is the object that was changed."""
    body = read_json(SERVICE, response)
    if not isinstance(body, dict) or "id" not in body or "errors" in body:
        raise UnreadableAnswer(f"Clerk answered a PATCH with {response.status_code}, but not with what it changed")


def _included(address: Subject) -> str:
    """Return the value of a filter. Clerk reads a leading sign of an external id as "include" or "exclude"."""
    return f"+{address.id}" if address.kind is Kind.EXTERNAL and address.id[0] in "+-" else address.id


def _by_organization(subjects: Collection[Subject]) -> Mapping[str, list[str]]:
    members: dict[str, list[str]] = {}
    for subject in sorted(s for s in subjects if s.kind is Kind.MEMBERSHIP):
        members.setdefault(subject.organization_id, []).append(subject.user_id)
    return members


def _first_error(response: httpx.Response) -> tuple[str, str]:
    try:
        first = read_json(SERVICE, response)["errors"][0]
        return str(first["code"]), str(first.get("long_message") or first.get("message") or "")[:300]
    except (UnreadableAnswer, KeyError, IndexError, TypeError, AttributeError):
        return "", response.reason_phrase

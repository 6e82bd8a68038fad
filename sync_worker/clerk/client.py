"""The client of Clerk's Backend API, which reads metadata and changes it by `PATCH …/metadata` alone.

That call merges, so unmanaged keys stay as they are. Lists bypass the SDK, which loses a whole page to one malformed
user and drops `starting_after`. Writes to users bypass it because it is slow; organizations and memberships use it.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

import httpx

from sync_worker.clerk.objects import (
    add,
    add_membership,
    add_user,
    as_list,
    membership_of,
    organization_rows,
    rows_of,
    total_of,
    uncounted,
)
from sync_worker.clerk.target import AddressOwners
from sync_worker.clerk.user_list import PAGE, UserList
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
from sync_worker.transport import read_json, ssl_context

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterable, Mapping, Sequence

    from clerk_backend_api import Clerk as Sdk

    from sync_worker.domain.entitlements import Change, Observed
    from sync_worker.domain.timings import Timings
    from sync_worker.transport import ServiceTransport

Item = TypeVar("Item")

SERVICE = "Clerk"
API_VERSION = "2026-05-12"
IDS_PER_CALL = 100
"""Values per list filter, Clerk's maximum. Also sent as `limit`, because Clerk returns only 10 rows without it."""


class Clerk:
    """The Target, through Clerk's Backend API."""

    def __init__(self, client: httpx.AsyncClient, base: str) -> None:
        self._client = client
        self._base = base
        self._users = UserList(self._get)
        self._sdk: Sdk | None = None

    async def observe(self, subjects: Collection[Subject]) -> Mapping[Subject, Observed]:
        """See Target. One list call for up to 100 users, one for up to 100 organizations."""
        users = sorted(s.id for s in subjects if s.kind is Kind.USER)
        organizations = sorted(s.id for s in subjects if s.kind is Kind.ORGANIZATION)
        found: dict[Subject, Observed] = {}
        for ids in _batches(users):
            for item in as_list(await self._get("/users", user_id=ids, limit=IDS_PER_CALL)):
                add_user(found, item)
        for ids in _batches(organizations):
            for item in await self._organizations(organization_id=ids, limit=IDS_PER_CALL):
                add(found, Kind.ORGANIZATION, item)
        for organization, members in _by_organization(subjects).items():
            await self._observe_members(organization, members, found)
        return found

    async def _observe_members(self, organization: str, users: Sequence[str], found: dict[Subject, Observed]) -> None:
        """Add memberships of one organization to `found`. They have their own metadata, apart from the user's."""
        path = f"/organizations/{quote(organization, safe='')}/memberships"
        for ids in _batches(users):
            try:
                answer = await self._get(path, user_id=ids, limit=IDS_PER_CALL)
            except NoSuchSubject:
                return  # the organization was deleted
            for item in rows_of(answer):
                add_membership(found, item)

    async def find(self, addresses: Collection[Subject]) -> AddressOwners:
        """See Target. A hundred addresses per call.

        Clerk does not document whether its filters ignore case or match unverified addresses. So a match only counts
        if the returned user shows the address. One that cannot be read may have those that it shows in any
        shape, else any that was requested.
        """
        requested = {subject.address for subject in addresses}
        owners: dict[Subject, set[str]] = {}
        unreadable: dict[Subject, str] = {}
        for name, kind in (("email_address", Kind.EMAIL), ("external_id", Kind.EXTERNAL)):
            for addresses_ in _batches(sorted((a for a in requested if a.kind is kind), key=_filter_value)):
                async for page in self._users.matching({name: [_filter_value(a) for a in addresses_]}):
                    for observed in page:
                        for address in requested.intersection(observed.addresses):
                            owners.setdefault(address, set()).add(observed.subject.id)
                        if observed.possible_addresses is not None:
                            possible = set(addresses_).intersection(observed.possible_addresses) or addresses_
                            unreadable |= dict.fromkeys(possible, observed.unreadable)
        return AddressOwners(owners, unreadable)

    async def uncounted(self, address: Subject) -> Mapping[Subject, str]:
        """See Target. One call; more than a page of users with one address is not expected."""
        if address.kind is not Kind.EMAIL:
            return {}
        users = as_list(await self._get("/users", email_address=[_filter_value(address.address)], limit=IDS_PER_CALL))
        return uncounted(users, address.address)

    async def apply(self, change: Change) -> None:
        """See Target. Raises NoSuchSubject, RequestRefused, RetryableError, CredentialsRefused or LeaseLost.

        A 2xx response means that the write succeeded, even if the SDK cannot parse it.
        """
        from clerk_backend_api.models import ResponseValidationError, SDKError  # noqa: PLC0415 - 0.3 s to import

        try:
            await self._patch(change)
        except (ResponseValidationError, SDKError) as error:
            _require_object(error.raw_response)
        except RecursionError:
            raise UnreadableAnswer("Clerk's response to a PATCH is nested too deeply") from None

    async def sweep(self) -> AsyncGenerator[Sequence[Observed], None]:
        """See Target. Raises UnreadableAnswer when Clerk lists fewer users or memberships than it counts."""
        async with aclosing(self._users.everybody()) as pages:
            async for users in pages:
                yield users
        async for organizations in self._sweep_organizations():
            yield organizations

    async def _sweep_organizations(self) -> AsyncIterator[Sequence[Observed]]:
        """Read all organizations. They have no cursor, only offsets."""
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
        """Read all memberships. Raises UnreadableAnswer when Clerk lists fewer than it counts."""
        seen, offset = 0, 0
        while True:
            answer = await self._get("/organization_memberships", limit=PAGE, offset=offset, order_by="+created_at")
            page = rows_of(answer)
            found: dict[Subject, Observed] = {}
            for item in page:
                add_membership(found, item)
            yield list(found.values())
            seen, offset = seen + len(page), offset + len(page)
            if len(page) < PAGE:
                break
        if isinstance(answer, dict) and seen < total_of(answer):
            raise UnreadableAnswer(f"Clerk listed {seen} memberships but counts {total_of(answer)}")

    async def _organizations(self, **parameters: Sequence[str] | str | int) -> list[Any]:
        """List organizations; none if the instance has them disabled."""
        return await organization_rows(self._get("/organizations", **parameters))

    async def memberships(self, user_id: str) -> tuple[Subject, ...]:
        """See Target. Returns none for an unknown user, or if the instance has organizations disabled."""
        path = f"/users/{quote(user_id, safe='')}/organization_memberships"
        try:
            items = await organization_rows(self._get(path, limit=PAGE))
        except NoSuchSubject:
            return ()
        return tuple(membership_of(item, user_id) for item in items)

    async def instance(self) -> str:
        """Return the id of the Clerk instance that the key belongs to."""
        answer = await self._get("/instance")
        if not isinstance(answer, dict) or not isinstance(answer.get("id"), str):
            raise UnreadableAnswer("Clerk's response does not contain the instance id")
        return str(answer["id"])

    async def _patch(self, change: Change) -> None:
        public, private = dict(change.public) or None, dict(change.private) or None
        subject = change.subject
        match subject.kind:
            case Kind.USER:
                # The SDK takes 4 ms of CPU per write, because it rebuilds its models (`python -m bench writes`).
                body = {"public_metadata": public, "private_metadata": private}
                payload = {name: value for name, value in body.items() if value is not None}
                _require_object(await self._client.patch(f"{self._base}/users/{_safe(subject)}/metadata", json=payload))
            case Kind.ORGANIZATION:
                await self.sdk.organizations.merge_metadata_async(
                    organization_id=_safe(subject), public_metadata=public, private_metadata=private
                )
            case Kind.MEMBERSHIP:
                Subject.parse(str(subject))  # validated, because the SDK does not escape paths
                await self.sdk.organization_memberships.update_metadata_async(
                    organization_id=subject.organization_id,
                    user_id=subject.user_id,
                    public_metadata=public,
                    private_metadata=private,
                )
            case _:
                raise InvalidSubject(f"{subject} is an address; it has to be resolved first")

    async def warm_up(self) -> None:
        """Import the SDK in a thread, so that the first write to an organization does not wait for it."""

        def import_sdk() -> None:
            from clerk_backend_api import models  # noqa: PLC0415 - 0.3 s to import

            _ = (self.sdk.organizations, models.Organization, models.OrganizationMembership, models.ClerkErrors)

        await asyncio.to_thread(import_sdk)

    @property
    def sdk(self) -> Sdk:
        """The SDK on our HTTP client. Its own retries are disabled, because ours respect the budget and the lease."""
        if self._sdk is None:
            from clerk_backend_api import Clerk as ClerkSdk  # noqa: PLC0415 - 0.3 s to import

            unused = httpx.Client(verify=ssl_context())  # one of its own would load all authorities again, 50 ms
            self._sdk = ClerkSdk(server_url=self._base, client=unused, async_client=self._client, retry_config=None)
        return self._sdk

    async def _get(self, path: str, **parameters: Sequence[str] | str | int) -> Any:
        return read_json(SERVICE, await self._client.get(self._base + path, params=parameters))


def error_from_response(response: httpx.Response, retry_after: float | None) -> Exception | None:
    """Return the error for a response from Clerk, or None for a 2xx."""
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
    """Return the timeouts of requests to Clerk."""
    return httpx.Timeout(timings.clerk_timeout, connect=timings.clerk_connect_timeout)


def open_clerk(transport: ServiceTransport, *, url: str) -> tuple[Clerk, httpx.AsyncClient]:
    """Return the Target, and the HTTP client that the caller must close."""
    client = httpx.AsyncClient(transport=transport, timeout=timeout(transport.timings))
    return Clerk(client, f"{url}/v1"), client


def _safe(subject: Subject) -> str:
    """Return the id for a URL path, validated and escaped."""
    return quote(Subject.parse(str(subject)).id, safe="")


def _batches(ids: Sequence[Item]) -> Iterable[Sequence[Item]]:
    return (ids[start : start + IDS_PER_CALL] for start in range(0, len(ids), IDS_PER_CALL))


def _require_object(response: httpx.Response) -> None:
    """Raise UnreadableAnswer unless the response to a PATCH is the changed object."""
    body = read_json(SERVICE, response)
    if not isinstance(body, dict) or "id" not in body or "errors" in body:
        raise UnreadableAnswer(f"Clerk answered a PATCH with {response.status_code} but without the changed object")


def _filter_value(address: Subject) -> str:
    """Return the filter value for an address. Clerk takes a leading + or - of an external id as include or exclude."""
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

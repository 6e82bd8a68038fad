"""The routes of users. The rules are in `clerk`, the filters in `clerk_filters`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import JSONResponse, Response

from sync_worker.sandbox import clerk_errors as errors
from sync_worker.sandbox.clerk_bodies import user_body, users_json
from sync_worker.sandbox.clerk_filters import (
    USER_ORDERS,
    Page,
    by_field,
    matching,
    moment,
    narrow,
    ordering,
    refuse_unbuilt,
    values,
)
from sync_worker.sandbox.clerk_http import METADATA_MOVED_IN, body_of, version_of
from sync_worker.sandbox.clerk_lists import Created
from sync_worker.sandbox.metadata import USER_METADATA, merged_fields, replaced_fields

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.datastructures import QueryParams
    from starlette.requests import Request

    from sync_worker.sandbox.clerk import ClerkApi
    from sync_worker.sandbox.clerk_bodies import Record

FIELDS = frozenset({"external_id", "first_name", "last_name", "username", "locale", "primary_email_address_id"})
CREATE_FIELDS = frozenset({"email_address", "email_address_identification_status", "skip_password_requirement"})
FILTERS = (
    "user_id",
    "external_id",
    "email_address",
    "organization_id",
    "banned",
    "query",
    "created_at_before",
    "created_at_after",
)


class UserRoutes:
    """The handlers of users."""

    def __init__(self, clerk: ClerkApi) -> None:
        self.clerk = clerk

    def _filtered(self, request: Request) -> set[str] | None:
        """Return the ids that match the filters, but for the time of creation; None stands for all."""
        query, directory = request.query_params, self.clerk.directory
        refuse_unbuilt(query, FILTERS)
        everybody = directory.by_id
        ids: set[str] | None = None
        ids = narrow(ids, everybody, query, "user_id", everybody.keys().__and__)
        ids = narrow(ids, everybody, query, "external_id", directory.with_external_id)
        ids = narrow(ids, everybody, query, "organization_id", self.clerk.members_of)
        if "email_address" in query:
            found = directory.with_email(values(query, "email_address"))
            ids = found if ids is None else ids & found
        if query.get("query"):
            found = matching(query, everybody.values(), _searched)
            ids = found if ids is None else ids & found
        if "banned" in query:
            banned = query["banned"] == "true"
            ids = {id_ for id_ in (everybody if ids is None else ids) if everybody[id_]["banned"] is banned}
        return ids

    async def all(self, request: Request) -> Response:
        """Return a page of users, as a bare array."""
        query = request.query_params
        page = Page.of(query)
        field, downwards = ordering(query, USER_ORDERS)
        after = query.get("starting_after")
        if after is not None and (field != "created_at" or page.offset):
            raise errors.invalid_value("starting_after", "needs created_at ordering and no offset")
        ids, created = self._filtered(request), _created(query)
        users = self.clerk.users
        if field != "created_at":
            some = [users[id_] for id_ in self.clerk.directory.created(ids, created)]
            rows = page.cut(by_field(some, field, downwards=downwards))
            return Response(users_json(rows), media_type="application/json")
        try:
            found = self.clerk.directory.by_creation(
                ids, created, newest_first=downwards, after=after, offset=page.offset, limit=page.limit
            )
        except KeyError:
            raise errors.invalid_value("starting_after", "does not name a user") from None
        return Response(users_json(users[id_] for id_ in found), media_type="application/json")

    async def count(self, request: Request) -> Response:
        """Return how many users match the filters."""
        found = self.clerk.directory.created(self._filtered(request), _created(request.query_params))
        return JSONResponse({"object": "total_count", "total_count": len(found)})

    async def create(self, request: Request) -> Response:
        """Create a user."""
        body = await body_of(request, FIELDS | CREATE_FIELDS | set(USER_METADATA))
        body.pop("skip_password_requirement", None)  # passwords are not implemented
        addresses = body.pop("email_address", [])
        statuses = body.pop("email_address_identification_status", None) or ["verified"]
        if len(addresses) > 1:
            raise errors.ClerkError(501, "not_in_the_sandbox", "The sandbox creates users with one address at most.")
        if self.clerk.directory.with_email(addresses):
            raise errors.taken("email_address")
        if self.clerk.directory.with_external_id([body.get("external_id") or ""]):
            raise errors.taken("external_id")
        user_id = self.clerk.add_user(
            email=addresses[0] if addresses else None, reserved=statuses[0] == "reserved", **body
        )
        return JSONResponse(user_body(self.clerk.user(user_id)))

    async def get(self, request: Request) -> Response:
        """Return one user."""
        return JSONResponse(user_body(self.clerk.user(request.path_params["user"])))

    async def update(self, request: Request) -> Response:
        """Change a user's profile; metadata has its own route since 2026-05-12."""
        old = () if version_of(request) >= METADATA_MOVED_IN else USER_METADATA
        user = self.clerk.user(request.path_params["user"])
        body = await body_of(request, FIELDS | set(old))
        taken = self.clerk.directory.with_external_id([body.get("external_id") or ""]) - {user["id"]}
        if taken:
            raise errors.taken("external_id")
        return JSONResponse(user_body(self.clerk.update_user(user["id"], **body)))

    async def delete(self, request: Request) -> Response:
        """Delete a user."""
        return JSONResponse(self.clerk.delete_user(request.path_params["user"]))

    async def metadata(self, request: Request) -> Response:
        """Merge (PATCH) or replace (PUT) metadata."""
        user = self.clerk.user(request.path_params["user"])
        body = await body_of(request, USER_METADATA)
        fields = replaced_fields(body) if request.method == "PUT" else merged_fields(user, body)
        self.clerk.touch(user, "user.updated", **fields)
        return JSONResponse(user_body(user))


def _created(query: QueryParams) -> Created:
    return Created(moment(query, "created_at_after"), moment(query, "created_at_before"))


def _searched(user: Record) -> Iterator[str | None]:
    """Yield the fields of a user that a search looks into."""
    yield from (user["id"], user["username"], user["first_name"], user["last_name"])
    yield f"{user['first_name'] or ''} {user['last_name'] or ''}"
    yield from (address["email_address"] for address in user["email_addresses"])

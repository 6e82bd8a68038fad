"""The routes of organizations and memberships. The rules are in `clerk`, the filters in `clerk_filters`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import JSONResponse, Response

from sync_worker.sandbox import clerk_errors as errors
from sync_worker.sandbox.clerk_bodies import membership_body, organization_body
from sync_worker.sandbox.clerk_filters import Page, by_field, matching, narrow, ordering, refuse_unbuilt, values
from sync_worker.sandbox.clerk_http import body_of
from sync_worker.sandbox.metadata import METADATA, merged_fields, replaced_fields

if TYPE_CHECKING:
    from starlette.requests import Request

    from sync_worker.sandbox.clerk import ClerkApi
    from sync_worker.sandbox.clerk_bodies import Record

FIELDS = frozenset({"name", "slug"})


class OrganizationRoutes:
    """The handlers of organizations."""

    def __init__(self, clerk: ClerkApi) -> None:
        self.clerk = clerk

    def _answer(self, request: Request, organization: Record) -> Record:
        counted = request.query_params.get("include_members_count") == "true"
        members = len(self.clerk.members_of({organization["id"]})) if counted else None
        return organization_body(organization, members)

    async def all(self, request: Request) -> Response:
        """Return a page of organizations with the total."""
        query, organizations = request.query_params, self.clerk.organizations
        refuse_unbuilt(query, ("organization_id", "user_id", "query"))
        page = Page.of(query)
        field, downwards = ordering(query, frozenset({"name", "created_at"}))
        ids = narrow(None, organizations, query, "organization_id", organizations.keys().__and__)
        ids = narrow(ids, organizations, query, "user_id", self.clerk.organizations_of)
        if query.get("query"):
            matched = matching(query, organizations.values(), lambda one: (one["name"], one["slug"]))
            matched |= organizations.keys() & {query["query"]}
            ids = matched if ids is None else ids & matched
        found = [organizations[id_] for id_ in (organizations if ids is None else ids)]
        rows = page.cut(by_field(found, field, downwards=downwards))
        return JSONResponse({"data": [self._answer(request, row) for row in rows], "total_count": len(found)})

    async def create(self, request: Request) -> Response:
        """Create an organization; `created_by` becomes its administrator."""
        body = await body_of(request, {"created_by", *FIELDS, *METADATA})
        if not body.get("name"):
            raise errors.missing("name")
        if body.get("created_by"):
            self.clerk.user(body["created_by"])
        organization_id = self.clerk.add_organization(**body)
        if body.get("created_by"):
            self.clerk.add_membership(organization_id, body["created_by"], role="org:admin")
        return JSONResponse(self._answer(request, self.clerk.organization(organization_id)))

    async def get(self, request: Request) -> Response:
        """Return one organization by id or slug."""
        wanted = request.path_params["organization"]
        organizations = self.clerk.organizations.values()
        by_slug = next((one["id"] for one in organizations if one["slug"] == wanted), wanted)
        return JSONResponse(self._answer(request, self.clerk.organization(by_slug)))

    async def update(self, request: Request) -> Response:
        """Change the name or the slug."""
        organization = self.clerk.organization(request.path_params["organization"])
        body = await body_of(request, FIELDS)
        self.clerk.touch(organization, "organization.updated", **body)
        return JSONResponse(self._answer(request, organization))

    async def delete(self, request: Request) -> Response:
        """Delete an organization."""
        organization = self.clerk.organization(request.path_params["organization"])
        return JSONResponse(self.clerk.delete_organization(organization["id"]))

    async def metadata(self, request: Request) -> Response:
        """Merge (PATCH) or replace (PUT) metadata."""
        organization = self.clerk.organization(request.path_params["organization"])
        body = await body_of(request, METADATA)
        fields = replaced_fields(body) if request.method == "PUT" else merged_fields(organization, body)
        self.clerk.touch(organization, "organization.updated", **fields)
        return JSONResponse(self._answer(request, organization))


class MembershipRoutes:
    """The handlers of memberships. Their metadata is the membership's own, not the user's."""

    def __init__(self, clerk: ClerkApi) -> None:
        self.clerk = clerk

    def _answer(self, membership: Record) -> Record:
        organization = self.clerk.organization(membership["organization_id"])
        return membership_body(membership, organization, self.clerk.user(membership["user_id"]))

    def _page(self, request: Request, found: list[Record]) -> Response:
        page = Page.of(request.query_params)
        field, downwards = ordering(request.query_params, frozenset({"created_at"}))
        rows = page.cut(by_field(found, field, downwards=downwards))
        return JSONResponse({"data": [self._answer(row) for row in rows], "total_count": len(found)})

    def _named(self, request: Request) -> Record:
        return self.clerk.membership(request.path_params["organization"], request.path_params["user"])

    async def all(self, request: Request) -> Response:
        """Return a page of the memberships of the whole instance."""
        refuse_unbuilt(request.query_params, ())
        return self._page(request, list(self.clerk.memberships.values()))

    async def of_user(self, request: Request) -> Response:
        """Return a page of one user's memberships."""
        refuse_unbuilt(request.query_params, ())
        user_id = self.clerk.user(request.path_params["user"])["id"]
        return self._page(request, [one for one in self.clerk.memberships.values() if one["user_id"] == user_id])

    async def of_organization(self, request: Request) -> Response:
        """Return a page of one organization's members."""
        query = request.query_params
        refuse_unbuilt(query, ("user_id", "role"))
        organization_id = self.clerk.organization(request.path_params["organization"])["id"]
        members = self.clerk.members_of({organization_id})
        ids = narrow(members, members, query, "user_id", members.__and__) or set()
        roles = set(values(query, "role"))
        found = [
            membership
            for (of, user_id), membership in self.clerk.memberships.items()
            if of == organization_id and user_id in ids and (not roles or membership["role"] in roles)
        ]
        return self._page(request, found)

    async def create(self, request: Request) -> Response:
        """Add a user to an organization."""
        body = await body_of(request, {"user_id", "role", *METADATA})
        for name in ("user_id", "role"):
            if not body.get(name):
                raise errors.missing(name)
        organization_id = self.clerk.organization(request.path_params["organization"])["id"]
        return JSONResponse(self._answer(self.clerk.add_membership(organization_id, **body)))

    async def update(self, request: Request) -> Response:
        """Change a member's role."""
        membership = self._named(request)
        body = await body_of(request, {"role"})
        if not body.get("role"):
            raise errors.missing("role")
        self.clerk.set_role(membership["organization_id"], membership["user_id"], body["role"])
        return JSONResponse(self._answer(membership))

    async def delete(self, request: Request) -> Response:
        """End a membership."""
        membership = self._named(request)
        answer = self._answer(membership)
        self.clerk.remove_membership(membership["organization_id"], membership["user_id"])
        return JSONResponse(answer)

    async def metadata(self, request: Request) -> Response:
        """Merge metadata; Clerk cannot replace it here."""
        membership = self._named(request)
        body = await body_of(request, METADATA)
        self.clerk.touch(membership, "organizationMembership.updated", **merged_fields(membership, body))
        return JSONResponse(self._answer(membership))

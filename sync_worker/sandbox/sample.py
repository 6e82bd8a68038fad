"""Sample content: a small school that sells courses, and its customers in Clerk.

It has an example of every way to be entitled: as a user, organization or membership; by id, e-mail or external id; by
plan, course or cohort; current, future or past. Types and fields are those of the GROQ files in the package.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from sync_worker.sandbox.clock import rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sync_worker.sandbox.server import Sandbox

Document = dict[str, Any]

COURSES = {
    "algebra": "Algebra",
    "geometry": "Geometry",
    "statistics": "Statistics",
    "python-basics": "Python Basics",
    "python-web": "Python on the Web",
    "drawing": "Drawing",
}
PLANS = {
    "starter": ("Starter", ("python-basics",)),
    "pro": ("Pro", ("python-basics", "python-web", "statistics")),
    "campus": ("Campus", ("algebra", "geometry", "statistics", "python-basics", "python-web")),
}
COHORTS = {"spring": ("Spring cohort", ("drawing", "geometry"))}

USERS = {
    "user_ada": ("Ada", "ada@example.com"),
    "user_grace": ("Grace", "grace@example.com"),
    "user_alan": ("Alan", "alan@example.com"),
    "user_edsger": ("Edsger", "edsger@example.com"),
    "user_barbara": ("Barbara", "barbara@example.com"),
}
ORGANIZATIONS = {"org_school": ("Riverside School", "riverside-school")}
SESSION_CLAIMS = {name: f"{{{{user.public_metadata.{name}}}}}" for name in ("plan", "role", "courseSlugs")}
"""The custom session token, as somebody has entered it in Clerk's dashboard."""
MEMBERS = (("org_school", "user_barbara", "org:admin"), ("org_school", "user_alan", "org:member"))


def reference(target: str) -> Document:
    """Return a reference for a single field."""
    return {"_type": "reference", "_ref": target}


def references(kind: str, slugs: Iterable[str]) -> list[Document]:
    """Return an array of references, each with the `_key` that Sanity requires."""
    return [{"_key": slug, **reference(f"{kind}-{slug}")} for slug in slugs]


def _catalogue(kind: str, slug: str, title: str, courses: Iterable[str] | None = None) -> Document:
    document = {"_id": f"{kind}-{slug}", "_type": kind, "title": title, "slug": {"_type": "slug", "current": slug}}
    return document if courses is None else {**document, "courses": references("course", courses)}


def entitlement(id_: str, **fields: Any) -> Document:
    """Return an entitlement document."""
    return {"_id": f"entitlement-{id_}", "_type": "entitlement", "status": "active", **fields}


def documents(now: datetime) -> list[Document]:
    """Return all sample documents; referenced documents come first. `now` decides which windows are open."""

    def days(count: int) -> str:
        return rfc3339((now + timedelta(days=count)).timestamp())

    return [
        *(_catalogue("course", slug, title) for slug, title in COURSES.items()),
        *(_catalogue("plan", slug, title, courses) for slug, (title, courses) in PLANS.items()),
        *(_catalogue("cohort", slug, title, courses) for slug, (title, courses) in COHORTS.items()),
        entitlement("ada-pro", clerkUserId="user_ada", plan=reference("plan-pro"), role="student"),
        entitlement("ada-drawing", clerkUserId="user_ada", courses=references("course", ["drawing"])),
        entitlement("grace", userEmail="grace@example.com", plan="starter", role="student"),
        entitlement("alan", userExternalId="ext-alan", cohorts=references("cohort", ["spring"])),
        entitlement("edsger-next", clerkUserId="user_edsger", plan="pro", startsAt=days(7), endsAt=days(372)),
        entitlement("edsger-past", clerkUserId="user_edsger", plan="starter", startsAt=days(-400), endsAt=days(-35)),
        entitlement("barbara-paused", clerkUserId="user_barbara", plan="starter", status="paused"),
        entitlement("school", clerkOrganizationId="org_school", plan=reference("plan-campus")),
        entitlement("barbara-at-school", clerkUserId="user_barbara", clerkOrganizationId="org_school", role="teacher"),
    ]


async def load_sample(box: Sandbox) -> None:
    """Load the sample into both services, without sending webhooks."""
    for id_, (name, email) in USERS.items():
        external_id = f"ext-{name.lower()}"
        box.clerk.add_user(id_, email=email, external_id=external_id, first_name=name)
    for id_, (name, slug) in ORGANIZATIONS.items():
        box.clerk.add_organization(id_, name=name, slug=slug)
    for organization_id, user_id, role in MEMBERS:
        box.clerk.add_membership(organization_id, user_id, role=role)
    box.clerk.session_claims = dict(SESSION_CLAIMS)
    await box.lake.load(documents(datetime.fromtimestamp(box.lake.clock(), UTC)))

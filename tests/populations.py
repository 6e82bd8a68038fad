"""Populations to sync: people, what entitles them, and edits at random, by each way that an entitlement can be made.

A population knows how its rows name somebody and what else they carry; `edit` changes one thing in Sanity or in Clerk,
as editors, people and administrators do.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from tests.builders import reference

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

    from sync_worker.sandbox.server import Sandbox

USERS, ROWS, COURSES = 30, 40, 8
Fields = dict[str, Any]


def ahead(random: Random) -> str:
    """Return a moment hours away, so that no window opens or closes while somebody counts."""
    return (datetime.now(UTC) + timedelta(hours=random.choice([-48, -2, 2, 48]))).isoformat(timespec="seconds")


def by_id(random: Random, box: Sandbox) -> Fields:
    return {"clerkUserId": random.choice([*box.clerk.users])}


def by_email(random: Random, _: Sandbox) -> Fields:
    number = random.randrange(USERS + 5)
    text = random.choice([f"user{number}@example.org", f" User{number}@Example.org"])
    return {"userEmail": text}


def by_external_id(random: Random, _: Sandbox) -> Fields:
    return {"userExternalId": f"crm-{random.randrange(USERS + 5)}"}


def by_organization(random: Random, box: Sandbox) -> Fields:
    organization = {"clerkOrganizationId": random.choice([*box.clerk.organizations])}
    return random.choice([organization, organization | by_id(random, box), organization | by_email(random, box)])


def messy(random: Random, box: Sandbox) -> Fields:
    user = random.choice([*box.clerk.users])
    return random.choice(
        [
            {"clerkUserId": f"  {user} "},
            {"clerkUserId": "user_unknown"},
            {"clerkUserId": "../organizations/org_0"},
            {"clerkUserId": None, "userEmail": "not an address"},
            {"clerkUserId": user, "courses": [None, reference("nowhere") | {"_weak": True}, reference("course-0")]},
            {"clerkUserId": user, "courses": [reference("course-1"), reference("course-1")], "plan": None},
            {"clerkUserId": user, "cohorts": [None, reference("cohort-0"), reference("gone") | {"_weak": True}]},
            {"clerkUserId": user, "startsAt": None, "endsAt": None, "status": None},
        ]
    )


def anybody(random: Random, box: Sandbox) -> Fields:
    return random.choice([by_id, by_email, by_external_id, by_organization, messy])(random, box)


def plain(random: Random) -> Fields:
    return {"plan": random.choice(["basic", "pro"]), "role": random.choice(["member", "lead"])}


def with_courses(random: Random) -> Fields:
    return plain(random) | {"courses": [reference(f"course-{random.randrange(COURSES)}") for _ in range(2)]}


def with_cohort(random: Random) -> Fields:
    return plain(random) | {"cohorts": [reference(f"cohort-{random.randrange(3)}")]}


def with_plan(random: Random) -> Fields:
    return {"plan": reference(f"plan-{random.randrange(3)}"), "role": "member"}


def with_window(random: Random) -> Fields:
    window = {name: ahead(random) for name in ("startsAt", "endsAt") if random.random() < 0.5}
    return plain(random) | window | {"status": random.choice(["active", "paused", "expired"])}


def with_anything(random: Random) -> Fields:
    return random.choice([with_courses, with_cohort, with_plan, with_window])(random)


@dataclass
class Population:
    """How rows name somebody, and what they carry."""

    names: Callable[[Random, Sandbox], Fields]
    carries: Callable[[Random], Fields]
    edits: Sequence[str] = ("create", "replace", "patch", "delete", "course")
    ids: list[str] = field(default_factory=list)

    def row(self, random: Random, box: Sandbox, document: str) -> Fields:
        return {"_id": document, "_type": "entitlement", **self.carries(random), **self.names(random, box)}

    async def seed(self, random: Random, box: Sandbox) -> None:
        """Fill both services, before anybody listens."""
        for n in range(USERS):
            box.clerk.add_user(f"user_{n:03}", email=f"user{n}@example.org", external_id=f"crm-{n}")
        for n in range(3):
            box.clerk.add_organization(f"org_{n}")
            for user in random.sample([*box.clerk.users], 10):
                box.clerk.add_membership(f"org_{n}", user)
        await box.lake.mutate([{"create": document} for document in self._content(random)])
        self.ids = [f"ent-{n:03}" for n in range(ROWS)]
        rows = [self.row(random, box, id_) for id_ in self.ids]
        await box.lake.mutate([{"create": row} for row in rows])
        await box.lake.mutate([{"create": {**row, "_id": f"drafts.{row['_id']}", "plan": "draft"}} for row in rows[:5]])

    def _content(self, random: Random) -> list[Fields]:
        courses = [f"course-{n}" for n in range(COURSES)]
        some = [[reference(c) for c in random.sample(courses, 3)] for _ in range(6)]
        return [
            *({"_id": c, "_type": "course", "slug": {"current": f"{c}-slug"}} for c in courses),
            *({"_id": f"cohort-{n}", "_type": "cohort", "courses": some[n]} for n in range(3)),
            *(
                {"_id": f"plan-{n}", "_type": "plan", "slug": {"current": f"plan-{n}-slug"}, "courses": some[n + 3]}
                for n in range(3)
            ),
        ]

    async def edit(self, random: Random, box: Sandbox) -> None:
        """Change one thing."""
        await getattr(self, f"_{random.choice(self.edits)}")(random, box)

    async def _create(self, random: Random, box: Sandbox) -> None:
        self.ids.append(f"ent-new-{len(self.ids)}-{random.randrange(10**9)}")
        await box.lake.mutate([{"create": self.row(random, box, self.ids[-1])}])

    async def _replace(self, random: Random, box: Sandbox) -> None:
        await box.lake.mutate([{"createOrReplace": self.row(random, box, random.choice(self.ids))}])

    async def _patch(self, random: Random, box: Sandbox) -> None:
        if self.ids:
            await box.lake.mutate([{"patch": {"id": random.choice(self.ids), "set": self.carries(random)}}])

    async def _delete(self, random: Random, box: Sandbox) -> None:
        if len(self.ids) > 1:
            id_ = self.ids.pop(random.randrange(len(self.ids)))
            await box.lake.mutate([{"delete": {"id": id_}}])

    async def _course(self, random: Random, box: Sandbox) -> None:
        await self._slug(box, f"course-{random.randrange(COURSES)}", random)

    async def _plan(self, random: Random, box: Sandbox) -> None:
        await self._slug(box, f"plan-{random.randrange(3)}", random)

    async def _slug(self, box: Sandbox, document: str, random: Random) -> None:
        change = {"slug": {"current": f"{document}-{random.randrange(1000)}"}}
        await box.lake.mutate([{"patch": {"id": document, "set": change}}])

    async def _cohort(self, random: Random, box: Sandbox) -> None:
        courses = [reference(f"course-{random.randrange(COURSES)}") for _ in range(2)]
        await box.lake.mutate([{"patch": {"id": f"cohort-{random.randrange(3)}", "set": {"courses": courses}}}])

    async def _sign_up(self, random: Random, box: Sandbox) -> None:
        number = USERS + random.randrange(5)
        if f"user_{number:03}" not in box.clerk.users:
            box.clerk.add_user(f"user_{number:03}", email=f"user{number}@example.org", external_id=f"crm-{number}")

    async def _leave(self, random: Random, box: Sandbox) -> None:
        box.clerk.delete_user(random.choice([*box.clerk.users]))

    async def _address(self, random: Random, box: Sandbox) -> None:
        """Somebody's address changes, or is not verified any more; two people may now have the same one."""
        user = random.choice([u for u in box.clerk.users.values() if u["email_addresses"]])
        email = user["email_addresses"][0]
        change = random.choice(
            [
                {"email_address": f"user{random.randrange(USERS)}@example.org"},
                {"verification": {"status": "unverified", "strategy": "email_code"}},
                {"verification": {"status": "verified", "strategy": "email_code"}},
            ]
        )
        box.clerk.update_user(user["id"], email_addresses=[email | change])

    async def _member(self, random: Random, box: Sandbox) -> None:
        pair = random.choice([*box.clerk.organizations]), random.choice([*box.clerk.users])
        if pair in box.clerk.memberships:
            box.clerk.remove_membership(*pair)
        else:
            box.clerk.add_membership(*pair)


CONTENT = ("create", "replace", "patch", "delete", "course")
PEOPLE = ("sign_up", "leave", "address")
POPULATIONS: dict[str, Callable[[], Population]] = {
    "e-mail": lambda: Population(by_email, plain, (*CONTENT, *PEOPLE)),
    "external id": lambda: Population(by_external_id, plain, (*CONTENT, "sign_up", "leave")),
    "cohort": lambda: Population(by_id, with_cohort, (*CONTENT, "cohort", "cohort")),
    "plan reference": lambda: Population(by_id, with_plan, (*CONTENT, "plan", "plan")),
    "organizations with members": lambda: Population(by_organization, plain, (*CONTENT, "member", "member")),
    "windows and statuses": lambda: Population(by_id, with_window),
    "messy data": lambda: Population(messy, with_courses),
    "a mix": lambda: Population(anybody, with_anything, (*CONTENT, "cohort", "plan", "member", *PEOPLE)),
}

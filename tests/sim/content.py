"""What editors do: publish, edit, move, unpublish and delete entitlements and the documents they refer to.

Each function is one step of the simulation; it draws everything from the world's random numbers and
returns what it did, in words.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tests.sim import groq, truth

if TYPE_CHECKING:
    from sync_worker.sandbox.documents import Mutation
    from tests.sim.world import World

Document = dict[str, Any]

USERS = tuple(f"user_{n}" for n in range(6))
EMAILS = ("ann@one.test", "Ben@one.test", "cid@two.test")
EXTERNAL_IDS = ("crm-1", "crm-2")
ORGANIZATIONS = ("org_0", "org_1")
COURSES = tuple(f"course-{n}" for n in range(4))
PLANS = ("plan-0", "plan-1")
COHORTS = ("cohort-0", "cohort-1")
NAMES = ("clerkUserId", "clerkOrganizationId", "userEmail", "userExternalId")
ENTITLEMENTS = tuple(f"ent-{n}" for n in range(9))
ANCHOR = "ent--anchor"
"""An entitlement of somebody else's, so that the dataset is not empty by accident; it is the first of all."""


def first_documents(world: World) -> list[Mutation]:
    """Return what is there before anything happens."""
    documents = [
        {"_id": ANCHOR, "_type": "entitlement", "clerkUserId": "user_anchor", "plan": "free"},
        *(_course(world, id_) for id_ in COURSES),
        *(_plan(world, id_) for id_ in PLANS),
        *(_cohort(world, id_) for id_ in COHORTS),
    ]
    return [{"create": document} for document in documents]


def publish(world: World) -> str:
    document = _entitlement(world, world.random.choice(ENTITLEMENTS))
    return _mutate(world, f"publish {_told(document)}", [{"createOrReplace": document}])


def edit(world: World) -> str:
    id_ = world.random.choice(ENTITLEMENTS)
    before = world.lake.store.documents.get(id_)
    if before is None:
        return publish(world)
    fields = _entitlement(world, id_)
    name = world.random.choice(("plan", "role", "courses", "cohorts", "startsAt", "endsAt", "status"))
    document = {**before, name: fields.get(name)}
    return _mutate(world, f"edit {name} of {_told(document)}", [{"createOrReplace": document}])


def move(world: World) -> str:
    """Give an entitlement to somebody else."""
    id_ = world.random.choice(ENTITLEMENTS)
    before = world.lake.store.documents.get(id_)
    if before is None:
        return publish(world)
    document = {**before, **_named(world)}
    return _mutate(world, f"move {_told(document)}", [{"createOrReplace": document}])


def swap(world: World) -> str:
    """Let two entitlements change their subjects in one transaction, as a release does."""
    found = [world.lake.store.documents.get(id_) for id_ in world.random.sample(ENTITLEMENTS, 2)]
    one, other = found
    if one is None or other is None:
        return publish(world)
    swapped = [
        {**one, **{name: other.get(name) for name in NAMES}},
        {**other, **{name: one.get(name) for name in NAMES}},
    ]
    return _mutate(world, f"swap {one['_id']} and {other['_id']}", [{"createOrReplace": d} for d in swapped])


def delete(world: World) -> str:
    id_ = world.random.choice(ENTITLEMENTS)
    return _mutate(world, f"delete {id_}", [{"delete": {"id": id_}}, {"delete": {"id": f"drafts.{id_}"}}])


def unpublish(world: World) -> str:
    id_ = world.random.choice(ENTITLEMENTS)
    before = world.lake.store.documents.get(id_)
    if before is None:
        return "nothing to unpublish"
    draft = {**before, "_id": f"drafts.{id_}"}
    return _mutate(world, f"unpublish {id_}", [{"createOrReplace": draft}, {"delete": {"id": id_}}])


def dissolve(world: World) -> str:
    """Delete what entitlements may refer to, weakly or it is refused."""
    id_ = world.random.choice((*PLANS, *COURSES, *COHORTS))
    return _mutate(world, f"delete {id_}", [{"delete": {"id": id_}}])


def draft(world: World) -> str:
    """Write a draft, which entitles nobody."""
    document = _entitlement(world, f"drafts.{world.random.choice(ENTITLEMENTS)}")
    return _mutate(world, f"draft {_told(document)}", [{"createOrReplace": document}])


def stage(world: World) -> str:
    """Put a version into the release, which entitles nobody yet."""
    document = _entitlement(world, f"versions.spring.{world.random.choice(ENTITLEMENTS)}")
    return _mutate(world, f"stage {_told(document)}", [{"createOrReplace": document}])


def release(world: World) -> str:
    """Publish everything that is in the release, in one transaction."""
    staged = [d for id_, d in sorted(world.lake.store.documents.items()) if id_.startswith("versions.spring.")]
    mutations: list[Mutation] = []
    for version in staged:
        id_ = version["_id"].removeprefix("versions.spring.")
        mutations += [{"createOrReplace": {**version, "_id": id_}}, {"delete": {"id": version["_id"]}}]
    return _mutate(world, f"release {len(staged)} documents", mutations) if mutations else "nothing to release"


def course(world: World) -> str:
    id_ = world.random.choice(COURSES)
    if world.random.random() < 0.3:
        return _mutate(world, f"delete {id_}", [{"delete": {"id": id_}}])
    document = _course(world, id_)
    return _mutate(world, f"publish {_told(document)}", [{"createOrReplace": document}])


def plan(world: World) -> str:
    id_ = world.random.choice(PLANS)
    if world.random.random() < 0.3:
        return _mutate(world, f"delete {id_}", [{"delete": {"id": id_}}])
    document = _plan(world, id_)
    return _mutate(world, f"publish {_told(document)}", [{"createOrReplace": document}])


def enrol(world: World) -> str:
    """Give everybody a plan and a course, by an entitlement each."""
    plan, course = _reference(world, PLANS), _reference(world, COURSES)
    everybody = [{"clerkUserId": user} for user in USERS] + [{"clerkOrganizationId": one} for one in ORGANIZATIONS]
    documents = [
        {"_id": id_, "_type": "entitlement", **dict.fromkeys(NAMES), **named, "plan": plan, "courses": [course]}
        for id_, named in zip(ENTITLEMENTS, everybody, strict=False)
    ]
    return _mutate(
        world, f"enrol everybody in {plan['_ref']} and {course['_ref']}", [{"createOrReplace": d} for d in documents]
    )


async def clear_slug(world: World) -> str:
    """Publish a plan or a course that many have without its slug, as an editor does by mistake."""
    done = enrol(world) if world.random.random() < 0.7 else "nobody is enrolled"
    await asyncio.sleep(world.random.uniform(2.0, 40.0))
    ids = [one for one in (*PLANS, *COURSES) if one in world.lake.store.documents]
    held = Counter(
        ref for d in world.lake.now.documents.values() if d["_type"] == "entitlement" for ref in groq.references(d)
    )
    id_ = max(ids, key=lambda one: (held[one], one), default="")
    if not id_:
        return f"{done}; no plan and no course is left"
    document = {**world.lake.store.documents[id_], "slug": None}
    return _mutate(world, f"{done}; then the slug of {id_} is cleared", [{"createOrReplace": document}])


def restore_slugs(world: World) -> str:
    """Give every plan and course without a slug one again."""
    found = [world.lake.store.documents.get(id_) for id_ in (*PLANS, *COURSES)]
    cleared = [document for document in found if document is not None and document.get("slug") is None]
    slugs = {d["_id"]: (_plan if d["_type"] == "plan" else _course)(world, d["_id"])["slug"] for d in cleared}
    mutations: list[Mutation] = [{"createOrReplace": {**d, "slug": slugs[d["_id"]]}} for d in cleared]
    if not mutations:
        return "no slug is missing"
    return _mutate(world, f"restore the slugs of {', '.join(sorted(slugs))}", mutations)


def cohort(world: World) -> str:
    id_ = world.random.choice(COHORTS)
    if world.random.random() < 0.3:
        return _mutate(world, f"delete {id_}", [{"delete": {"id": id_}}])
    document = _cohort(world, id_)
    return _mutate(world, f"publish {_told(document)}", [{"createOrReplace": document}])


async def burst(world: World) -> str:
    """Publish one entitlement many times in a row: an editor at work."""
    id_ = world.random.choice(ENTITLEMENTS)
    named = _named(world)
    times, pause = world.random.randrange(4, 16), world.random.choice((0.0, 0.3, 0.7))
    for _ in range(times):
        plan, role = world.random.choice(truth.PLANS), world.random.choice(truth.ROLES)
        _mutate(world, "", [{"createOrReplace": {**_entitlement(world, id_), **named, "plan": plan, "role": role}}])
        await asyncio.sleep(pause)
    return f"publish {id_} for {truth.name_of(named)} {times} times, {pause} s apart"


def empty(world: World) -> str:
    """Delete every entitlement there is."""
    ids = [id_ for id_, d in world.lake.now.documents.items() if d["_type"] == "entitlement"]
    return _mutate(world, f"delete all {len(ids)} entitlements", [{"delete": {"id": id_}} for id_ in sorted(ids)])


def anchor(world: World) -> str:
    document = {"_id": ANCHOR, "_type": "entitlement", "clerkUserId": "user_anchor", "plan": "free"}
    return _mutate(world, f"publish {ANCHOR}", [{"createOrReplace": document}])


def _mutate(world: World, what: str, mutations: list[Mutation]) -> str:
    return what if world.lake.mutate(mutations) else f"{what}: refused, it is referred to or refers to nothing"


def _entitlement(world: World, id_: str) -> Document:
    random = world.random
    document: Document = {"_id": id_, "_type": "entitlement", **_named(world)}
    document["plan"] = random.choice((None, *truth.PLANS, " pro ", _reference(world, PLANS), _reference(world, PLANS)))
    document["role"] = random.choice((None, *truth.ROLES))
    document["courses"] = _references(world, COURSES)
    document["cohorts"] = _references(world, COHORTS)
    document["status"] = random.choice((None, None, None, "active", "active", "paused"))
    if random.random() < 0.25:
        document["startsAt"] = _moment(world, -20.0, 60.0)
    if random.random() < 0.25:
        document["endsAt"] = _moment(world, -10.0, 90.0)
    if random.random() < 0.06:
        document |= random.choice(({"plan": "root"}, {"startsAt": "soon"}, {"role": "owner"}, {"plan": "platinum"}))
    return document


def _named(world: World) -> Document:
    random = world.random
    user, organization = random.choice(USERS), random.choice(ORGANIZATIONS)
    kind = random.random()
    if kind < 0.45:
        named = {"clerkUserId": user}
    elif kind < 0.55:
        named = {"clerkOrganizationId": organization}
    elif kind < 0.70:
        named = {"clerkUserId": user, "clerkOrganizationId": organization}
    elif kind < 0.94:
        named = _addressed(world)
    else:
        named = random.choice(({"clerkUserId": "nobody"}, {}, {"clerkUserId": f" {user} "}))
    return {**dict.fromkeys(NAMES), **named}


def _addressed(world: World) -> Document:
    """Name somebody by address, perhaps as a member of an organization."""
    random = world.random
    if "change_email" in world.config.without:
        return {"clerkUserId": random.choice(USERS)}
    email = random.choice(EMAILS)
    named = random.choice(
        ({"userEmail": email}, {"userEmail": f" {email.upper()}"}, {"userExternalId": random.choice(EXTERNAL_IDS)})
    )
    return {**named, "clerkOrganizationId": random.choice((None, None, *ORGANIZATIONS))}


def _course(world: World, id_: str) -> Document:
    slug = f"{id_}-{world.random.choice('abc')}"
    return {"_id": id_, "_type": "course", "slug": {"_type": "slug", "current": slug}}


def _plan(world: World, id_: str) -> Document:
    slug = world.random.choice((*truth.PLANS, "platinum") if world.random.random() < 0.1 else truth.PLANS)
    courses = _references(world, COURSES)
    return {"_id": id_, "_type": "plan", "slug": {"_type": "slug", "current": slug}, "courses": courses}


def _cohort(world: World, id_: str) -> Document:
    return {"_id": id_, "_type": "cohort", "courses": _references(world, COURSES)}


def _references(world: World, ids: tuple[str, ...]) -> list[Document] | None:
    if world.random.random() < 0.3:
        return None
    return [_reference(world, (id_,)) for id_ in world.random.sample(ids, world.random.randrange(min(3, len(ids)) + 1))]


def _reference(world: World, ids: tuple[str, ...]) -> Document:
    reference: Document = {"_type": "reference", "_ref": world.random.choice(ids)}
    return {**reference, "_weak": True} if world.random.random() < 0.7 else reference


def _moment(world: World, low: float, high: float) -> str:
    at = datetime.fromtimestamp(int(world.clock.true_time() + world.random.uniform(low, high)), UTC)
    return at.isoformat().replace("+00:00", "Z")


def _told(document: Document) -> str:
    """Return a document on one line."""
    shown = {name: value for name, value in document.items() if value is not None and not name.startswith("_")}
    return " ".join([document["_id"], *(f"{name}={_short(value)}" for name, value in shown.items())])


def _short(value: Any) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(_short, value))}]"
    if isinstance(value, dict):
        return f"{value.get('_ref') or value.get('current')}{'~' if value.get('_weak') else ''}"
    return repr(value) if isinstance(value, str) and " " in value else str(value)

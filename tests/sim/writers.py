"""What others write into Clerk's metadata: the customer's app, somebody at the dashboard, another installation.

The worker shares Clerk with all of them. What they write must stay, unless an entitlement says otherwise.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from sync_worker.sandbox.clerk_errors import ClerkError
from sync_worker.sandbox.metadata import merge
from tests.sim import truth

if TYPE_CHECKING:
    from tests.sim.world import World

EVENTS = {"user": "user", "org": "organization", "membership": "organizationMembership"}
ELSEWHERE = "elsewhere"
"""A namespace that never holds our keys."""


def edit_unmanaged(world: World) -> str:
    """Write a key with another name, as the customer's app does."""
    key = anybody(world)
    where = world.random.choice(("public", "private"))
    name = world.random.choice(("theme", "crm", "plan2"))
    value = world.random.choice((None, 1, "x", ["b", "a"], {"deep": {"er": world.random.randrange(9)}}))
    world.is_harmless = True
    write(world, key, where, {name: value})
    world.is_harmless = False
    return f"the app sets {where} {name} of {key} to {value}"


def edit_by_hand(world: World) -> str:
    """Change one of our names in the dashboard."""
    key = anybody(world)
    patch: dict[str, Any] = world.random.choice(
        ({"plan": "team"}, {"plan": "vip"}, {"plan": None}, {"courseSlugs": ["by-hand"]}, {"role": None})
    )
    write(world, key, "public", patch)
    return f"somebody sets {patch} of {key} by hand"


def strip_marker(world: World) -> str:
    """Remove or damage our marker in the dashboard."""
    key = anybody(world)
    value = world.random.choice((None, {"sources": "x"}, {"sources": [], "fingerprint": 7}))
    record = world.clerk.record(key)
    if record is None or truth.MARKER not in record["private_metadata"]:
        return f"{key} has no marker to remove"
    write(world, key, "private", {truth.MARKER: value})
    return f"somebody sets the marker of {key} to {value}"


def set_our_names(world: World) -> str:
    """Let the app use our names for itself, in the place where managed keys are or were, with any of our values."""
    key, place = anybody(world), world.random.choice((world.namespace, *truth.NAMESPACES))
    name, value = world.random.choice(
        [(name, one) for name, order in truth.ORDERS.items() for one in (*order, "vip", None)]
        + [("courseSlugs", one) for one in (None, ["course-0-a"], ["course-0-a", "course-1-b"], ["theirs"])]
    )
    write(world, key, "public", {name: value} if place is None else {place: {name: value}})
    return f"the app sets {name} of {key} in {place} to {value}"


def wipe_private(world: World) -> str:
    """Replace the private metadata, as Clerk's PUT and many SDKs do: our marker is gone."""
    key, left = anybody(world), world.random.choice(({}, {"crm": 2}))
    replace(world, key, private_metadata=left)
    return f"the app replaces the private metadata of {key} by {left}"


def wipe_all(world: World) -> str:
    """Replace all metadata."""
    key, left = anybody(world), world.random.choice(({}, {"theme": "dark"}, {"plan": "pro"}))
    replace(world, key, public_metadata=left, private_metadata={})
    return f"the app replaces all metadata of {key} by {left}"


def grant_elsewhere(world: World) -> str:
    """Let another installation give somebody access, where our keys are or in its own namespace.

    It refuses to write where our marker is, as we do where its own is.
    """
    key = anybody(world)
    managed = any(marker["source"] == truth.SOURCE for marker in world.ownership.now(key).markers.values())
    place = ELSEWHERE if managed or world.random.random() < 0.3 else world.namespace
    names = world.random.sample(("plan", "role"), world.random.randrange(1, 3))
    values = {name: world.random.choice(truth.ORDERS[name]) for name in names}
    keys = [name if place is None else f"public.{place}.{name}" for name in names]
    marker = {truth.MARKER: {"source": truth.OTHER_SOURCE, "keys": keys, "documents": ["theirs"], "fingerprint": ""}}
    write(world, key, "public", values if place is None else {place: values})
    write(world, key, "private", marker if place is None else {place: marker})
    return f"another installation gives {key} {values} in {place}"


def revoke_elsewhere(world: World) -> str:
    """Let the other installation take away what it gave."""
    found = [
        (key, place, marker)
        for key in sorted(world.unmanaged)
        for place, marker in world.ownership.now(key).markers.items()
        if marker["source"] == truth.OTHER_SOURCE
    ]
    if not found:
        return "the other installation gave nobody anything"
    key, place, marker = world.random.choice(found)
    gone = dict.fromkeys(text.rpartition(".")[2] for text in marker["keys"])
    write(world, key, "public", gone if place is None else {place: gone})
    write(world, key, "private", {truth.MARKER: None} if place is None else {place: {truth.MARKER: None}})
    return f"the other installation takes {sorted(gone)} from {key} in {place}"


def anybody(world: World) -> str:
    return world.random.choice(sorted(world.unmanaged))


def write(world: World, key: str, where: str, patch: dict[str, Any]) -> None:
    """Merge metadata, as anybody with the key or the dashboard can; it counts against the limits of the subject."""
    record = world.clerk.record(key)
    assert record is not None
    name = f"{where}_metadata"
    with suppress(ClerkError):
        world.clerk.api.limiter.check("dashboard", key.partition(":")[2])
    replace(world, key, **{name: merge(record[name], patch)})


def replace(world: World, key: str, **metadata: dict[str, Any]) -> None:
    """Replace metadata of a subject, and note that it was none of the worker's writes."""
    record = world.clerk.record(key)
    assert record is not None
    for name, value in metadata.items():
        record[name] = value
    world.unmanaged[key] = truth.unmanaged_of(record)
    world.ownership.changed(key)
    world.clerk.api.touch(record, f"{EVENTS[key.partition(':')[0]]}.updated", **metadata)

"""Sanity's own client reads drafts and releases of the sandbox as a preview does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.sandbox.test_sanity_client_listen import run

if TYPE_CHECKING:
    from sync_worker.sandbox.server import Sandbox

pytestmark = pytest.mark.anyio
PLANS = '*[_type == "entitlement"]{_id, _originalId, plan} | order(_id)'
CONTENT = """
  const entitlement = (id, plan, more = {}) => client.create({_id: id, _type: 'entitlement', plan, ...more})
  const release = (name, state, more = {}) => client.create(
    {_id: `_.releases.${name}`, _type: 'system.release', name, state, ...more})
  await entitlement('e1', 'pro')
  await entitlement('e2', 'pro')
  await entitlement('drafts.e1', 'basic')
  await entitlement('drafts.e3', 'team')
  await release('rA', 'active', {metadata: {releaseType: 'scheduled', intendedPublishAt: '2099-01-01T00:00:00Z'}})
  await release('rB', 'published')
  await entitlement('versions.rA.e1', 'gold')
  await client.create({_id: 'versions.rA.e2', _type: 'entitlement', _system: {delete: true}})
  await entitlement('versions.rB.e1', 'silver')
"""


async def plans(box: Sandbox, perspective: Any) -> dict[str, tuple[str, str | None]]:
    """Return the real id and the plan of each entitlement, by the id that the client is given."""
    script = f"{CONTENT} return client.fetch({PLANS!r}, {{}}, {{perspective: given.perspective}})"
    found = await run(box, script.replace("given.perspective", repr(perspective)))
    return {one["_id"]: (one.get("_originalId") or one["_id"], one.get("plan")) for one in found}


async def test_drafts_and_versions_stand_under_the_id_that_they_would_be_published_under(box: Sandbox) -> None:
    seen = await plans(box, "drafts")
    assert seen["e1"] == ("drafts.e1", "basic")
    assert seen["e3"] == ("drafts.e3", "team")
    assert seen["e2"] == ("e2", "pro")


async def test_the_first_release_of_a_stack_that_has_a_version_wins(box: Sandbox) -> None:
    assert (await plans(box, ["rA", "rB"]))["e1"] == ("versions.rA.e1", "gold")


async def test_a_stack_ends_with_what_is_published_or_with_drafts(box: Sandbox) -> None:
    seen = await plans(box, ["rB"])
    assert (seen["e1"], seen["e2"]) == (("versions.rB.e1", "silver"), ("e2", "pro"))
    assert "e3" not in seen


async def test_what_is_published_is_all_that_the_default_shows(box: Sandbox) -> None:
    script = f"{CONTENT} return client.fetch({PLANS!r})"
    assert [(one["_id"], one["plan"]) for one in await run(box, script)] == [("e1", "pro"), ("e2", "pro")]


async def test_releases_are_listed_with_their_state_and_time(box: Sandbox) -> None:
    query = "releases::all() | order(name){name, state, publishAt, metadata}"
    first, second = await run(box, f"{CONTENT} return client.fetch('{query}', {{}}, {{perspective: 'raw'}})")
    assert (first["name"], first["state"], second["name"], second["state"]) == ("rA", "active", "rB", "published")
    assert first["metadata"]["intendedPublishAt"] == "2099-01-01T00:00:00Z"


async def test_what_a_release_unpublishes_is_found_in_no_perspective_but_raw(box: Sandbox) -> None:
    script = f"""
    {CONTENT}
    const tombstones = '*[sanity::partOfRelease("rA") && _system.delete == true]._id'
    const all = await client.fetch(tombstones)
    return [all, await client.fetch(tombstones, {{}}, {{perspective: 'raw'}})]
    """
    assert await run(box, script) == [[], ["versions.rA.e2"]]

"""The checks of the people in Clerk: whose keys they have, and whether their tokens show their access."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from sync_worker.clerk.claims import Finding as ClaimFinding
from sync_worker.clerk.claims import Person, Template, default_template
from sync_worker.clerk.claims import examine as render_claims
from sync_worker.clerk.client import Clerk
from sync_worker.clerk.objects import as_list, total_of
from sync_worker.clerk.tokens import Tokens, person_of
from sync_worker.doctor.database_probe import inspect
from sync_worker.doctor.runner import Finding, Installation, ok, problem, warning
from sync_worker.domain.diff import values_in_place
from sync_worker.domain.ownership import managed, own_marker
from sync_worker.domain.subjects import Subject
from sync_worker.storage.reconcile_runs import GOOD
from sync_worker.transport import read_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sync_worker.doctor.database_probe import Tables
    from sync_worker.storage.reconcile_runs import LastSuccess

NEAR = 0.8
"""The share of the claims budget from which `doctor` warns."""
SAMPLE = 100
"""Users read at once."""
OTHERS = 10
"""Users at random whose claims are rendered beside those of the one with the most access."""


async def ownership(installation: Installation) -> Finding:
    """Check whose keys the users updated last have: another installation's, or values that nobody manages."""
    layout = installation.settings.layout
    observed = [person.observed["user"] for person in await _latest_people(installation)]
    others = sorted({own.other for one in observed if (own := managed(one, layout)).other})
    if others:
        return problem(
            f"{', '.join(others)} manages the same keys of some of the {len(observed)} users updated last",
            "Give one installation its own METADATA_NAMESPACE, or run `sync-worker reconcile --take-over SOURCE`.",
        )
    unmanaged = sum(bool(values_in_place(one, layout)) and not managed(one, layout).slots for one in observed)
    if unmanaged and await _last_reconcile(installation) is None:
        return warning(
            f"{unmanaged} of the {len(observed)} users updated last have values that are not managed",
            "Run `sync-worker reconcile`; with `--adopt` if a webhook handler of your own wrote them.",
        )
    return ok(f"no other installation manages the {len(observed)} users updated last")


async def _latest_people(installation: Installation) -> list[Person]:
    """Return the users updated last, newest first."""
    return await _users(installation, order_by="-updated_at")


async def _users(installation: Installation, **query: str | int) -> list[Person]:
    """Return at most a page of users."""
    url = f"{installation.settings.clerk_api_url}/v1/users"
    response = await installation.clerk.get(url, params={"limit": SAMPLE, **query})
    return [person_of(user) for user in as_list(read_json("Clerk", response))]


async def claims(installation: Installation) -> Finding:
    """Check that tokens show access, and that it fits into them: for who has the most, and for ten at random.

    Clerk shows the claims of JWT templates, but not those of the session token, which only its dashboard has.
    """
    layout, template = installation.settings.layout, default_template(installation.settings.layout)
    tables = await _tables(installation)
    people = [*await _largest(installation, tables.last_good), *await some_people(installation, Random())]
    if not people:
        return ok("none of the users that were looked at has synced access yet")
    if found := await _template_findings(installation, people):
        return problem(
            "; ".join(f"JWT template {name}, claim {one.claim}: {one.problem}" for name, one in found),
            " ".join(dict.fromkeys(one.fix for _, one in found)),
        )
    largest = max(people, key=lambda person: render_claims(template, person, layout).size)
    size = render_claims(template, largest, layout).size
    over = _over_budget(tables.last_good, layout.claims_budget)
    user = largest.observed["user"].subject
    result = f"{_people(over)} over {layout.claims_budget} bytes at the last reconcile; " if over else ""
    result += f"the most has {user}: {size} of {layout.claims_budget} bytes"
    if over or size > NEAR * layout.claims_budget:
        return warning(result, "Group courses under plans, or add courseSlugs to PRIVATE_FIELDS: a cookie holds 4 KB.")
    return ok(result)


def _over_budget(good: LastSuccess | None, budget: int) -> int:
    """Return how many people were over the budget at the last reconcile, if that had the same budget."""
    return good.over_budget if good is not None and good.claims_budget == budget else 0


def _people(number: int) -> str:
    return "1 person was" if number == 1 else f"{number} people were"


async def _largest(installation: Installation, good: LastSuccess | None) -> list[Person]:
    """Return the user who had the most at the last reconcile, unless they are gone."""
    if good is None or not good.largest:
        return []
    return _managed(installation, await _users(installation, user_id=Subject.parse(good.largest).id))


async def some_people(installation: Installation, random: Random) -> list[Person]:
    """Return ten users with synced access at random: of a page that begins anywhere, or else of the latest."""
    response = await installation.clerk.get(f"{installation.settings.clerk_api_url}/v1/users/count")
    start = random.randrange(max(1, total_of(read_json("Clerk", response)) - SAMPLE + 1))
    found = _managed(installation, await _users(installation, offset=start))
    found = found or _managed(installation, await _latest_people(installation))
    return random.sample(found, min(OTHERS, len(found)))


def _managed(installation: Installation, people: Sequence[Person]) -> list[Person]:
    layout = installation.settings.layout
    return [one for one in people if own_marker(one.observed["user"], layout)]


async def _template_findings(installation: Installation, people: Sequence[Person]) -> list[tuple[str, ClaimFinding]]:
    """Return what is wrong with the JWT templates of the instance, for any of these people, by template."""
    base = f"{installation.settings.clerk_api_url}/v1"
    templates = await Tokens(Clerk(installation.clerk, base), installation.clerk, base).templates()
    found = (
        (one.name, finding)
        for one in templates
        for person in people
        for finding in render_claims(Template(one.claims, one.name), person, installation.settings.layout).findings
    )
    return list(dict.fromkeys(found))


async def _last_reconcile(installation: Installation) -> float | None:
    return (await _tables(installation)).noted.get(GOOD)


async def _tables(installation: Installation) -> Tables:
    return await inspect(installation.settings.database_url, installation.clock, installation.timings)

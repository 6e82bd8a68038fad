"""The checks of the people in Clerk: whose keys they have, and whether their tokens show their access."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sync_worker.clerk.claims import Finding as ClaimFinding
from sync_worker.clerk.claims import Person, Template, default_template
from sync_worker.clerk.claims import examine as render_claims
from sync_worker.clerk.client import Clerk
from sync_worker.clerk.objects import as_list
from sync_worker.clerk.tokens import Tokens, person_of
from sync_worker.doctor.database_probe import inspect
from sync_worker.doctor.runner import Finding, Installation, ok, problem, warning
from sync_worker.domain.diff import values_in_place
from sync_worker.domain.ownership import managed, own_marker
from sync_worker.storage.reconcile_runs import GOOD
from sync_worker.transport import read_json

if TYPE_CHECKING:
    from collections.abc import Sequence

NEAR = 0.8
"""The share of the claims budget from which `doctor` warns."""
SAMPLE = 100
"""Users whose metadata is checked."""
OTHERS = 10
"""Users whose claims are rendered beside those of the one with the most access."""


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
    query: dict[str, str | int] = {"limit": SAMPLE, "order_by": "-updated_at"}
    response = await installation.clerk.get(f"{installation.settings.clerk_api_url}/v1/users", params=query)
    return [person_of(user) for user in as_list(read_json("Clerk", response))]


async def claims(installation: Installation) -> Finding:
    """Check that tokens show access, and that it fits into them, for the users updated last.

    Clerk shows the claims of JWT templates, but not those of the session token, which only its dashboard has.
    """
    layout = installation.settings.layout
    people = await _latest_people(installation)
    own = [one for one in people if own_marker(one.observed["user"], layout)]
    if not own:
        return ok("no user has synced access yet")
    template = default_template(layout)
    largest = max(own, key=lambda person: render_claims(template, person, layout).size)
    if found := await _template_findings(installation, [largest, *own[:OTHERS]]):
        return problem(
            "; ".join(f"JWT template {name}, claim {one.claim}: {one.problem}" for name, one in found),
            " ".join(dict.fromkeys(one.fix for _, one in found)),
        )
    size = render_claims(template, largest, layout).size
    user = largest.observed["user"].subject
    result = f"the largest of {len(people)} users has {size} of {layout.claims_budget} bytes: {user}"
    if size > NEAR * layout.claims_budget:
        return warning(result, "Group courses under plans, or add courseSlugs to PRIVATE_FIELDS: a cookie holds 4 KB.")
    return ok(result)


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
    tables = await inspect(installation.settings.database_url, installation.clock, installation.timings)
    return tables.noted.get(GOOD)

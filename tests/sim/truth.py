"""The expected access, computed again and more simply than in the worker: plain loops over projected rows.

The simulation must not believe the code that it tests. `History` keeps what every state of the documents
says of every subject, because the worker reads states that are some seconds old.
"""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

from tests.sim import groq

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tests.sim.lake import Lake

Row = dict[str, Any]
Values = dict[str, Any]
Directory = dict[str, tuple[str, ...]]
"""Who has an address: `email:a@b` and `external:x` to user ids."""

PLANS = ("free", "pro", "team")
ROLES = ("member", "admin")
ORDERS = {"plan": PLANS, "role": ROLES}
MANAGED = ("plan", "role", "courseSlugs")
MARKER = "entitlementSync"
NAMESPACES = (None, "access")
"""Where the managed keys may be, by METADATA_NAMESPACE."""
SOURCE, OTHER_SOURCE = "sandbox/production", "other/production"
Slot = tuple[str | None, str]
"""Where one managed key is: the namespace and the name."""

USER = re.compile(r"user_\w+", re.ASCII)
ORGANIZATION = re.compile(r"org_\w+", re.ASCII)
EMAIL = re.compile(r"[^@\s/]+@[^@\s/]+", re.ASCII)
ADDRESSES = ("email", "external")


def name_of(row: Mapping[str, Any]) -> str | None:
    """Return what a row names somebody by: the key of a subject, or an address; None when it names nobody."""
    user, organization = _word(row.get("clerkUserId")), _word(row.get("clerkOrganizationId"))
    if (user and not USER.fullmatch(user)) or (organization and not ORGANIZATION.fullmatch(organization)):
        return None
    if user:
        return f"membership:{organization}/{user}" if organization else f"user:{user}"
    within = f"{organization}/" if organization else ""
    external, email = _word(row.get("userExternalId")), _word(row.get("userEmail"))
    if external:
        return f"external:{within}{external}" if " " not in external else None
    if email:
        return f"email:{within}{email.lower()}" if EMAIL.fullmatch(email) else None
    return f"org:{organization}" if organization else None


def keys_of(name: str, directory: Directory) -> tuple[str, ...]:
    """Return whom a name may mean: itself, or all who have the address."""
    kind, _, id_ = name.partition(":")
    if kind not in ADDRESSES:
        return (name,)
    organization, _, address = id_.rpartition("/")
    holders = directory.get(f"{kind}:{address}", ())
    return tuple(f"membership:{organization}/{user}" if organization else f"user:{user}" for user in holders)


def names_of(key: str, directory: Directory) -> set[str]:
    """Return the names by which rows count for a subject: an address that several have counts for none of them."""
    kind, _, id_ = key.partition(":")
    organization, _, user = id_.rpartition("/")
    within = f"{organization}/" if organization else ""
    addresses = [address for address, users in directory.items() if users == (user,)] if kind != "org" else []
    return {key, *(address.replace(":", f":{within}", 1) for address in addresses)}


def desired(rows: Iterable[Row], now: float) -> Values:
    """Return the managed keys that `rows` give at `now`."""
    active = [row for row in rows if is_good(row) and is_active(row, now)]
    if not active:
        return {}
    values: Values = {"courseSlugs": sorted({slug for row in active for slug in row["courseSlugs"]})}
    for name, order in ORDERS.items():
        given = [order.index(_word(row[name])) for row in active if _word(row[name])]
        if given:
            values[name] = order[max(given)]
    return values


def is_pasted(row: Row) -> bool:
    """Return whether a row names somebody with spaces around, or by an address in another case."""
    ids = (row.get(name) for name in ("clerkUserId", "clerkOrganizationId", "userExternalId"))
    email = row.get("userEmail")
    return any(isinstance(id_, str) and id_ != id_.strip() for id_ in ids) or (
        isinstance(email, str) and email != email.strip().lower()
    )


def is_good(row: Row) -> bool:
    """Return whether a row counts at all: what is wrong with one field costs the whole row."""
    return all(_word(row[name]) in (None, *order) for name, order in ORDERS.items()) and all(
        row[name] is None or moment(row[name]) is not None for name in ("startsAt", "endsAt")
    )


def is_active(row: Row, now: float) -> bool:
    starts, ends = moment(row["startsAt"]), moment(row["endsAt"])
    return row["status"] in (None, "active") and (starts is None or starts <= now) and (ends is None or now < ends)


def is_loss(name: str, before: object, after: object) -> bool:
    """Return whether somebody has less than before: nothing, a lower plan or role, or fewer courses."""
    if before is None or after is None:
        return before is not None
    if isinstance(before, list) and isinstance(after, list):
        return len(after) < len(before)
    order = ORDERS.get(name, ())
    return before in order and after in order and order.index(str(after)) < order.index(str(before))


def values_in(public: Mapping[str, Any]) -> dict[Slot, Any]:
    """Return what our names hold, no matter who wrote it."""
    return {
        (place, name): inside[name]
        for place in NAMESPACES
        for inside in [_inside(public, place)]
        for name in MANAGED
        if name in inside
    }


def markers_in(private: Mapping[str, Any]) -> dict[str | None, dict[str, Any]]:
    """Return the markers that say who wrote them and what they list, by namespace."""
    found = {place: _inside(_inside(private, place), MARKER) for place in NAMESPACES}
    return {
        place: dict(marker)
        for place, marker in found.items()
        if isinstance(marker.get("source"), str) and isinstance(marker.get("keys"), list)
    }


def unmanaged_of(record: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the metadata of a subject without our names and markers: what we must never touch."""
    return {
        "public": _without(record["public_metadata"], MANAGED),
        "private": _without(record["private_metadata"], (MARKER,)),
    }


def same(one: object, other: object) -> bool:
    """Return whether two values are the same JSON."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _inside(metadata: Mapping[str, Any], name: str | None) -> Mapping[str, Any]:
    found = metadata if name is None else metadata.get(name)
    return found if isinstance(found, dict) else {}


def _without(metadata: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    rest = {name: value for name, value in metadata.items() if name not in names}
    for place in NAMESPACES:
        if place is not None and isinstance(rest.get(place), dict):
            rest[place] = {name: value for name, value in rest[place].items() if name not in names}
            rest = rest if rest[place] else {name: value for name, value in rest.items() if name != place}
    return rest


def moment(text: object) -> float | None:
    """Return a time as epoch seconds; None for what is none."""
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return None


def boundaries(rows: Iterable[Row]) -> set[float]:
    """Return the moments at which rows begin or cease to count."""
    times = (moment(row[name]) for row in rows for name in ("startsAt", "endsAt"))
    return {time for time in times if time is not None}


class History:
    """What every state of the documents says, by the names that rows name somebody by."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._rows: list[dict[str, tuple[Row, ...]]] = []

    def rows(self, names: Iterable[str], state: int | None = None) -> list[Row]:
        """Return the rows with one of these names, now or in an earlier state."""
        self._catch_up()
        rows = self._rows[-1 if state is None else state]
        return [row for name in names for row in rows.get(name, ())]

    def with_windows(self) -> set[str]:
        """Return the names that a row with a window had at any time."""
        self._catch_up()
        return {name for state in self._rows for name, rows in state.items() if boundaries(rows)}

    def with_boundary(self, low: float, high: float) -> set[str]:
        """Return the names of published rows that begin or cease to count between two moments."""
        self._catch_up()
        return {
            name for name, rows in self._rows[-1].items() if any(low <= moment <= high for moment in boundaries(rows))
        }

    def next_boundary(self, since: float) -> float | None:
        """Return the first moment after `since` at which a published row begins or ceases to count."""
        self._catch_up()
        later = (moment for rows in self._rows[-1].values() for moment in boundaries(rows) if moment > since)
        return min(later, default=None)

    def changed_by(self, state: int) -> set[str]:
        """Return the names whose rows the transaction before `state` changed."""
        self._catch_up()
        before, after = self._rows[state - 1], self._rows[state]
        return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}

    def revision(self, document: str, state: int) -> str | None:
        """Return the revision of a document in a state; None where it was not there."""
        found = self._lake.history[state].documents.get(document)
        return None if found is None else str(found["_rev"])

    def _catch_up(self) -> None:
        for state in self._lake.history[len(self._rows) :]:
            rows: dict[str, list[Row]] = {}
            for id_ in sorted(state.documents):
                if state.documents[id_]["_type"] == "entitlement":
                    row = groq.entitlement(state.documents, state.documents[id_])
                    rows.setdefault(name_of(row) or "", []).append(row)
            self._rows.append({name: tuple(some) for name, some in rows.items() if name})


def _word(value: object) -> Any:
    return (value.strip(" ") or None) if isinstance(value, str) else value

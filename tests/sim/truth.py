"""The expected access, computed again and more simply than in the worker: plain loops over projected rows.

The simulation must not rely on the code under test. `History` keeps the expected access of each state of the documents,
because the worker may read states that are some seconds old.
"""

from __future__ import annotations

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
OWNED = ("plan", "role", "courseSlugs")
MARKER = "entitlementSync"

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
    """Return whom a name may stand for: itself, or all who have the address."""
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
    """Return the owned keys that `rows` give at `now`."""
    active = [row for row in rows if is_good(row) and is_active(row, now)]
    if not active:
        return {}
    values: Values = {"courseSlugs": sorted({slug for row in active for slug in row["courseSlugs"]})}
    for name, order in ORDERS.items():
        given = [order.index(_word(row[name])) for row in active if _word(row[name])]
        if given:
            values[name] = order[max(given)]
    return values


def is_good(row: Row) -> bool:
    """Tell whether a row counts at all: what is wrong with one field costs the whole row."""
    return all(_word(row[name]) in (None, *order) for name, order in ORDERS.items()) and all(
        row[name] is None or moment(row[name]) is not None for name in ("startsAt", "endsAt")
    )


def is_active(row: Row, now: float) -> bool:
    starts, ends = moment(row["startsAt"]), moment(row["endsAt"])
    return row["status"] in (None, "active") and (starts is None or starts <= now) and (ends is None or now < ends)


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

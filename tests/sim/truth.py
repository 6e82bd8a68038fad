"""What access should be, told a second time and more simply than by the worker: plain loops over projected rows.

Why it exists: the simulation must not believe the code that it tries. `History` keeps what every state of the documents
says of every subject, because the worker reads states that are some seconds old.
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

PLANS = ("free", "pro", "team")
ROLES = ("member", "admin")
ORDERS = {"plan": PLANS, "role": ROLES}
OWNED = ("plan", "role", "courseSlugs")
MARKER = "entitlementSync"

USER = re.compile(r"user_\w+", re.ASCII)
ORGANIZATION = re.compile(r"org_\w+", re.ASCII)


def subject_of(row: Mapping[str, Any]) -> str | None:
    """Return the key of whom a row names, if it names anybody."""
    user, organization = _word(row.get("clerkUserId")), _word(row.get("clerkOrganizationId"))
    if (user and not USER.fullmatch(user)) or (organization and not ORGANIZATION.fullmatch(organization)):
        return None
    if user and organization:
        return f"membership:{organization}/{user}"
    return f"user:{user}" if user else f"org:{organization}" if organization else None


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
    """What every state of the documents says of every subject."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._rows: list[dict[str, tuple[Row, ...]]] = []

    def rows(self, key: str, state: int | None = None) -> tuple[Row, ...]:
        """Return the rows that name a subject, now or in an earlier state."""
        self._catch_up()
        return self._rows[-1 if state is None else state].get(key, ())

    def with_windows(self) -> set[str]:
        """Return the subjects that a row with a window named at any time."""
        self._catch_up()
        return {key for state in self._rows for key, rows in state.items() if boundaries(rows)}

    def next_boundary(self, since: float) -> float | None:
        """Return the first moment after `since` at which a published row begins or ceases to count."""
        self._catch_up()
        later = (moment for rows in self._rows[-1].values() for moment in boundaries(rows) if moment > since)
        return min(later, default=None)

    def with_boundary(self, low: float, high: float) -> set[str]:
        """Return the subjects with a published row that begins or ceases to count between two moments."""
        self._catch_up()
        return {
            key for key, rows in self._rows[-1].items() if any(low <= moment <= high for moment in boundaries(rows))
        }

    def changed_by(self, state: int) -> set[str]:
        """Return the subjects whose rows the transaction before `state` changed."""
        self._catch_up()
        before, after = self._rows[state - 1], self._rows[state]
        return {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}

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
                    rows.setdefault(subject_of(row) or "", []).append(row)
            self._rows.append({key: tuple(some) for key, some in rows.items() if key})


def _word(value: object) -> Any:
    return (value.strip(" ") or None) if isinstance(value, str) else value

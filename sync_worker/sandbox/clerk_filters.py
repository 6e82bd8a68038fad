"""The query parameters of Clerk's lists: filters, order and page.

Clerk's lists have traps: 10 rows unless `limit` is given, unknown ids silently left out, a cursor only in creation
order. A filter that is not implemented is an error, because ignoring it would return everybody.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sync_worker.sandbox import clerk_errors as errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from starlette.datastructures import QueryParams

    from sync_worker.sandbox.clerk_bodies import Record

MOST_VALUES = 100
MOST_ROWS = 500
DEFAULT_ROWS = 10

USER_ORDERS = frozenset(
    {
        "created_at",
        "updated_at",
        "email_address",
        "web3wallet",
        "first_name",
        "last_name",
        "phone_number",
        "username",
        "last_active_at",
        "last_sign_in_at",
    }
)
PAGING = frozenset({"limit", "offset", "order_by", "starting_after", "paginated", "include_members_count"})


@dataclass(frozen=True, slots=True)
class Page:
    """The page of a list that a request asks for."""

    limit: int
    offset: int

    @classmethod
    def of(cls, query: QueryParams) -> Page:
        """Read `limit` and `offset`. Raises ClerkError 422."""
        return cls(_number(query, "limit", DEFAULT_ROWS, 1, MOST_ROWS), _number(query, "offset", 0, 0, None))

    def cut(self, rows: Sequence[Record]) -> Sequence[Record]:
        """Return the rows of this page."""
        return rows[self.offset : self.offset + self.limit]


def _number(query: QueryParams, name: str, default: int, least: int, most: int | None) -> int:
    text = query.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or int(text) < least or (most is not None and int(text) > most):
        bounds = f"must be at least {least}" if most is None else f"must be between {least} and {most}"
        raise errors.invalid_value(name, bounds)
    return int(text)


def refuse_unbuilt(query: QueryParams, built: Iterable[str]) -> None:
    """Raise ClerkError 501 for a parameter that is not implemented."""
    for name in query:
        if name not in built and name not in PAGING:
            raise errors.ClerkError(501, "not_in_the_sandbox", f"The sandbox has no {name} parameter on this list.")


def moment(query: QueryParams, name: str) -> int | None:
    """Return a time in Unix milliseconds; None when it is not given. Raises ClerkError 422."""
    return _number(query, name, 0, 0, None) if name in query else None


def values(query: QueryParams, name: str) -> list[str]:
    """Return the values of a repeated parameter. Raises ClerkError 422 when there are too many."""
    found = query.getlist(name)
    if len(found) > MOST_VALUES:
        raise errors.too_many_values(name, MOST_VALUES)
    return found


def signed(query: QueryParams, name: str) -> tuple[set[str], set[str]]:
    """Return the values to include, and those to exclude, which have a leading minus."""
    found = values(query, name)
    included = {value.removeprefix("+") for value in found if not value.startswith("-")}
    return included, {value[1:] for value in found if value.startswith("-")}


def matching(
    query: QueryParams, records: Iterable[Record], fields: Callable[[Record], Iterable[str | None]]
) -> set[str]:
    """Return the ids of the records that have the text of `query` in one of their fields, in any case."""
    wanted = query["query"].strip().casefold()
    return {record["id"] for record in records if any(wanted in text.casefold() for text in fields(record) if text)}


def narrow(
    ids: set[str] | None, everybody: Iterable[str], query: QueryParams, name: str, find: Callable[[set[str]], set[str]]
) -> set[str] | None:
    """Apply one filter with included and excluded values; None stands for all."""
    if name not in query:
        return ids
    included, excluded = signed(query, name)
    if included:
        found = find(included)
        ids = found if ids is None else ids & found
    if excluded:
        ids = set(everybody if ids is None else ids) - find(excluded)
    return ids


def ordering(query: QueryParams, known: frozenset[str]) -> tuple[str, bool]:
    """Return the field to order by, and whether the order is descending. Raises ClerkError 422."""
    text = query.get("order_by", "-created_at").replace(" ", "+")
    field = text.lstrip("+-")
    if field not in known:
        raise errors.invalid_value("order_by", f"must be one of {', '.join(sorted(known))}")
    return field, text.startswith("-")


def by_field(records: Iterable[Record], field: str, *, downwards: bool) -> list[Record]:
    """Sort records by a field that may be null; nulls come last in ascending order."""

    def key(record: Mapping[str, Any]) -> tuple[bool, Any]:
        value = record.get(field)
        if field == "email_address":
            value = next((address["email_address"] for address in record["email_addresses"]), None)
        return value is None, value if value is not None else ""

    return sorted(records, key=key, reverse=downwards)

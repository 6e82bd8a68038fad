"""Clerk's users, kept in order of creation and indexed by id, address and external id.

Sorting 100,000 users for each page would take seconds.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sync_worker.sandbox.clerk_bodies import Record

Place = tuple[int, int, str]
"""A user's position: creation time, running number, id. It never changes and is never reused."""


@dataclass(frozen=True, slots=True)
class Created:
    """When the users of a list were created, in Unix milliseconds: after and before these moments, without them."""

    after: int | None = None
    before: int | None = None

    def bounds(self, order: Sequence[Place]) -> tuple[int, int]:
        """Return the indexes in `order` between which they are."""
        low = 0 if self.after is None else bisect_left(order, (self.after + 1,))
        high = len(order) if self.before is None else bisect_left(order, (self.before,))
        return low, max(low, high)


class Users:
    """All users. Call `unindex` before and `index` after addresses or the external id of a user change."""

    def __init__(self) -> None:
        self._by_id: dict[str, Record] = {}
        self._order: list[Place] = []
        self._places: dict[str, Place] = {}
        self._by_email: dict[str, set[str]] = {}
        self._by_external_id: dict[str, str] = {}

    @property
    def by_id(self) -> Mapping[str, Record]:
        """All users by id."""
        return self._by_id

    def add(self, user: Record) -> None:
        """Add a new user."""
        place = (user["created_at"], len(self._places), user["id"])
        self._by_id[user["id"]] = user
        self._places[user["id"]] = place
        insort(self._order, place)
        self.index(user)

    def remove(self, id_: str) -> Record:
        """Remove a user. The position is kept, so that a cursor at a deleted user still works."""
        user = self._by_id.pop(id_)
        del self._order[bisect_left(self._order, self._places[id_])]
        self.unindex(user)
        return user

    def index(self, user: Record) -> None:
        """Index a user by the addresses and the external id in the record."""
        for address in user["email_addresses"]:
            self._by_email.setdefault(address["email_address"].casefold(), set()).add(user["id"])
        if user["external_id"] is not None:
            self._by_external_id[user["external_id"]] = user["id"]

    def unindex(self, user: Record) -> None:
        """Undo `index`."""
        for address in user["email_addresses"]:
            self._by_email.get(address["email_address"].casefold(), set()).discard(user["id"])
        self._by_external_id.pop(user["external_id"], None)

    def with_email(self, addresses: Iterable[str]) -> set[str]:
        """Return the ids of the users who have one of these addresses, verified or not."""
        return {id_ for address in addresses for id_ in self._by_email.get(address.casefold(), ())}

    def with_external_id(self, values: Iterable[str]) -> set[str]:
        """Return the ids of the users with one of these external ids."""
        return {self._by_external_id[value] for value in values if value in self._by_external_id}

    def by_creation(
        self, ids: set[str] | None, created: Created, *, newest_first: bool, after: str | None, offset: int, limit: int
    ) -> list[str]:
        """Return a page of ids by creation time, only those in `ids` when given, only those behind the user `after`.

        Raises KeyError when there never was a user `after`.
        """
        order = self._order_of(ids)
        low, high = created.bounds(order)
        if after is not None:
            place = self._places[after]
            if newest_first:
                high = max(low, min(high, bisect_left(order, place)))
            else:
                low = max(low, bisect_right(order, place))
        if newest_first:
            end = max(low, high - offset)
            return [place[2] for place in reversed(order[max(low, end - limit) : end])]
        return [place[2] for place in order[low + offset : min(high, low + offset + limit)]]

    def created(self, ids: set[str] | None, created: Created) -> list[str]:
        """Return those of `ids`, or of all, who were created then, by creation time."""
        order = self._order_of(ids)
        return [place[2] for place in order[slice(*created.bounds(order))]]

    def _order_of(self, ids: set[str] | None) -> list[Place]:
        return self._order if ids is None else sorted(self._places[id_] for id_ in ids)

"""Reads Clerk's list of users page by page, and the whole list side by side with several cursors.

The list is cut into ranges of the time of creation, which never changes. A range begins behind a time and ends where
the next one begins, so none depends on how many users are in it, or on the order in which pages arrive.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard

from sync_worker.clerk.objects import add_user, as_list, total_of
from sync_worker.errors import NoSuchSubject, RequestRefused, RetryableError, UnreadableAnswer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence

    from sync_worker.domain.entitlements import Observed
    from sync_worker.domain.subjects import Subject

PAGE = 500
"""Rows per page of a list, Clerk's maximum."""
CURSORS = 8
"""Pages that are read at once."""
WORTH_SPLITTING = 8
"""Pages that must be left in a range before half of it becomes another one: that costs half a page more."""
RANGES_PER_PAGE = 1 / 50
"""Ranges beyond the first `CURSORS` by pages of the whole list: a bad guess costs a call."""
TRIES = 3
"""How often a page of the whole list is read, beside the repeats of the transport, before the sweep ends."""


class Get(Protocol):
    """A GET request that returns JSON."""

    async def __call__(self, path: str, **parameters: Sequence[str] | str | int) -> Any:
        """Raise a SyncWorkerError for any other response than a 2xx with JSON."""


@dataclass(slots=True, eq=False)
class Range:
    """Users in order of creation, from `at` on and up to `end`, where the next range begins. Times are in Unix ms.

    `at` is when the last user read was created, `pace` the milliseconds between two users there. `follows` says that
    there is a range before this one, which has the users created before.
    """

    at: int = 0
    end: int | None = None
    pace: float = 0.0
    follows: bool = False
    is_read: bool = False
    _after: int | None = None
    _cursor: str = ""
    _known: set[str] = field(default_factory=set)
    """Those who were created at `at` and have been read."""

    @property
    def query(self) -> Mapping[str, str | int]:
        """The parameters of the next page. With a cursor all but the cursor stay the same, as Clerk requires."""
        after = {} if self._after is None else {"created_at_after": self._after}
        return after | ({"starting_after": self._cursor} if self._cursor else {})

    def without_cursor(self) -> bool:
        """Go on by time, because the cursor is refused: its user is gone. Return False when there is no cursor."""
        if not self._cursor:
            return False
        self._go_on_from(self.at)
        return True

    def behind(self, start: int) -> Range:
        """Cut off and return the range that begins at `start`."""
        rest = Range(start, self.end, self.pace, follows=True)
        rest._go_on_from(start)
        self.end = start
        return rest

    def left(self, newest: int) -> float:
        """Return about how many users are left, if they go on as in the last page."""
        return max(0, (newest if self.end is None else self.end) - self.at) / max(self.pace, 0.001)

    def take(self, page: Sequence[Any], limit: int) -> list[Observed]:
        """Return the users of the next page that are of this range and new, and move on behind it.

        Raises UnreadableAnswer when the page cannot be the next one.
        """
        found: dict[Subject, Observed] = {}
        for item in page:
            add_user(found, item)
        times = {item["id"]: item.get("created_at") for item in page}
        taken = self._new(found.values(), times)
        whens = [when for when in times.values() if _is_time(when)]
        if len(whens) > 1:
            self.pace = (whens[-1] - whens[0]) / len(whens)
        # A range with an end has users behind it, so that a page which is not full proves nothing.
        self.is_read = self.is_read or not page or (self.end is None and len(page) < limit)
        last = str(page[-1]["id"]) if page else self._cursor
        if not self.is_read and last == self._cursor:
            raise UnreadableAnswer("Clerk returned the same page of users twice")
        self._cursor = last
        return taken

    def _new(self, users: Iterable[Observed], times: Mapping[str, object]) -> list[Observed]:
        taken = []
        # A user without a time has the place of the one before. The first one of a range belongs to the one before.
        when = None if self.follows and not self._known else self.at
        for observed in users:
            id_ = observed.subject.id
            given = times[id_]
            when = given if _is_time(given) else when
            if when is None or when < self.at or id_ in self._known:
                continue
            if self.end is not None and when >= self.end:
                self.is_read = True
                continue
            if when > self.at:
                self.at = when
                self._known.clear()
            self._known.add(id_)
            taken.append(observed)
        return taken

    def _go_on_from(self, at: int) -> None:
        # A millisecond earlier, because Clerk does not say on which side the moment itself counts.
        self._after, self._cursor = (at - 1 if at > 0 else None), ""


@dataclass(slots=True)
class Ranges:
    """The ranges of a whole list of about `expected` users, the newest of whom was created at `newest`."""

    expected: int
    newest: int
    page: int
    seen: int = 0
    last: Range = field(default_factory=Range)
    """The one without an end."""
    _open: list[Range] = field(default_factory=list)
    _waiting: deque[Range] = field(default_factory=deque)
    _splits: int = field(init=False)

    def __post_init__(self) -> None:
        self._splits = CURSORS - 1 + int(self.expected / self.page * RANGES_PER_PAGE)
        self._open, self._waiting = [self.last], deque([self.last])

    def next(self) -> Range | None:
        """Return a range whose next page nobody reads yet: one that waits, or half of the one with the most left."""
        if self._waiting:
            return self._waiting.popleft()
        left, widest = max(((self._left(r), r) for r in self._open), key=lambda pair: pair[0], default=(0.0, self.last))
        if left < WORTH_SPLITTING * self.page or not self._splits:
            return None
        end = self.newest if widest.end is None else widest.end
        half = widest.at + int(min((end - widest.at) / 2, left / 2 * widest.pace))
        if not widest.at < half < end:
            return None
        self._splits -= 1
        rest = widest.behind(half)
        self.last = rest if rest.end is None else self.last
        self._open.append(rest)
        return rest

    def give_back(self, range_: Range, users: int) -> None:
        """Note that a page with so many new users of this range was read."""
        self.seen += users
        if range_.is_read:
            self._open.remove(range_)
        else:
            self._waiting.append(range_)

    def _left(self, range_: Range) -> float:
        return min(range_.left(self.newest), self.expected - self.seen)


class UserList:
    """The list of users, by the GET requests of a client, in pages of so many."""

    def __init__(self, get: Get, page: int = PAGE) -> None:
        self._get = get
        self._limit = page

    async def matching(self, filters: Mapping[str, Sequence[str]]) -> AsyncIterator[Sequence[Observed]]:
        """Read the users that match the filters, page by page."""
        all_of_them = Range()
        while not all_of_them.is_read:
            yield await self._page(all_of_them, filters)

    async def everybody(self) -> AsyncGenerator[Sequence[Observed], None]:
        """Read all users, in no order, each once, and all who were there from the beginning to the end.

        Raises UnreadableAnswer when Clerk lists fewer users than it counts: an incomplete sweep proves nothing.
        """
        expected = await self._count()
        is_worth_splitting = expected >= WORTH_SPLITTING * self._limit
        ranges = Ranges(expected, await self._newest() if is_worth_splitting else 0, self._limit)
        reading: dict[asyncio.Task[Sequence[Observed]], Range] = {}
        try:
            self._read_on(ranges, reading)
            while reading:
                await asyncio.wait(reading, return_when=asyncio.FIRST_COMPLETED)
                for task in [task for task in reading if task.done()]:
                    ranges.give_back(reading.pop(task), len(task.result()))
                    self._read_on(ranges, reading)
                    yield task.result()
        finally:
            for task in reading:
                task.cancel()
            await asyncio.gather(*reading, return_exceptions=True)
        if (seen := ranges.seen) < expected:
            # Where one was deleted before it was read, and another one created behind the last page, both count.
            while late := await self._page_again(ranges.last):
                yield late
                seen += len(late)
            if seen < min(expected, await self._count()):
                raise UnreadableAnswer(f"Clerk listed {seen} users but counts {expected}")

    def _read_on(self, ranges: Ranges, reading: dict[asyncio.Task[Sequence[Observed]], Range]) -> None:
        while len(reading) < CURSORS and (range_ := ranges.next()) is not None:
            reading[asyncio.create_task(self._page_again(range_))] = range_

    async def _page_again(self, range_: Range) -> Sequence[Observed]:
        """Read the next page of a range. Only this page is read again when that fails: the other ranges go on."""
        for _ in range(TRIES - 1):
            with suppress(RetryableError, UnreadableAnswer):
                return await self._page(range_, {})
        return await self._page(range_, {})

    async def _page(self, range_: Range, filters: Mapping[str, Sequence[str]]) -> Sequence[Observed]:
        try:
            page = await self._rows(**filters, **range_.query)
        except (RequestRefused, NoSuchSubject):
            if not range_.without_cursor():
                raise
            page = await self._rows(**filters, **range_.query)
        return range_.take(page, self._limit)

    async def _rows(self, **parameters: Sequence[str] | str | int) -> list[Any]:
        return as_list(await self._get("/users", limit=self._limit, order_by="+created_at", **parameters))

    async def _newest(self) -> int:
        """Return when the newest user was created; 0 where Clerk does not say."""
        for user in as_list(await self._get("/users", limit=1, order_by="-created_at")):
            if isinstance(user, dict) and _is_time(user.get("created_at")):
                return int(user["created_at"])
        return 0

    async def _count(self) -> int:
        return total_of(await self._get("/users/count"))


def _is_time(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)

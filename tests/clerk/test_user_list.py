"""The whole list of users, read in ranges: by the sandbox's routes, without sockets, in an order that a seed draws."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sync_worker.clerk.user_list import CURSORS, TRIES, UserList
from sync_worker.errors import CredentialsRefused, NoSuchSubject, ServiceUnavailable, UnreadableAnswer
from sync_worker.sandbox.limits import Limits
from tests.sim.clerk import Instance
from tests.sizes import examples

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

pytestmark = pytest.mark.anyio
NOBODY: Callable[[], object] = lambda: None  # noqa: E731


@dataclass
class Remote:
    """Clerk behind a network: answers overtake each other, and `before` is called before each page of users.

    A cursor whose user is gone is refused, and so is each page that `fails` names by its number, once.
    """

    random: Random = field(default_factory=lambda: Random(1))
    before: Callable[[], object] = NOBODY
    fails: dict[int, Exception] = field(default_factory=dict)
    pages: list[dict[str, str]] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    edit: Callable[[list[Any]], list[Any]] = lambda page: page

    def __post_init__(self) -> None:
        self.instance = Instance(lambda: 0.0, self.random, Limits(instance=10**9, subject=10**9))

    @property
    def users(self) -> set[str]:
        return set(self.instance.api.users)

    def add(self, times: Sequence[int]) -> None:
        for number, created in enumerate(times):
            self.instance.api.add_user(f"user_{number}", created_at=created)

    async def answer(self, request: httpx.Request) -> httpx.Response:
        parameters = dict(request.url.params)
        is_page = request.url.path == "/v1/users"
        if is_page:
            self.pages.append(parameters)
        number = len(self.pages)
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        try:
            for _ in range(self.random.randrange(4)):
                await asyncio.sleep(0)
        finally:
            self.at_once -= 1
        if is_page:
            self.before()
            if number in self.fails:
                raise self.fails.pop(number)
            if not self.users.issuperset(cursor_of(parameters)):
                raise NoSuchSubject("the cursor is gone")
        reply = self.instance.serve(request).response(request)
        return httpx.Response(200, json=self.edit(reply.json())) if is_page else reply

    async def sweep(self) -> list[str]:
        """Return the ids of the users that a sweep comes by."""
        headers = {"authorization": "Bearer sk_test_sandbox", "clerk-api-version": "2026-05-12"}
        async with httpx.AsyncClient(transport=httpx.MockTransport(self.answer), headers=headers) as client:

            async def get(path: str, **parameters: Any) -> Any:
                return (await client.get(f"http://127.0.0.1/v1{path}", params=parameters)).json()

            return [observed.subject.id async for page in UserList(get, PAGE).everybody() for observed in page]


def cursor_of(parameters: dict[str, str]) -> set[str]:
    return {value for name, value in parameters.items() if name == "starting_after"}


PAGE = 20
MANY = 700
SPIKE = [
    *range(0, 50_000_000, 1_000_000),
    *range(40_000_000, 40_000_000 + MANY),
    *range(90_000_000, 99_000_000, 1_000_000),
]
TIMES = {
    "evenly": range(0, MANY * 1_000, 1_000),
    "within a spike": sorted(SPIKE),
    "more and more of them": [int(10**9 * (number / MANY) ** 0.2) for number in range(MANY)],
    "fewer and fewer": [int(10**9 * (number / MANY) ** 5) for number in range(MANY)],
    "all in one millisecond": [1_700_000_000_000] * MANY,
}


@pytest.mark.parametrize("times", TIMES)
async def test_everybody_is_read_once_with_few_calls_whenever_they_came(times: str) -> None:
    clerk = Remote()
    clerk.add(list(TIMES[times]))
    swept = await clerk.sweep()
    assert sorted(swept) == sorted(clerk.users)
    assert len(clerk.pages) <= len(swept) / PAGE + 2 + CURSORS


async def test_pages_are_read_side_by_side() -> None:
    clerk = Remote()
    clerk.add(list(TIMES["evenly"]))
    await clerk.sweep()
    assert CURSORS / 2 <= clerk.most_at_once <= CURSORS


async def test_a_small_list_takes_no_call_more_than_its_pages() -> None:
    clerk = Remote()
    clerk.add(range(PAGE + 1))
    await clerk.sweep()
    assert len(clerk.pages) == 2


@settings(max_examples=examples(100), deadline=None)
@given(
    groups=st.lists(st.tuples(st.integers(0, 5_000), st.integers(1, 60)), min_size=1, max_size=8),
    changes=st.lists(st.tuples(st.booleans(), st.integers(0, 10**6)), max_size=30),
    seed=st.integers(0, 10**6),
)
async def test_who_is_there_all_the_time_is_read_once_whatever_happens_meanwhile(
    groups: list[tuple[int, int]], changes: list[tuple[bool, int]], seed: int
) -> None:
    clerk = Remote(Random(seed))
    clerk.add([created for created, many in groups for _ in range(many)])
    before = clerk.users
    left = iter(changes)
    clerk.before = lambda: _change(clerk, left)
    swept = await clerk.sweep()
    assert len(swept) == len(set(swept))
    assert before & clerk.users <= set(swept)


def _change(clerk: Remote, changes: Iterator[tuple[bool, int]]) -> None:
    """Delete somebody, of those who are likely to be a cursor too, or let somebody sign up."""
    created, number = next(changes, (None, 0))
    users = sorted(clerk.instance.api.users.values(), key=lambda user: user["created_at"])
    if created:
        clerk.instance.api.add_user(f"user_new{len(clerk.pages)}", created_at=10_000 + len(clerk.pages))
    elif created is False and users:
        cursors = [cursor for page in clerk.pages for cursor in cursor_of(page) & clerk.users]
        somebody = cursors[-1] if cursors and number % 2 else users[number % len(users)]["id"]
        clerk.instance.api.delete_user(somebody)


@pytest.mark.parametrize(
    "error", [ServiceUnavailable("down"), UnreadableAnswer("half a page")], ids=lambda error: type(error).__name__
)
async def test_only_a_page_that_fails_is_read_again(error: Exception) -> None:
    clerk, failing = Remote(), Remote(fails=dict.fromkeys(range(3, 3 + TRIES - 1), error))
    for one in (clerk, failing):
        one.add(list(TIMES["evenly"]))
    assert sorted(await failing.sweep()) == sorted(await clerk.sweep())
    assert len(failing.pages) <= len(clerk.pages) + TRIES


@pytest.mark.parametrize("error", [ServiceUnavailable("down"), CredentialsRefused("no")], ids=["an outage", "a key"])
async def test_an_error_that_stays_ends_the_sweep(error: Exception) -> None:
    clerk = Remote(fails=dict.fromkeys(range(5, 1000), error))
    clerk.add(list(TIMES["evenly"]))
    with pytest.raises(type(error)):
        await clerk.sweep()
    assert len(clerk.pages) < 5 + CURSORS * TRIES
    assert clerk.at_once == 0


@pytest.mark.parametrize("missing", [{"created_at"}, {"created_at", "username"}])
async def test_users_without_a_time_are_read_too(missing: set[str]) -> None:
    def without(page: list[Any]) -> list[Any]:
        return [{k: v for k, v in user.items() if k not in missing or int(user["id"][5:]) % 3} for user in page]

    clerk = Remote(edit=without)
    clerk.add(list(TIMES["evenly"]))
    assert sorted(await clerk.sweep()) == sorted(clerk.users)


async def test_a_page_cut_short_is_not_taken_for_the_end() -> None:
    clerk = Remote()
    clerk.add(list(TIMES["evenly"]))
    clerk.edit = lambda page: page[:12] if len(clerk.pages) % 5 == 4 else page
    assert sorted(await clerk.sweep()) == sorted(clerk.users)


async def test_a_list_that_leaves_users_out_proves_nothing() -> None:
    clerk = Remote(edit=lambda page: [user for user in page if not user["id"].endswith("7")])
    clerk.add(list(TIMES["evenly"]))
    with pytest.raises(UnreadableAnswer, match=f"but counts {MANY}"):
        await clerk.sweep()

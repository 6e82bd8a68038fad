"""The report: who has what, by which documents, since when and until when."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from sync_worker.diagnostics.report import AccessReport, Wanted, holders
from sync_worker.formatting import parse_time
from sync_worker.storage.ledger import Entry, State
from sync_worker.storage.work_items import WorkItem
from tests.builders import created, reference
from tests.clock import ManualClock
from tests.parts import opened, working

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sync_worker.diagnostics.report import Holding
    from sync_worker.sandbox.server import Sandbox
    from tests.parts import Parts

pytestmark = pytest.mark.anyio
EVERYBODY = Wanted()


def report_of(parts: Parts) -> AccessReport:
    store, services = parts.store, parts.services
    return AccessReport(
        store.ledger, store.access, services.source, services.target, parts.settings.layout, store.runtime.clock
    )


async def synced(parts: Parts, *users: str) -> None:
    keys = [f"user:{user}" for user in users]
    await parts.store.queue.enqueue([WorkItem(key) for key in keys])
    for key in keys:
        while (row := await parts.store.queue.get(key)) and row.pending and not row.dead:
            await parts.store.database.changed(0.05)


def subjects(found: list[Holding]) -> list[str]:
    return [one.subject for one in found]


# What Clerk holds now.


async def test_the_report_shows_what_clerk_holds_with_documents_and_ends(box: Sandbox, sqlite_url: str) -> None:
    box.clerk.add_user("user_1")
    box.clerk.add_user("user_2", public_metadata={"plan": "free"})
    await box.lake.mutate(
        [
            {"create": {"_id": "c1", "_type": "course", "slug": {"current": "algebra"}}},
            created("e1", "user_1", plan="pro", endsAt="2099-01-01T00:00:00Z"),
            created("e2", "user_1", courses=[reference("c1")], endsAt="2098-01-01T00:00:00Z"),
        ]
    )
    async with working(box, sqlite_url) as parts:
        await synced(parts, "user_1")
        (one,) = await report_of(parts).now(EVERYBODY)
        (with_course,) = await report_of(parts).now(Wanted.of(course="algebra"))
        (entry,) = await parts.store.ledger.history("user:user_1")
        assert await report_of(parts).now(Wanted.of(course="algebra", plan="free")) == []
    assert (one.subject, dict(one.values)) == ("user:user_1", {"plan": "pro", "courseSlugs": ["algebra"]})
    assert (list(one.documents), one.since) == (["e1", "e2"], entry.settled_at)
    assert one.until == parse_time("2099-01-01").timestamp()
    assert with_course.until == parse_time("2098-01-01").timestamp()


async def test_access_without_an_end_has_none(box: Sandbox, sqlite_url: str) -> None:
    box.clerk.add_user("user_1")
    await box.lake.mutate(
        [created("e1", "user_1", plan="pro"), created("e2", "user_1", plan="pro", endsAt="2099-01-01T00:00:00Z")]
    )
    async with working(box, sqlite_url) as parts:
        await synced(parts, "user_1")
        (one,) = await report_of(parts).now(EVERYBODY)
    assert one.until is None


async def test_a_value_edited_in_clerk_has_no_known_beginning(box: Sandbox, sqlite_url: str) -> None:
    box.clerk.add_user("user_1")
    await box.lake.mutate([created("e1", "user_1", plan="pro")])
    async with working(box, sqlite_url) as parts:
        await synced(parts, "user_1")
        box.clerk.users["user_1"]["public_metadata"]["plan"] = "team"
        (one,) = await report_of(parts).now(Wanted.of(plan="team"))
    assert (one.values, one.since) == ({"plan": "team", "courseSlugs": []}, None)


async def test_a_beginning_that_the_ledger_forgot_comes_from_the_marker(
    box: Sandbox, sqlite_url: str, tmp_path: Any
) -> None:
    box.clerk.add_user("user_1")
    await box.lake.mutate([created("e1", "user_1", plan="pro")])
    async with working(box, sqlite_url) as parts:
        await synced(parts, "user_1")
        (entry,) = await parts.store.ledger.history("user:user_1")
    async with opened(box, f"sqlite:///{tmp_path}/other.db") as parts:
        (one,) = await report_of(parts).now(EVERYBODY)
    assert one.since is not None
    assert abs(one.since - entry.at) <= 2


# The past, by the ledger.


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def parts(box: Sandbox, database_url: str, clock: ManualClock) -> AsyncIterator[Parts]:
    async with opened(box, database_url, clock=clock) as parts:
        yield parts


async def wrote(parts: Parts, user: str, document: str = "e1", by: str = "", **after: Any) -> float:
    """Record an applied write, and return its moment."""
    ledger, clock = parts.store.ledger, parts.store.runtime.clock
    assert isinstance(clock, ManualClock)
    clock.advance(10)
    entry = Entry("run", f"user:{user}", "update", {}, after, [document], by=by)
    (id_,) = await ledger.intend([entry])
    assert id_ is not None
    await ledger.settle([id_], State.APPLIED)
    (kept, *_) = await ledger.history(f"user:{user}", limit=1)
    assert kept.settled_at is not None
    return kept.settled_at


async def test_the_past_is_what_was_written_until_then(parts: Parts) -> None:
    first = await wrote(parts, "user_1", "e1", plan="pro", courseSlugs=["a"])
    second = await wrote(parts, "user_1", "e2", plan="pro", courseSlugs=["a", "b"])
    third = await wrote(parts, "user_1")
    report = report_of(parts)
    assert await report.at(EVERYBODY, first - 1) == []
    (one,) = await report.at(EVERYBODY, (second + third) / 2)
    assert (one.values, one.documents) == ({"plan": "pro", "courseSlugs": ["a", "b"]}, ("e2",))
    assert (one.since, one.until) == (second, third)
    assert await report.at(EVERYBODY, third) == []


async def test_a_filter_shows_since_when_and_until_when_the_value_itself_was_held(parts: Parts) -> None:
    first = await wrote(parts, "user_1", courseSlugs=["a"])
    await wrote(parts, "user_1", courseSlugs=["a", "b"])
    between = await wrote(parts, "user_1", courseSlugs=["a", "c"])
    last = await wrote(parts, "user_1", courseSlugs=["c"])
    (one,) = await report_of(parts).at(Wanted.of(course="a"), between)
    assert (one.since, one.until) == (first, last)


async def test_a_value_that_was_lost_meanwhile_is_held_since_it_came_back(parts: Parts) -> None:
    await wrote(parts, "user_1", courseSlugs=["a"])
    await wrote(parts, "user_1", courseSlugs=[])
    again = await wrote(parts, "user_1", courseSlugs=["a"])
    (one,) = await report_of(parts).at(Wanted.of(course="a"), again)
    assert one.since == again


async def test_the_editors_are_those_whose_publish_gave_it(parts: Parts) -> None:
    await wrote(parts, "user_1", by="p-ada", plan="pro", courseSlugs=["a"])
    await wrote(parts, "user_1", by="p-ben", plan="pro", courseSlugs=["a", "b"])
    last = await wrote(parts, "user_1", plan="pro", courseSlugs=["a", "b", "c"])
    report = report_of(parts)

    async def editors(**given: str) -> list[str]:
        (one,) = await report.at(Wanted.of(**given), last)
        return list(one.by)

    assert await editors() == ["p-ada", "p-ben"]
    assert [await editors(course=course) for course in "abc"] == [["p-ada"], ["p-ben"], []]
    assert await editors(plan="pro", course="b") == ["p-ada", "p-ben"]


async def test_a_person_with_only_an_empty_list_has_nothing(parts: Parts) -> None:
    last = await wrote(parts, "user_1", courseSlugs=[])
    assert await report_of(parts).at(EVERYBODY, last) == []


async def test_a_write_that_was_refused_gives_nothing(parts: Parts) -> None:
    (id_,) = await parts.store.ledger.intend([Entry("run", "user:user_1", "grant", {}, {"plan": "pro"}, [])])
    assert id_ is not None
    await parts.store.ledger.settle([id_], State.REFUSED)
    assert await report_of(parts).at(EVERYBODY, 10**10) == []


async def test_the_past_calls_neither_service(box: Sandbox, parts: Parts) -> None:
    await wrote(parts, "user_1", plan="pro")
    box.clerk.requests.clear()
    box.lake.requests.clear()
    assert subjects(await report_of(parts).at(EVERYBODY, 10**10)) == ["user:user_1"]
    assert (box.clerk.requests.count(), box.lake.requests.count()) == (0, 0)


# Who has a value, by the last writes.


async def test_holders_are_those_whose_last_write_has_the_value(parts: Parts) -> None:
    for user, courses in (("user_1", ["a_b", "c"]), ("user_2", ["aXb"]), ("user_3", ["a_b"]), ("user_4", ["a_b"])):
        await wrote(parts, user, courseSlugs=courses)
    await wrote(parts, "user_4", courseSlugs=[])
    await wrote(parts, "user_5", plan="a_b")
    count, found = await holders(parts.store.ledger, Wanted.of(course="a_b"))
    assert (count, subjects(found)) == (2, ["user:user_1", "user:user_3"])


async def test_holders_are_counted_beyond_the_limit(parts: Parts) -> None:
    first = await wrote(parts, "user_1", plan="pro")
    await wrote(parts, "user_1", plan="pro", role="member")
    await wrote(parts, "user_2", plan="pro")
    count, found = await holders(parts.store.ledger, Wanted.of(plan="pro"), 1)
    assert (count, [(one.subject, one.since) for one in found]) == (2, [("user:user_1", first)])

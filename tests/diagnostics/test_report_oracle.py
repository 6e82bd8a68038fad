"""The report compared with plain oracles: one over a random history, one over what was published."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from sync_worker.diagnostics.report import AccessReport, Wanted, holders
from sync_worker.formatting import rfc3339
from sync_worker.storage.ledger import Entry, State
from sync_worker.storage.work_items import WorkItem
from tests.builders import reference
from tests.clock import ManualClock
from tests.parts import opened, working

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sync_worker.diagnostics.report import Holding
    from sync_worker.sandbox.server import Sandbox
    from tests.parts import Parts

pytestmark = pytest.mark.anyio
FILTERS: tuple[dict[str, str], ...] = (
    *({}, {"plan": "pro"}, {"plan": "team"}, {"role": "admin"}, {"course": "a"}, {"course": "b"}),
    *({"plan": "pro", "course": "a"}, {"plan": "none"}),
)


def report_of(parts: Parts) -> AccessReport:
    store, services = parts.store, parts.services
    return AccessReport(
        store.ledger, store.access, services.source, services.target, parts.settings.layout, store.runtime.clock
    )


def items(values: Mapping[str, Any]) -> set[tuple[str, str]]:
    lists = {name: value if isinstance(value, list) else [value] for name, value in values.items()}
    return {(name, one) for name, members in lists.items() for one in members}


def wanted_items(given: Mapping[str, str]) -> set[tuple[str, str]]:
    return {("courseSlugs" if name == "course" else name, value) for name, value in given.items()}


# The past: a random history of writes.


@dataclass(frozen=True)
class Write:
    at: float
    by: str
    document: str
    values: Mapping[str, Any]


def drawn(chance: random.Random) -> dict[str, Any]:
    """Draw the values of one write; sometimes nothing is left."""
    courses = sorted(chance.sample(["a", "b", "c"], chance.randint(0, 3)))
    given = {"plan": chance.choice(["pro", "team"]), "role": chance.choice(["member", "admin"]), "courseSlugs": courses}
    return {name: given[name] for name in given if chance.random() < 0.7} if chance.random() < 0.85 else {}


def expected(writes: Sequence[Write], given: Mapping[str, str], moment: float) -> tuple[Any, ...] | None:
    """Return what the report must say of one subject: values, document, editors, since and until; None for nothing."""
    past = [write for write in writes if write.at <= moment]
    held = items(past[-1].values) if past else set()
    wanted = wanted_items(given)
    if not held or not wanted <= held:
        return None
    began: dict[tuple[str, str], Write] = {}
    for item in wanted or held:
        place = len(past)
        while place and item in items(past[place - 1].values):
            place -= 1
        began[item] = past[place]
    if wanted:
        since = max(write.at for write in began.values())
    else:
        place = len(past) - 1
        while place and past[place - 1].values == past[-1].values:
            place -= 1
        since = past[place].at
    later = [write for write in writes if write.at > moment]
    now = past[-1].values
    lost = (one.at for one in later if not (wanted <= items(one.values) if wanted else one.values == now))
    editors = tuple(sorted({write.by for write in began.values()} - {""}))
    return dict(past[-1].values), (past[-1].document,), editors, since, next(lost, None)


async def test_the_past_is_what_a_plain_reading_of_the_history_says(box: Sandbox, sqlite_url: str) -> None:
    clock, chance = ManualClock(), random.Random(19)
    history: dict[str, list[Write]] = {f"user:user_{n}": [] for n in range(12)}
    async with opened(box, sqlite_url, clock=clock) as parts:
        ledger = parts.store.ledger
        for step in range(60):
            clock.advance(10)
            chosen = chance.sample(sorted(history), 4)
            new = [Write(clock.now(), chance.choice(["", "p-ada", "p-ben"]), f"e{step}", drawn(chance)) for _ in chosen]
            entries = [
                Entry("run", subject, "update", {}, write.values, [write.document], by=write.by)
                for subject, write in zip(chosen, new, strict=True)
            ]
            await ledger.settle([id_ for id_ in await ledger.intend(entries) if id_ is not None], State.APPLIED)
            for subject, write in zip(chosen, new, strict=True):
                history[subject].append(write)
        compared = 0
        for moment in (clock.now() - 10 * step + shift for step in range(0, 62, 3) for shift in (0, 5)):
            for given in FILTERS:
                found = await report_of(parts).at(Wanted.of(**given), moment)
                reported = {
                    one.subject: (dict(one.values), one.documents, one.by, one.since, one.until) for one in found
                }
                must = {subject: expected(writes, given, moment) for subject, writes in history.items()}
                assert reported == {subject: one for subject, one in must.items() if one is not None}
                compared += len(reported)
    assert compared > 500


# Now: what was published, with moves, windows and several documents for one person.


@dataclass
class School:
    """Publishes, syncs everybody, and remembers since when each has each item."""

    box: Sandbox
    parts: Parts
    users: Sequence[str]
    began: dict[tuple[str, tuple[str, str]], tuple[float, float]] = field(default_factory=dict)
    changed: dict[str, tuple[float, float]] = field(default_factory=dict)

    async def publish(self, document: str, user: str, **fields: Any) -> None:
        row = {"_id": document, "_type": "entitlement", "clerkUserId": user, **fields}
        await self.box.lake.mutate([{"createOrReplace": row}])

    async def sync(self) -> None:
        clock, queue = self.parts.store.runtime.clock, self.parts.store.queue
        before, start = {user: items(self.metadata(user)) for user in self.users}, clock.now()
        await queue.enqueue([WorkItem(f"user:{user}") for user in self.users])
        for user in self.users:
            while (row := await queue.get(f"user:{user}")) and row.pending and not row.dead:
                await self.parts.store.database.changed(0.05)
            if items(self.metadata(user)) != before[user]:
                self.changed[user] = (start, clock.now())
            for item in items(self.metadata(user)) - before[user]:
                self.began[user, item] = (start, clock.now())

    def metadata(self, user: str) -> dict[str, Any]:
        found: dict[str, Any] = self.box.clerk.users[user]["public_metadata"]
        return found

    def active(self, user: str) -> list[dict[str, Any]]:
        """Return the documents that count for a person now."""
        now = rfc3339(self.parts.store.runtime.clock.now()) or ""
        rows = [row for row in self.box.lake.documents.values() if row.get("clerkUserId") == user]
        return [row for row in rows if row.get("startsAt", "") <= now < row.get("endsAt", "9")]

    def expected(self, user: str, given: Mapping[str, str]) -> tuple[list[str], str | None] | None:
        """Return the documents of a person who has what is wanted, and when the last of those that give it ends."""
        rows = {row["_id"]: (row, items(self.granted(row))) for row in self.active(user)}
        held = {item for _, given_ in rows.values() for item in given_}
        wanted = wanted_items(given)
        if not held or not wanted <= held:
            return None
        ends = [row.get("endsAt") for row, granted in rows.values() if granted & (wanted or held)]
        return sorted(rows), None if None in ends else max(end for end in ends if end)

    @staticmethod
    def granted(row: Mapping[str, Any]) -> dict[str, Any]:
        given = {name: row[name] for name in ("plan", "role") if name in row}
        return {**given, "courseSlugs": [one["_ref"].removeprefix("c-") for one in row.get("courses", ())]}

    def check(self, one: Holding, given: Mapping[str, str]) -> None:
        user = one.subject.removeprefix("user:")
        must = self.expected(user, given)
        assert must is not None
        assert (sorted(one.documents), rfc3339(one.until)) == must
        ranges = [self.began[user, item] for item in wanted_items(given)] or [self.changed[user]]
        assert one.since is not None
        assert max(start for start, _ in ranges) <= one.since <= max(end for _, end in ranges)


async def test_the_present_is_what_a_plain_reading_of_the_documents_says(box: Sandbox, sqlite_url: str) -> None:
    now = datetime.now(UTC)
    past, soon, later = (rfc3339((now + timedelta(days=days)).timestamp()) for days in (-1, 30, 60))
    courses = {slug: [reference(f"c-{slug}")] for slug in ("a", "b")}
    users = [box.clerk.add_user(f"user_{n}") for n in range(6)]
    await box.lake.mutate(
        [{"create": {"_id": f"c-{slug}", "_type": "course", "slug": {"current": slug}}} for slug in courses]
    )
    async with working(box, sqlite_url) as parts:
        school = School(box, parts, users)
        await school.publish("e0", "user_0", plan="pro", endsAt=soon)
        await school.publish("e0b", "user_0", plan="pro", courses=courses["a"], endsAt=later)
        await school.publish("e1", "user_1", plan="team", courses=courses["a"], role="admin")
        await school.publish("e2", "user_2", plan="pro", endsAt=past)
        await school.publish("e3", "user_3", plan="pro", startsAt=soon)
        await school.publish("e4", "user_4", courses=courses["b"], startsAt=past, endsAt=soon)
        await school.sync()
        await school.publish("e1", "user_2", plan="team", courses=courses["a"], role="admin")  # it moves
        await school.publish("e4b", "user_4", plan="pro", courses=courses["a"])
        await school.sync()
        await school.publish("e0", "user_5", plan="pro", endsAt=soon)  # it moves; another gives the same
        await school.publish("e4", "user_4", courses=courses["b"], startsAt=past, endsAt=past)  # it ends
        await school.sync()
        for given in FILTERS:
            wanted = Wanted.of(**given)
            found = await report_of(parts).now(wanted)
            assert {one.subject for one in found} == {f"user:{u}" for u in users if school.expected(u, given)}
            for one in found:
                school.check(one, given)
            in_the_ledger = await report_of(parts).at(wanted, parts.store.runtime.clock.now())
            assert [(one.subject, dict(one.values), one.since) for one in in_the_ledger] == [
                (one.subject, dict(one.values), one.since) for one in found
            ]
            if given:
                count, first = await holders(parts.store.ledger, wanted)
                assert (count, [one.subject for one in first]) == (len(found), [one.subject for one in found])

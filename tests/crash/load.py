"""What editors do all day, at random but the same each time; and the account of what was accepted meanwhile."""

from __future__ import annotations

import json
from collections import Counter, deque
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

from tests.builders import reference

if TYPE_CHECKING:
    from sync_worker.runtime.wiring import Store
    from sync_worker.sandbox.server import Sandbox

COURSES = 5
PLANS = ("basic", "pro", "team")


@dataclass
class Editors:
    """Publish, move, change and delete entitlements, and rename courses now and then; each edit is one webhook."""

    box: Sandbox
    users: list[str]
    random: Random = field(default_factory=lambda: Random(11))
    ids: list[str] = field(default_factory=list)
    made: int = 0

    @classmethod
    async def begin(cls, box: Sandbox, users: int) -> Editors:
        """Add the users, and the courses that entitlements lead to, before any webhook is configured."""
        await box.lake.mutate(
            [
                {"create": {"_id": f"course-{n}", "_type": "course", "slug": {"current": f"course-{n}"}}}
                for n in range(COURSES)
            ]
        )
        return cls(box, [box.clerk.add_user(f"user_{n:04}") for n in range(users)])

    async def edit(self) -> None:
        """Make one edit."""
        self.made += 1
        await self.box.lake.mutate([self._mutation()])

    def _mutation(self) -> dict[str, Any]:
        choose, user = self.random.choice, self.random.choice(self.users)
        what = self.random.random()
        if what < 0.02:
            return {"patch": {"id": self._course(), "set": {"slug.current": f"renamed-{self.made}"}}}
        if what < 0.4 or len(self.ids) < len(self.users) // 2:
            self.ids.append(f"ent-{self.made:05}")
            row = {"_id": self.ids[-1], "_type": "entitlement", "clerkUserId": user, "plan": choose(PLANS)}
            return {"create": {**row, "courses": [reference(self._course())]}}
        document = choose(self.ids)
        if what < 0.6:
            self.ids.remove(document)
            return {"delete": {"id": document}}
        if what < 0.8:
            return {"patch": {"id": document, "set": {"clerkUserId": user}}}
        return {"patch": {"id": document, "set": {"plan": choose(PLANS)}}}

    def _course(self) -> str:
        return f"course-{self.random.randrange(COURSES)}"


class Account:
    """Which subjects the receiver said 202 for, and how often."""

    def __init__(self, box: Sandbox) -> None:
        self._deliveries = box.lake.webhooks.deliveries
        self._deliveries.messages = deque()  # the stand-in keeps the last 2,000 only
        self._deliveries.attempts = deque()

    @property
    def accepted(self) -> int:
        return sum(attempt["resultCode"] == 202 for attempt in self._deliveries.attempts)

    def by_status(self) -> Counter[int | None]:
        return Counter(attempt["resultCode"] for attempt in self._deliveries.attempts)

    def items(self) -> Counter[str]:
        """Return how often each subject or document was accepted."""
        keys = {message.id: _keys(json.loads(message.body)) for message in self._deliveries.messages}
        taken = (a["messageId"] for a in self._deliveries.attempts if a["resultCode"] == 202)
        return Counter(key for message in taken for key in keys[message])

    async def lost(self, store: Store) -> int:
        """Return how many accepted items the queue does not know of, or has not done."""
        rows = await store.database.read(
            lambda tx: tx.execute("SELECT key, generation, completed_generation FROM work")
        )
        done = {key: done for key, wanted, done in rows if wanted == done}
        return sum(max(0, items - done.get(key, 0)) for key, items in self.items().items())


def _keys(body: dict[str, Any]) -> set[str]:
    if body["type"] != "entitlement":
        return {f"document:{body['id']}"}
    return {f"user:{fields['clerkUserId']}" for fields in (body["before"], body["after"]) if fields}

"""What the call budget granted, kept by the database itself.

A call that was granted in one window may arrive in the next one on a busy machine, so arrivals prove nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

from tests.clock import TIMINGS

if TYPE_CHECKING:
    from sync_worker.storage.database import Transaction
    from tests.crash.site import Site

TABLE = "CREATE TABLE granted (slots TEXT NOT NULL)"
FUNCTION = """
CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS
'BEGIN INSERT INTO granted VALUES (NEW.slots); RETURN NULL; END'
"""
ON_SQLITE = (
    TABLE,
    "CREATE TRIGGER keep AFTER UPDATE OF slots ON budget BEGIN INSERT INTO granted VALUES (NEW.slots); END",
)
ON_POSTGRES = (
    TABLE,
    FUNCTION,
    "CREATE TRIGGER keep AFTER UPDATE OF slots ON budget FOR EACH ROW EXECUTE FUNCTION keep()",
)
SLOTS = round(TIMINGS.budget_window / TIMINGS.budget_slot)


async def keep_grants(site: Site) -> None:
    """Let the database keep every state of the budget from now on."""

    def work(tx: Transaction) -> None:
        for statement in ON_POSTGRES if site.database_url.startswith("postgres") else ON_SQLITE:
            tx.execute(statement)

    async with site.store() as store:
        await store.database.run(work)


async def granted(site: Site) -> Counter[int]:
    """Return how many calls were granted in each slot: the most that any state of the budget says."""
    calls = Counter[int]()
    async with site.store() as store:
        for (slots,) in await store.database.read(lambda tx: tx.execute("SELECT slots FROM granted")):
            calls |= Counter({int(slot): number for slot, number in json.loads(slots).items()})
    return calls


def busiest(calls: Counter[int]) -> int:
    """Return the most calls that were granted in any ten seconds."""
    return max(sum(calls[slot] for slot in range(first, first + SLOTS + 1)) for first in calls)

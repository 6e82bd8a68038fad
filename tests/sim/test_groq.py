"""The Python model of the GROQ files answers as groq-js does: about random datasets with odd values."""

from __future__ import annotations

import asyncio
import inspect
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from sync_worker.sanity.client import Queries
from sync_worker.settings import packaged_groq
from tests.sim import content, groq, steps
from tests.sim.world import Config, World

if TYPE_CHECKING:
    from sync_worker.sandbox.documents import Transaction
    from sync_worker.sandbox.server import Sandbox

pytestmark = pytest.mark.anyio

EDITS = [
    step.__name__
    for step in steps.STEPS
    if step.__module__ == content.__name__ and not inspect.iscoroutinefunction(step)  # those take their time
]
ODD: dict[str, tuple[Any, ...]] = {
    "clerkUserId": (7, "", " ", "user_1 user_2", "user_1  ", ["user_1"], {"_ref": "user_1"}),
    "clerkOrganizationId": (7, "", "org_0 ", ["org_0"]),
    "userEmail": (7, "", " ANN@one.test ", ["ann@one.test"], "ann@one.test ben@one.test"),
    "userExternalId": (7, "", "crm-1 ", ["crm-1"], "CRM-1"),
    "plan": (
        7,
        "",
        [],
        {"name": "pro"},
        {"_ref": "nowhere"},
        {"_ref": None},
        {"_ref": "course-0"},
        {"_ref": "cohort-0"},
    ),
    "role": (7, None, ["admin"]),
    "courses": (7, "course-0", {}, [], [None, 7, "x", {"_ref": "nowhere"}, {"_ref": "course-1"}, {"_ref": "course-1"}]),
    "cohorts": (7, "cohort-0", {}, [None, {"_ref": "nowhere"}, {"_ref": "course-0"}, {"_ref": "cohort-1"}]),
    "slug": (7, "algebra", {}, {"current": None}, {"current": 7}),
    "status": (7, None, "paused"),
    "deep": ([{"er": {"_ref": "course-2"}}], {"_ref": "plan-0"}),
}
PAGE = 4


def datasets(random: Random, count: int) -> list[dict[str, Any]]:
    """Return documents after so many edits each, the drafts and versions among them."""
    found = []
    for number in range(count):
        world = World(Config(seed=number), asyncio.get_running_loop())
        world.lake.reported.clear()
        world.lake.mutate(content.first_documents(world))
        for name in random.choices(EDITS, k=40):
            steps.NAMED[name](world)
        documents = {
            id_: {**document, "_updatedAt": f"2026-05-01T12:00:0{random.randrange(4)}Z"}
            for id_, document in world.lake.store.documents.items()
        }
        for id_ in random.sample(sorted(documents), len(documents) // 3):
            name = random.choice(tuple(ODD))
            documents[id_] = {**documents[id_], name: random.choice(ODD[name])}
        found.append(documents)
    return found


def parameters(random: Random, documents: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what to ask each query about a dataset."""
    ids = [*sorted(documents), "nowhere"]
    times = sorted({document["_updatedAt"] for document in documents.values()})
    some = random.sample(ids, 4)
    return {
        "by_subject": {
            "users": random.sample(content.USERS, 3),
            "organizations": random.sample(content.ORGANIZATIONS, 1),
            "emails": [email.lower() for email in random.sample(content.EMAILS, 2)],
            "externalIds": random.sample(content.EXTERNAL_IDS, 1),
            "documents": some,
        },
        "by_address": {
            "emails": [email.lower() for email in random.sample(content.EMAILS, 2)],
            "externalIds": random.sample(content.EXTERNAL_IDS, 1),
        },
        "everything": {"after": random.choice(("", *ids))},
        "affected": {"documents": some, "after": random.choice(("", "", *ids)), "expected": random.sample(ids, 2)},
        "changed": {
            "since": random.choice(times),
            "after": random.choice(("", *ids)),
            "before": "2026-05-01T12:00:03Z",
        },
    }


def _id(row: dict[str, Any]) -> str:
    return str(row["_id"])


async def test_the_model_of_the_queries_answers_as_groq_js(box: Sandbox) -> None:
    random, queries = Random(7), Queries.load(packaged_groq())
    rows = 0
    for documents in datasets(random, 60):
        await box.lake._groq.clear()
        await box.lake._groq.apply(list(documents.values()))
        seen = groq.published(documents)
        for name, given in parameters(random, documents).items():
            text = getattr(queries, name).replace("[0...1000]", f"[0...{PAGE}]").replace("[0...500]", f"[0...{PAGE}]")
            expected = await box.lake.query(text, given)
            answer = groq.MEANINGS[name](seen, given, PAGE)
            for part in ("revisions", "between"):  # what has no promised order
                for side in (expected, answer):
                    if part in side:
                        side[part].sort(key=str)
            if name == "by_subject":  # the worker takes a row once, in whatever order the ways to find it give it
                expected["entitlements"] = sorted({r["_id"]: r for r in expected["entitlements"]}.values(), key=_id)
            assert answer == expected, name
            rows += len(expected.get("entitlements", expected.get("changed", ())))
    assert rows > 300


async def test_the_model_of_the_webhook_sends_what_groq_js_makes_of_it(box: Sandbox) -> None:
    queries = Queries.load(packaged_groq())
    transactions: list[Transaction] = []
    world = World(Config(seed=1), asyncio.get_running_loop())
    world.lake.reported[:] = [lambda transaction, _: transactions.append(transaction)]
    world.lake.mutate(content.first_documents(world))
    for name in Random(1).choices(EDITS, k=120):
        steps.NAMED[name](world)
    sent = 0
    for transaction in transactions:
        for change in transaction.changes:
            matches, body = await box.lake._groq.delta(
                queries.webhook_filter, queries.webhook_projection, change.before, change.after, transaction.time
            )
            assert groq.webhook(change.before, change.after) == (body if matches else None)
            sent += matches
    assert sent > 100

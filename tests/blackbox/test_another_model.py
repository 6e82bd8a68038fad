"""The worked example of another content model, on real GROQ: other type and field names, the same promises."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from sync_worker.cli.processes import SECRET, install_clerk_hook, settings_for
from sync_worker.sanity.client import Queries
from sync_worker.settings import packaged_groq
from tests import nursery
from tests.builders import reference
from tests.nursery import listening
from tests.oracle import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from sync_worker.sandbox.server import Sandbox

pytestmark = pytest.mark.anyio
EXAMPLE = packaged_groq() / "examples" / "memberships"


@pytest.fixture
def environment(box: Sandbox, sqlite_url: str) -> dict[str, str]:
    return settings_for(box, sqlite_url) | {"GROQ_DIR": str(EXAMPLE)}


@pytest.fixture
async def running(box: Sandbox, environment: dict[str, str], tmp_path: Path) -> AsyncIterator[None]:
    """A worker that reads the example's queries, and a webhook with its filter and projection."""
    queries = Queries.load(EXAMPLE)
    async with listening("serve", environment, tmp_path / "log") as url:
        box.lake.add_hook(
            url=f"{url}/webhooks/sanity",
            secret=SECRET,
            filter=queries.webhook_filter,
            projection=queries.webhook_projection,
        )
        install_clerk_hook(box, url)
        yield


async def seed(box: Sandbox) -> None:
    modules = [{"_id": f"m{n}", "_type": "module", "path": {"current": f"module-{n}"}} for n in range(3)]
    tier = {"_id": "t1", "_type": "tier", "code": "gold", "modules": [reference("m0")]}
    team = {"_id": "g1", "_type": "team", "modules": [reference("m1")]}
    membership = {
        "_id": "a1",
        "_type": "membership",
        "holder": {"clerk": "user_ada"},
        "tier": reference("t1"),
        "teams": [reference("g1")],
        "modules": [reference("m2")],
        "seat": "lead",
        "state": "live",
    }
    await box.lake.mutate([{"create": document} for document in (*modules, tier, team, membership)])


def held(box: Sandbox, user: str) -> dict[str, Any]:
    found: dict[str, Any] = box.clerk.users[user]["public_metadata"]
    return found


async def right(box: Sandbox, user: str, expected: dict[str, Any]) -> None:
    await until(lambda: held(box, user) == expected)


FULL = {"plan": "gold", "role": "lead", "courseSlugs": ["module-0", "module-1", "module-2"]}


async def test_the_reconcile_reads_the_other_model(box: Sandbox, environment: dict[str, str], tmp_path: Path) -> None:
    box.clerk.add_user("user_ada")
    await seed(box)
    assert (await nursery.run("reconcile", cwd=tmp_path, environment=environment)).code == 0
    assert held(box, "user_ada") == FULL


@pytest.mark.usefixtures("running")
async def test_its_webhooks_keep_it_right(box: Sandbox) -> None:
    box.clerk.add_user("user_ada")
    await seed(box)
    await right(box, "user_ada", FULL)
    await box.lake.mutate([{"patch": {"id": "m1", "set": {"path.current": "renamed"}}}])
    await right(box, "user_ada", FULL | {"courseSlugs": ["module-0", "module-2", "renamed"]})
    await box.lake.mutate([{"patch": {"id": "a1", "set": {"state": "ended"}}}])
    await right(box, "user_ada", {})


@pytest.mark.usefixtures("running")
async def test_it_names_people_by_address_and_lets_them_go(box: Sandbox) -> None:
    ada = box.clerk.add_user(email="ada@example.org")
    ben = box.clerk.add_user("user_ben")
    row = {"_id": "a1", "_type": "membership", "holder": {"email": "Ada@example.org"}, "seat": "lead", "state": "live"}
    await box.lake.mutate([{"create": row}])
    await right(box, ada, {"role": "lead", "courseSlugs": []})
    await box.lake.mutate([{"patch": {"id": "a1", "set": {"holder": {"clerk": ben}}}}])
    await right(box, ben, {"role": "lead", "courseSlugs": []})
    await right(box, ada, {})
    await box.lake.mutate([{"create": row | {"_id": "a2"}}, {"delete": {"id": "a1"}}])
    await right(box, ada, {"role": "lead", "courseSlugs": []})
    await right(box, ben, {})

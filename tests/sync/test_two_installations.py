"""Two datasets that are synced into one Clerk instance, each by a worker and a database of its own."""

from __future__ import annotations

import copy
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from sync_worker.cli.processes import settings_for
from sync_worker.doctor.people_checks import ownership
from sync_worker.doctor.runner import Status, open_installation
from sync_worker.domain.ownership import Adoption
from sync_worker.runtime.wiring import open_reconcile
from sync_worker.storage.work_items import WorkItem
from tests.builders import created
from tests.causes import cause_of
from tests.cli.terminal import Operator
from tests.oracle import until_idle
from tests.parts import RUNTIME, opened, working

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from sync_worker.doctor.runner import Finding
    from sync_worker.sandbox.server import Sandbox
    from sync_worker.settings import Settings
    from tests.parts import Parts

pytestmark = pytest.mark.anyio
KEYS = ["user:user_1", "user:user_2"]


@pytest.fixture
def other_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/other.db"


@pytest.fixture
def same_clerk(box: Sandbox) -> dict[str, Any]:
    """The settings by which the other dataset's installation writes into this Clerk."""
    return {"clerk_api_url": box.clerk_url, "clerk_secret_key": box.clerk.secret_key}


@pytest.fixture
async def published(box: Sandbox, staging_box: Sandbox) -> None:
    """Two people; production entitles the first, staging the second."""
    box.clerk.add_user("user_1")
    box.clerk.add_user("user_2")
    await box.lake.mutate([created("e1", "user_1", plan="pro")])
    await staging_box.lake.mutate([created("s2", "user_2", plan="basic")])


def people(box: Sandbox) -> dict[str, Any]:
    return copy.deepcopy({id_: (u["public_metadata"], u["private_metadata"]) for id_, u in box.clerk.users.items()})


async def reconcile(parts: Parts, **given: Any) -> list[str]:
    """Reconcile everybody; return what is refused."""
    async with open_reconcile(parts.settings, parts.store, Counter(), **given) as run:
        findings = await run.find()
        await run.apply(findings)
        return [refusal.reason for refusal in findings.refused]


async def sync_all(parts: Parts) -> None:
    await parts.store.queue.enqueue([WorkItem(key, cause=cause_of("sync")) for key in KEYS])
    await until_idle(parts.settings.database_url)


async def owners_seen(settings: Settings) -> Finding:
    """Return what doctor finds of whose keys people have."""
    async with open_installation(settings, {}, RUNTIME) as installation:
        return await ownership(installation)


@pytest.mark.usefixtures("published")
async def test_two_datasets_on_one_clerk_leave_each_others_people_alone_in_turn(
    box: Sandbox, staging_box: Sandbox, database_url: str, other_url: str, same_clerk: Mapping[str, Any]
) -> None:
    async with (
        working(box, database_url, max_revocations="1000") as production,
        working(staging_box, other_url, max_revocations="1000", **same_clerk) as staging,
    ):
        await sync_all(production)
        await sync_all(staging)
        both = people(box)
        assert [public.get("plan") for public, _ in both.values()] == ["pro", "basic"]
        for _ in range(2):
            for parts in (production, staging):
                await sync_all(parts)
                await reconcile(parts)
        assert people(box) == both


@pytest.mark.usefixtures("published")
async def test_who_has_an_entitlement_in_both_keeps_the_first_and_the_second_names_it_everywhere(
    box: Sandbox, staging_box: Sandbox, database_url: str, other_url: str, same_clerk: Mapping[str, Any]
) -> None:
    await staging_box.lake.mutate([created("s1", "user_1", plan="free")])
    async with opened(box, database_url) as production:
        await reconcile(production)
    before = people(box)["user_1"]
    async with working(staging_box, other_url, **same_clerk) as staging:
        source = production.settings.layout.source
        assert await reconcile(staging) == [f"user:user_1 is managed by {source}"]
        await sync_all(staging)
        failed = {row.key: row for row in await staging.store.queue.failed(10)}
        assert (failed["user:user_1"].error_code, source in failed["user:user_1"].error_detail) == (
            "managed_elsewhere",
            True,
        )
        assert people(box)["user_1"] == before
        await reconcile(staging, adoption=Adoption(source=source))
        assert people(box)["user_1"][0]["plan"] == "free"
        assert people(box)["user_1"][1]["entitlementSync"]["source"] == staging.settings.layout.source


@pytest.mark.usefixtures("published")
async def test_a_namespace_of_its_own_lets_both_give_access_to_the_same_person(
    box: Sandbox, staging_box: Sandbox, database_url: str, other_url: str, same_clerk: Mapping[str, Any]
) -> None:
    await staging_box.lake.mutate([created("s1", "user_1", plan="free")])
    async with (
        opened(box, database_url) as production,
        opened(staging_box, other_url, metadata_namespace="staging", **same_clerk) as staging,
    ):
        for parts in (production, staging, production, staging):
            assert await reconcile(parts) == []
        first, second = {"plan": "pro", "courseSlugs": []}, {"plan": "free", "courseSlugs": []}
        assert people(box)["user_1"][0] == {**first, "staging": second}
        await staging_box.lake.mutate([{"delete": {"id": "s1"}}])
        await reconcile(staging)
        assert people(box)["user_1"][0] in ({**first, "staging": {}}, first)


@pytest.mark.usefixtures("published")
async def test_doctor_names_the_other_installation_from_both_sides(
    box: Sandbox, staging_box: Sandbox, sqlite_url: str, other_url: str, same_clerk: Mapping[str, Any]
) -> None:
    async with (
        opened(box, sqlite_url) as production,
        opened(staging_box, other_url, **same_clerk) as staging,
    ):
        await reconcile(production)
        assert (await owners_seen(production.settings)).status is Status.OK
        await reconcile(staging)
        for one, other in ((production, staging), (staging, production)):
            found = await owners_seen(one.settings)
            assert (found.status, other.settings.layout.source in found.result) == (Status.PROBLEM, True)
            assert "--take-over" in found.fix


async def test_doctor_says_that_values_are_not_managed_until_a_first_reconcile_has_run(
    box: Sandbox, sqlite_url: str
) -> None:
    box.clerk.add_user("user_1", public_metadata={"plan": "by an old handler"})
    box.clerk.add_user("user_2")
    await box.lake.mutate([created("e2", "user_2", plan="pro")])
    async with opened(box, sqlite_url) as parts:
        found = await owners_seen(parts.settings)
        assert (found.status, "--adopt" in found.fix) == (Status.WARNING, True)
        await reconcile(parts)
        assert (await owners_seen(parts.settings)).status is Status.OK


async def test_an_operator_takes_another_installation_over_with_one_option(box: Sandbox, tmp_path: Path) -> None:
    box.clerk.add_user("user_1")
    await box.lake.mutate([created("e1", "user_1", plan="pro")])
    operator = Operator(box, tmp_path, settings_for(box, f"sqlite:///{tmp_path}/work.db"))
    await operator.reconcile()
    box.clerk.users["user_1"]["private_metadata"]["entitlementSync"]["source"] = "elsewhere/production"
    await box.lake.mutate([{"patch": {"id": "e1", "set": {"plan": "basic"}}}])
    _, refused = await operator.reconcile()
    assert (refused["refused"], box.clerk.users["user_1"]["public_metadata"]["plan"]) == (1, "pro")
    code, _ = await operator.reconcile("--take-over", "elsewhere/production")
    assert (code, box.clerk.users["user_1"]["public_metadata"]["plan"]) == (0, "basic")


@pytest.mark.parametrize("command", ["reconcile", "approve"])
async def test_a_command_with_the_key_of_another_clerk_writes_nothing_and_names_the_variable(
    box: Sandbox, staging_box: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    operator = Operator(box, tmp_path, settings_for(box, f"sqlite:///{tmp_path}/work.db"))
    for clerk in (box.clerk, staging_box.clerk):
        clerk.add_user("user_1")
    monkeypatch.setattr(staging_box.clerk.webhooks, "instance_id", "ins_another")
    await box.lake.mutate([created("e1", "user_1", plan="pro"), created("other", "user_2")])
    await operator.reconcile()
    await box.lake.mutate([{"delete": {"id": "e1"}}])
    await operator.reconcile("--max-revocations", "0")
    (held,) = json.loads((await operator.run("approve", "--json")).out)
    before = copy.deepcopy(box.clerk.users["user_1"])
    staging_box.clerk.users["user_1"].update(before)
    elsewhere = {"CLERK_API_URL": staging_box.clerk_url, "CLERK_SECRET_KEY": staging_box.clerk.secret_key}
    ended = await operator.run(*{"reconcile": ["reconcile"], "approve": ["approve", held["id"]]}[command], **elsewhere)
    assert (ended.code, "CLERK_SECRET_KEY: this database belongs to" in ended.err) == (1, True)
    assert staging_box.clerk.users["user_1"]["public_metadata"] == before["public_metadata"]
